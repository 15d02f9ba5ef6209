"""Resetting nodes: each counts as not built before."""

from __future__ import annotations

from collections.abc import Callable

import dagster as dg

from dagster_sao.orchestration import clock
from dagster_sao.orchestration.project.orchestrated import OrchestratedProject
from dagster_sao.orchestration.project.selection import NodeSelection, resolve_selection
from dagster_sao.orchestration.state.event_log import event_log_state
from dagster_sao.orchestration.state.read_state import take_snapshot
from dagster_sao.orchestration.state.resets import forget


def reset_nodes(
    instance: dg.DagsterInstance, project: OrchestratedProject, selection: NodeSelection, *, warn: Callable[[str], None]
) -> list[str]:
    """Forget the builds, failures and verdicts of a selection, and return the nodes that had any, parents first.

    Raises InvalidSelectionError or EmptySelectionError.
    """
    loaded, now = project.load(), clock.now()
    selected = resolve_selection(project, loaded, selection, warn=warn)
    known = take_snapshot(instance, project, loaded, now)
    ordered = [uid for uid in loaded.project.graph.nodes if uid in selected]
    forgotten = forget(instance, project.state_name, ordered, known, now)
    about = loaded.project.graph.tests_about
    tests = {test for uid in ordered for test in about.get(uid, ()) if test in known.verdicts}
    event_log_state(instance, project).verdicts.forget(tests)
    keys = loaded.keys.by_unique_id
    for uid in forgotten:
        note = dg.AssetObservation(keys[uid], description="Its state was forgotten: it counts as not built before")
        instance.report_runless_asset_event(note)
    return forgotten
