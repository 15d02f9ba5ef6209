"""The sources that block what is below them, since they are older than their `error_after`."""

from __future__ import annotations

import dagster as dg

from dagster_sao.orchestration.private.dagster_internals import last_check_evaluations
from dagster_sao.orchestration.project.loaded import LoadedProject, source_policy
from dagster_sao.orchestration.project.orchestrated import OrchestratedProject
from dagster_sao.orchestration.project.probed_sources import checked_sources


def blocked_sources(
    instance: dg.DagsterInstance, project: OrchestratedProject, loaded: LoadedProject
) -> frozenset[str]:
    """Return the sources with `blocking` set that are older than their `error_after`."""
    blocking = {
        key: source.unique_id
        for key, source in checked_sources(project, loaded).items()
        if source_policy(loaded, source).blocking
    }
    latest = last_check_evaluations(instance, blocking) if blocking else {}
    return frozenset(
        blocking[key]
        for key, evaluation in latest.items()
        if not evaluation.passed and evaluation.severity is dg.AssetCheckSeverity.ERROR
    )
