"""What a run means that executes another one again: a person did so, or Dagster's run retries."""

from __future__ import annotations

import dagster as dg

from dagster_sao.core.decision.decide import Reason
from dagster_sao.orchestration.events.event_schema import NodeEvent, Outcome, given_nodes, node_event
from dagster_sao.orchestration.private.dagster_internals import events_of_run, metadata_of_engine_event
from dagster_sao.orchestration.project.orchestrated import AssetKeys

_PARENT_TAG = "dagster/parent_run_id"


def failed_in_parent(instance: dg.DagsterInstance, run: dg.DagsterRun, keys: AssetKeys) -> set[str] | None:
    """Return the nodes that failed in the run that this one executes again, by unique id; None where it executes none again.

    With them those that were interrupted in it, and those that it held for an earlier failure of the same code and data.
    """
    parent = run.tags.get(_PARENT_TAG)
    if parent is None:
        return None
    failed: set[str] = set()
    # Of a run that was deleted since nothing is left to be read.
    for record in events_of_run(instance, parent):
        event = record.event_log_entry.dagster_event
        if event is None:
            continue
        failed |= {node.unique_id for node in given_nodes(metadata_of_engine_event(event))}
        uid = keys.unique_ids.get(event.asset_key) if event.asset_key is not None else None
        if uid is None:
            continue
        if record.asset_materialization is not None:
            failed.discard(uid)
        elif (observation := record.event_log_entry.asset_observation) is not None:
            reported = node_event(observation.metadata)
            if reported.has_failed or _is_held(reported):
                failed.add(uid)
            elif reported.outcome is Outcome.SKIPPED:
                failed.discard(uid)
    return failed & keys.nodes


def _is_held(reported: NodeEvent) -> bool:
    return reported.outcome is Outcome.HELD and reported.reason_code == Reason.FAILED_UNCHANGED.value
