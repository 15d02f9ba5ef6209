"""Runs that ended without a word.

Dagster learns of a worker that was killed from its run monitoring, which cannot tell for runs that are processes of the
code server, and is off by default. Until then the run is under way for everybody, and the models that it was to build are
asked of no other.
"""

from __future__ import annotations

import dagster as dg

from dagster_sao.orchestration.leases import LeaseError, forget_sign, lapsed_signs, sign_of_life
from dagster_sao.orchestration.private import StepEventStatus


def end_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Report the runs as failed in which a step is under way that gives no sign of life; return their ids.

    What others learn of a step, such as a run worker whose step process died, is left to them.
    """
    ended = []
    try:
        for sign, run_id in lapsed_signs(instance).items():
            run = instance.get_run_by_id(run_id)
            if run is not None and _is_under_way(instance, run, sign):
                _end(instance, run)
                ended.append(run_id)
            forget_sign(instance, sign)
    except LeaseError:
        # Runs say so; who only looks cannot know of any that died.
        return ended
    return ended


def _is_under_way(instance: dg.DagsterInstance, run: dg.DagsterRun, sign: str) -> bool:
    if run.status not in {dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING}:
        return False
    steps = instance.get_run_step_stats(run.run_id)
    return any(
        step.status is StepEventStatus.IN_PROGRESS and sign_of_life(run.run_id, step.step_key) == sign for step in steps
    )


def _end(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    message = "The process of this run has ended without a word: it gave no sign of life for two minutes."
    if run.status is dg.DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run, message)
    else:
        instance.report_run_failed(run, message)
