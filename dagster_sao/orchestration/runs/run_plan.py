"""What a run decides: one computation, which the run carries out and a dry run shows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from dagster_sao.core.decision.decide import Request
from dagster_sao.core.decision.plan import Mode, Plan
from dagster_sao.core.decision.plan_tests import TestScope
from dagster_sao.core.decision.planner import make_run_plan
from dagster_sao.core.state.state import StateSnapshot
from dagster_sao.orchestration.project.orchestrated import LoadedProject
from dagster_sao.orchestration.runs.capture import with_deferred_parents
from dagster_sao.orchestration.runs.config import TestStrategy


@dataclass(frozen=True, slots=True)
class RunPlanner:
    """What a run was asked for, from which each of its plans follows."""

    loaded: LoadedProject
    selected: frozenset[str]
    """The nodes of the run."""
    requests: Mapping[str, Request]
    """Those of them that are built in any case."""
    mode: Mode
    run_id: str
    defers: bool = False
    """Whether what is not built here is read from another environment."""
    favors_state: bool = False
    """Whether what is not selected is read from there also where it was built here."""

    def captured(self, state: StateSnapshot) -> StateSnapshot:
        """Return the state as the run reads it: with the versions of what it reads from another environment."""
        if not self.defers:
            return state
        selected = set(self.selected)
        return with_deferred_parents(self.loaded, state, selected, self.run_id, favors=self.favors_state)

    def decide(
        self,
        state: StateSnapshot,
        now: datetime,
        tests: TestScope,
        *,
        todo: Collection[str] | None = None,
        requests: Mapping[str, Request] | None = None,
    ) -> Plan:
        """Return the decisions about the nodes of the run, or of them about `todo`, and about its tests.

        `requests` takes the place of the run's own where it tries something again.
        """
        return make_run_plan(
            self.loaded.project,
            self.captured(state),
            now=now,
            selection=self.selected if todo is None else todo,
            requests=self.requests if requests is None else requests,
            mode=self.mode,
            tests=tests,
        )


def scope_of_tests(
    tests: Collection[str],
    strategy: TestStrategy,
    *,
    state_aware: bool,
    again: Collection[str] = (),
    answered: Collection[str] = (),
) -> TestScope:
    """Return which of `tests`, those that a run was asked for, its next plan decides about, and how.

    A run that is not state-aware runs them all. `again` are tried again in any case, `answered` have been run.
    """
    if strategy is TestStrategy.SKIP:
        return TestScope(tests=frozenset(), with_gates=False, before_builds=False)
    return TestScope(
        tests=frozenset(tests),
        requested=frozenset(again if state_aware else tests),
        answered=frozenset(answered),
        with_gates=state_aware,
        before_builds=strategy is TestStrategy.IMMEDIATE,
    )
