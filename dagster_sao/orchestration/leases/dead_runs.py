"""Runs that ended without a word.

Dagster learns of a worker that was killed from its run monitoring, which cannot tell for runs that are processes of the
code server, and is off by default. Until then the run is under way for everybody, and the models that it was to build are
asked of no other.
"""

from __future__ import annotations

from contextlib import suppress

import dagster as dg

from dagster_sao.orchestration.leases.leases import LeaseError, forget_sign, lapsed_signs, sign_of_life
from dagster_sao.orchestration.private.dagster_internals import StepEventStatus


def end_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Report as failed what gives no sign of life for two minutes though a step is under way or nothing is left to do.

    Returns the ids of these runs. A run whose other steps may be under way is left to Dagster.
    """
    ended = []
    # Without leases nothing is built, and runs say so; who only looks cannot know of any that died.
    with suppress(LeaseError):
        for sign, run_id in lapsed_signs(instance).items():
            run = instance.get_run_by_id(run_id)
            if run is not None and _is_dead(instance, run, sign):
                _end(instance, run)
                ended.append(run_id)
            forget_sign(instance, sign)
    return ended


def _is_dead(instance: dg.DagsterInstance, run: dg.DagsterRun, sign: str) -> bool:
    if run.status not in {dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING}:
        return False
    steps = {step.step_key: step for step in instance.get_run_step_stats(run.run_id)}
    under_way = [step for step in steps.values() if step.status is StepEventStatus.IN_PROGRESS]
    if not under_way:
        return _steps(instance, run) <= steps.keys()
    # One that waits to be tried again counts as under way, and no process of it is alive.
    attempts = [step.step_key for step in under_way if step.partial_attempt_start is not None]
    return any(sign_of_life(run.run_id, key) == sign for key in attempts)


def _steps(instance: dg.DagsterInstance, run: dg.DagsterRun) -> set[str]:
    snapshot_id = run.execution_plan_snapshot_id or ""
    return set(instance.get_execution_plan_snapshot(snapshot_id).step_keys_to_execute)


def _end(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    message = "The process of this run has ended without a word: it gave no sign of life for two minutes."
    if run.status is dg.DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run, message)
    else:
        instance.report_run_failed(run, message)
