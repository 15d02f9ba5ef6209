"""Which tests a run answers for, and when each of them is run."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet

import dagster as dg

from dagster_sao.orchestration.project import LoadedProject


class RunTests:
    """The tests of a run: those of its selected checks, and those of its nodes that are no checks."""

    def __init__(self, context: dg.AssetExecutionContext, loaded: LoadedProject, selected: set[str]) -> None:
        """Take the tests that the run was asked for, `selected` being its nodes."""
        self._selected = selected
        self.checks = loaded.check_keys
        self._run_assets = context.selected_asset_keys
        tests = loaded.project.graph.tests
        self._read = {uid: nodes_read_by(loaded, uid) for uid in tests}
        keys = loaded.keys
        wanted = context.selected_asset_check_keys
        # What the run's config leaves out of its assets is left out with its tests.
        left_out = {keys.unique_ids[key] for key in self._run_assets if key in keys.unique_ids} - selected
        self.open = {
            uid
            for uid, read in self._read.items()
            if read & selected or (self.checks.get(uid) in wanted and not read & left_out)
            if uid not in self.checks or self.checks[uid] in wanted
        }
        """The tests that are still to be answered for."""
        self.answered: set[str] = set()

    def read_by(self, test: str) -> frozenset[str]:
        """Return the nodes and sources that a test reads, through ephemeral models."""
        return self._read[test]

    def answer(self, tests: Iterable[str]) -> None:
        """Note that nothing more is to be said of `tests`."""
        given = set(tests)
        self.open -= given
        self.answered |= given

    def reopen(self, nodes: AbstractSet[str]) -> None:
        """Note that the tests of `nodes` are to be run once more."""
        again = {uid for uid in self.answered if self._read[uid] & nodes}
        self.answered -= again
        self.open |= again

    def ready(self, unsettled: AbstractSet[str]) -> set[str]:
        """Return the open tests that read nothing `unsettled`."""
        return {uid for uid in self.open if not self._read[uid] & unsettled}

    def due(self, tests: Iterable[str], built: AbstractSet[str]) -> set[str]:
        """Return those that are run: any node they read was or is built, or they were selected without their nodes."""
        return {uid for uid in tests if self._read[uid] & built or not self._read[uid] & self._selected}

    def may_be_chosen_by_dbt(self, due: AbstractSet[str], builds: AbstractSet[str], later: AbstractSet[str]) -> bool:
        """Return whether dbt by itself would run just the tests that are `due`: all that read a node of `builds`."""
        wanted = {self.checks[uid] for uid in due if uid in self.checks}
        left_out = any(
            key not in wanted and self._read[uid] & builds
            for uid, key in self.checks.items()
            if key.asset_key in self._run_assets or self._read[uid] & later
        )
        return not left_out and all(self._read[uid] & builds for uid in due)


def nodes_read_by(loaded: LoadedProject, test: str) -> frozenset[str]:
    """Return the unique ids of the nodes and sources that a test reads, through ephemeral models."""
    parents = loaded.project.graph.tests[test].parents
    return frozenset(uid for parent in parents for uid in _through_ephemerals(loaded, parent))


def _through_ephemerals(loaded: LoadedProject, uid: str) -> Iterable[str]:
    graph = loaded.project.graph
    if uid in graph.nodes or uid in graph.sources:
        yield uid
        return
    for parent in (loaded.manifest["nodes"].get(uid, {}).get("depends_on") or {}).get("nodes") or []:
        yield from _through_ephemerals(loaded, parent)
