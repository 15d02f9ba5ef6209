"""What follows from the plan of a schedule's tick: the line of a skipped tick, or how much of the job is requested.

Plain values in and out. Nothing here reads Dagster or a clock.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg

from dagster_sao.core.decision.decide import Action
from dagster_sao.core.decision.plan import Plan
from dagster_sao.core.next_build import NextBuild
from dagster_sao.core.state.state import StateSnapshot, Verdict
from dagster_sao.orchestration.automation.choices import Choice, held_back
from dagster_sao.orchestration.events.event_schema import TESTS_TAG
from dagster_sao.orchestration.runs.run_plan import AskedOfRun

_LONGEST_START_UP = timedelta(hours=1)


def start_up(
    plan: Plan, state: StateSnapshot, now: datetime, asked_at: Callable[[Collection[str]], Mapping[str, datetime]]
) -> timedelta:
    """Return how much later than `now` a run would start to build, where that makes a node due that waits for time alone.

    `build_after` counts from a build, which came after the start of its run, which came after the tick. By its own clock, the
    tick of a job whose interval equals `build_after` would find the node too young each time. `asked_at` returns when runs
    were created, by id.
    """
    waiting = {
        uid: decision.eligible_at
        for uid, decision in plan.decisions.items()
        if decision.action is Action.REUSE and decision.eligible_at is not None and uid in state.builds
    }
    runs = {state.builds[uid].run_id for uid, at in waiting.items() if at <= now + _LONGEST_START_UP}
    if not runs:
        return timedelta(0)
    first: dict[str, datetime] = {}
    for build in state.builds.values():
        first[build.run_id] = min(build.started_at, first.get(build.run_id, build.started_at))
    took = {run_id: min(first[run_id] - at, _LONGEST_START_UP) for run_id, at in asked_at(runs).items()}
    delays = ((at, took.get(state.builds[uid].run_id, timedelta(0))) for uid, at in waiting.items())
    return max((delay for at, delay in delays if at <= now + delay), default=timedelta(0))


def part_suffices(asked: AskedOfRun, plan: Plan, verdicts: Mapping[str, Verdict]) -> bool:
    """Return whether a run of the due nodes and tests alone does and reports what a run of the whole job would.

    It would not where other nodes of the job matter: nodes that an earlier failure holds end the run as failed, `defer` reads
    all parents outside the selection from elsewhere, and only a run of everything creates functions that nothing calls.
    """
    actions = {decision.action for decision in plan.decisions.values()}
    return not (
        asked.defers
        or asked.config.full_refresh
        or asked.config.select
        or asked.config.exclude
        or asked.config.selector
        or plan.uncalled
        or actions & {Action.HOLD, Action.SKIP}
        or still_failing(plan, verdicts)
    )


def still_failing(plan: Plan, verdicts: Mapping[str, Verdict]) -> list[str]:
    """Return the tests of a plan that are not run, and whose last answer is a failure."""
    return [
        uid
        for uid, verdict in verdicts.items()
        if verdict.is_failing and uid in plan.tests and not plan.tests[uid].runs
    ]


def idle_line(  # noqa: PLR0913, PLR0917 (what a tick knows)
    plan: Plan,
    verdicts: Mapping[str, Verdict],
    upcoming: NextBuild | None,
    now: datetime,
    zone: str | None,
    problems: Sequence[str],
) -> str:
    """Return the one line of a tick with nothing to build or test."""
    actions = [decision.action for decision in plan.decisions.values()]
    current = actions.count(Action.REUSE)
    parts = [f"{current} {'model' if current == 1 else 'models'} current"]
    parts += held_back([Choice(decision) for decision in plan.decisions.values()])
    if failing := len(still_failing(plan, verdicts)):
        parts.append(f"{failing} {'test' if failing == 1 else 'tests'} still failing")
    if upcoming is not None:
        name = plan.graph.label(upcoming.unique_id)
        parts.append(
            f"next possible build {_moment(upcoming.at, now, zone)} ({name}: {upcoming.why}), or after a change"
        )
    else:
        parts.append("next possible build after a change")
    return " ".join(["; ".join(parts) + ".", *problems])


def _moment(at: datetime, now: datetime, zone: str | None) -> str:
    where = ZoneInfo(zone) if zone else timezone.utc
    there = at.astimezone(where)
    is_today = there.date() == now.astimezone(where).date()
    return f"{there:%H:%M %Z}" if is_today else f"{there:%Y-%m-%d %H:%M %Z}"


def covering_run(
    runs: Iterable[dg.DagsterRun], request: dg.RunRequest, run_config: Mapping[str, Any]
) -> dg.DagsterRun | None:
    """Return one of the job's queued `runs`, of its code location, that will do all that is requested; None where none will.

    A run that has not begun looks at everything after this tick, and decides by the same config. One that has begun may
    have looked before.
    """
    return next((run for run in runs if run.run_config == run_config and _covers(run, request)), None)


def _covers(run: dg.DagsterRun, request: dg.RunRequest) -> bool:
    if run.step_keys_to_execute or run.op_selection:  # a part of a run that is executed again
        return False
    if run.asset_selection is None and run.asset_check_selection is None:
        return True
    if request.asset_selection is None:
        return False
    named, wanted = (set(json.loads(tags.get(TESTS_TAG, "[]"))) for tags in (run.tags, request.tags))
    return (
        set(request.asset_selection) <= (run.asset_selection or set())
        and set(request.asset_check_keys or ()) <= (run.asset_check_selection or set())
        and wanted <= named
    )


def queued_line(run: dg.DagsterRun) -> str:
    """Return the one line of a tick whose work a queued run will do."""
    return f"Run {run.run_id[:8]} is queued, and will build and test what is due when it begins."
