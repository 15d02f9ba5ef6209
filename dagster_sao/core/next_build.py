"""When time alone makes something due, if nothing changes until then, and by which setting or wait."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from dagster_sao.core.decision.decide import Action, Decision, Reason
from dagster_sao.core.decision.decide_tests import TestDecision, TestReason
from dagster_sao.core.decision.plan import Plan
from dagster_sao.core.project import Project
from dagster_sao.core.state.state import StateSnapshot

_RETRY = "retry"
_UNTRACKED = "untracked_interval"
_BUILD_AFTER = "build_after"


@dataclass(frozen=True, slots=True)
class NextBuild:
    """The next moment at which a node is built or a test run even if nothing changes until then."""

    at: datetime
    unique_id: str
    why: str
    """The setting that the moment follows from, or `retry`."""


def next_build(plan: Plan, project: Project, state: StateSnapshot, now: datetime) -> NextBuild | None:
    """Return the next moment at which time alone makes something due, None where only a change does."""
    return min((one for one in _moments(plan, project, state) if one.at > now), key=lambda one: one.at, default=None)


def _moments(plan: Plan, project: Project, state: StateSnapshot) -> Iterator[NextBuild]:
    for uid, decision in plan.decisions.items():
        if decision.eligible_at is not None:
            yield NextBuild(decision.eligible_at, uid, _why(uid, decision, decision.eligible_at, project, state))
    for uid, test in plan.tests.not_standing.items():
        if test.eligible_at is not None:
            yield NextBuild(test.eligible_at, uid, _why_test(uid, test, state))


def _why(uid: str, decision: Decision, at: datetime, project: Project, state: StateSnapshot) -> str:
    policy, build = project.policy(uid), state.builds.get(uid)
    if decision.action is not Action.REUSE or decision.reason is Reason.OWN_EFFECT:
        return _RETRY
    if policy.rebuild_every is not None and build is not None and at == build.started_at + policy.rebuild_every:
        return "rebuild_every"
    if decision.reason is Reason.TOO_SOON:
        return _BUILD_AFTER if policy.build_after is not None else "lag_tolerance"
    return _UNTRACKED


def _why_test(uid: str, decision: TestDecision, state: StateSnapshot) -> str:
    if decision.reason is TestReason.TOO_SOON:
        return _BUILD_AFTER
    verdict = state.verdicts.get(uid)
    return _RETRY if verdict is not None and decision.eligible_at == verdict.retry_at else _UNTRACKED
