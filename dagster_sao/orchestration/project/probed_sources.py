"""Which sources of a project are probed, and the session with the warehouse that does it."""

from __future__ import annotations

from collections.abc import Iterable

import dagster as dg

from dagster_sao.core.decision.plan_tests import tests_of_selection
from dagster_sao.core.manifest.graph import Source
from dagster_sao.orchestration.project.loaded import LoadedProject, source_policy
from dagster_sao.orchestration.project.orchestrated import OrchestratedProject
from dagster_sao.warehouse.session import WarehouseSession

CHECK_NAME = "freshness"


def open_session(project: OrchestratedProject, loaded: LoadedProject) -> WarehouseSession:
    """Return a session with the project's warehouse as probes use it. Raises WarehouseError with one sentence."""
    return open_session_with(project, loaded, project.probe_target)


def open_session_with(project: OrchestratedProject, loaded: LoadedProject, target: str | None) -> WarehouseSession:
    """Return a session with the warehouse of a target. Raises WarehouseError with one sentence."""
    dbt_project = project.dbt_project
    return WarehouseSession.open(
        project_dir=dbt_project.project_dir,
        profiles_dir=dbt_project.profiles_dir,
        manifest=loaded.manifest,
        profile=dbt_project.profile,
        target=target,
        variables=project.variables,
    )


def probed_sources(project: OrchestratedProject, loaded: LoadedProject) -> list[Source]:
    """Return the sources that some model or test reads and that no Dagster asset loads."""
    graph, keys = loaded.project.graph, loaded.keys.by_unique_id
    return [
        source
        for uid, source in graph.sources.items()
        if (graph.children[uid] or uid in graph.tests_about) and keys[uid] not in project.loaded_by_dagster
    ]


def sources_above(project: OrchestratedProject, loaded: LoadedProject, selected: Iterable[str]) -> list[Source]:
    """Return the probed sources that the selected nodes and their tests read at any depth."""
    graph, nodes = loaded.project.graph, set(selected)
    read = {uid for test in tests_of_selection(graph, nodes) for uid in graph.tests[test].reads}
    above = graph.ancestors(nodes | read) | read
    return [source for source in probed_sources(project, loaded) if source.unique_id in above]


def checked_sources(project: OrchestratedProject, loaded: LoadedProject) -> dict[dg.AssetCheckKey, Source]:
    """Return the sources with thresholds that some node reads and no Dagster asset loads, by their check."""
    keys = loaded.keys.by_unique_id
    return {
        dg.AssetCheckKey(keys[source.unique_id], CHECK_NAME): source
        for source in probed_sources(project, loaded)
        if source_policy(loaded, source).has_thresholds
    }
