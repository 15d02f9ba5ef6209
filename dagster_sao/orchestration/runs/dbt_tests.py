"""Which tests a run decides about, and which of them it still has to answer for."""

from __future__ import annotations

import json
from collections.abc import Iterable
from collections.abc import Set as AbstractSet

import dagster as dg

from dagster_sao.core.decision.plan_tests import TestScope, tests_of_selection
from dagster_sao.core.manifest.graph import ProjectTest
from dagster_sao.orchestration.events.event_schema import TESTS_TAG
from dagster_sao.orchestration.private.dagster_internals import all_check_keys
from dagster_sao.orchestration.project.orchestrated import LoadedProject
from dagster_sao.orchestration.runs.config import TestStrategy
from dagster_sao.orchestration.runs.run_plan import scope_of_tests


class RunTests:
    """The tests of one run: of its nodes, of its selected checks, and those that its sensor named."""

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        loaded: LoadedProject,
        selected: set[str],
        *,
        state_aware: bool,
        strategy: TestStrategy,
    ) -> None:
        """Take the tests that the run was asked for, `selected` being its nodes."""
        self._graph = loaded.project.graph
        self._state_aware = state_aware
        self._strategy = strategy
        known = all_check_keys(context)
        self.checks = {uid: key for uid, key in loaded.check_keys.items() if key in known}
        """The asset check of each test that Dagster shows."""
        self.planned = {uid for uid, key in self.checks.items() if key in context.selected_asset_check_keys}
        """The tests whose result Dagster expects of this run."""
        self._open = self._asked(context, loaded, selected)
        self._answered: set[str] = set()
        self._again: set[str] = set()

    def _asked(self, context: dg.AssetExecutionContext, loaded: LoadedProject, selected: set[str]) -> set[str]:
        keys, assets = loaded.keys, context.selected_asset_keys
        found = set(tests_of_selection(self._graph, selected))
        if not self._state_aware:
            # Somebody took these checks out of the selection of their assets.
            found -= {uid for uid, key in self.checks.items() if key.asset_key in assets and uid not in self.planned}
        # What the run's config leaves out of its assets is left out with its tests.
        left_out = {keys.unique_ids[key] for key in assets if key in keys.unique_ids} - selected
        found |= {uid for uid in self.planned if left_out.isdisjoint(self._graph.tests[uid].about)}
        named = json.loads(context.run.tags.get(TESTS_TAG, "[]"))
        return found | (set(named) & self._graph.tests.keys())

    @property
    def scope(self) -> TestScope:
        """The tests that the next plan decides about."""
        return scope_of_tests(
            self._open, self._strategy, state_aware=self._state_aware, again=self._again, answered=self._answered
        )

    def test(self, unique_id: str) -> ProjectTest | None:
        """Return a test of the project, None for anything else."""
        return self._graph.tests.get(unique_id)

    def answer(self, tests: Iterable[str]) -> None:
        """Note that nothing more is to be said of `tests`."""
        given = set(tests)
        self._open -= given
        self._again -= given
        self._answered |= given

    def reopen(self, tests: Iterable[str], nodes: AbstractSet[str]) -> None:
        """Note that `tests` are to be run once more in any case, and those of `nodes` decided about again."""
        self._again = set(tests)
        again = {uid for uid in self._answered if not nodes.isdisjoint(self._graph.tests[uid].about)} | self._again
        self._answered -= again
        self._open |= again

    def insist(self, tests: Iterable[str]) -> None:
        """Note that those of `tests` that the run was asked for are run in any case."""
        self._again = self._open.intersection(tests)

    def ready(self, tests: Iterable[str], unsettled: AbstractSet[str]) -> list[str]:
        """Return those of `tests` that read and call nothing `unsettled`."""
        known = self._graph.tests
        return [
            uid
            for uid in tests
            if unsettled.isdisjoint(known[uid].about) and unsettled.isdisjoint(known[uid].functions)
        ]
