"""Runs whose process died.

Dagster detects a killed worker by its run monitoring, which is off by default and does not cover runs that are processes of
the code server. Until then the run counts as under way, and no tick requests the models that it was to build.
"""

from __future__ import annotations

from contextlib import suppress

import dagster as dg

from dagster_sao.orchestration.leases.leases import LeaseError, forget_sign, lapsed_signs, sign_of_life
from dagster_sao.orchestration.private.dagster_internals import StepEventStatus


def end_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Report runs as failed that have had no heartbeat for two minutes while a step is under way, or after their last step.

    Returns the ids of these runs. Leaves a run to Dagster whose other steps may be under way.
    """
    ended = []
    # Without leases no run builds anything, and each reports why. A reader then cannot detect dead runs.
    with suppress(LeaseError):
        for sign, run_id in lapsed_signs(instance).items():
            run = instance.get_run_by_id(run_id)
            if run is not None and _is_dead(instance, run, sign):
                _end(instance, run)
                ended.append(run_id)
            forget_sign(instance, sign)
    return ended


def ended_line(run_id: str) -> str:
    """Return the line with which a tick logs that it ended a run."""
    return f"Ended run {run_id}: its process has had no heartbeat for two minutes."


def _is_dead(instance: dg.DagsterInstance, run: dg.DagsterRun, sign: str) -> bool:
    if run.status not in {dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING}:
        return False
    steps = {step.step_key: step for step in instance.get_run_step_stats(run.run_id)}
    under_way = [step for step in steps.values() if step.status is StepEventStatus.IN_PROGRESS]
    if not under_way:
        return _steps(instance, run) <= steps.keys()
    # A step that waits for a retry counts as under way, without a live process.
    attempts = [step.step_key for step in under_way if step.partial_attempt_start is not None]
    return any(sign_of_life(run.run_id, key) == sign for key in attempts)


def _steps(instance: dg.DagsterInstance, run: dg.DagsterRun) -> set[str]:
    snapshot_id = run.execution_plan_snapshot_id or ""
    return set(instance.get_execution_plan_snapshot(snapshot_id).step_keys_to_execute)


def _end(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    message = "The run's process died without reporting: no heartbeat for two minutes."
    if run.status is dg.DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run, message)
    else:
        instance.report_run_failed(run, message)
