"""The outcomes of the nodes and tests of one run. Only `Outcomes` changes them; everything else reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace

from dagster_sao.core.decision.decide import Action, Decision, Reason
from dagster_sao.core.decision.decide_tests import TestDecision
from dagster_sao.core.decision.messages import upstream_failed, upstream_test_failed
from dagster_sao.core.decision.plan import Plan
from dagster_sao.core.manifest.graph import ProjectGraph
from dagster_sao.core.state.state import FailedAttempt, LastBuild, Verdict, VerdictStatus
from dagster_sao.orchestration.runs.run_plan import AskedOfRun, Progress
from dbt_dagster_sao.data_tests.handover import How


class Outcomes:
    """The decisions of one run as it executes them, and what came of each."""

    def __init__(self, graph: ProjectGraph, asked: AskedOfRun) -> None:
        """Begin with nothing decided."""
        self._graph = graph
        self._decisions: dict[str, Decision] = {}
        self._test_decisions: dict[str, TestDecision] = {}
        self._dropped: dict[str, AbstractSet[str]] = {}
        self._built: set[str] = set()
        self._limited: set[str] = set()
        self._builds: dict[str, LastBuild] = {}
        self._failed: set[str] = set()
        self._failures: dict[str, FailedAttempt] = {}
        self._known_failures: frozenset[str] = frozenset()
        """The nodes that had failed when the last decisions were made."""
        self._skipped: set[str] = set()
        self._interrupted: set[str] = set()
        self._retried: set[str] = set()
        self._verdicts: dict[str, Verdict] = {}
        self._unwritten: dict[str, Verdict] = {}
        self._open_tests = set(asked.tests)
        self._tests_again = set(asked.tests_again)
        self._answered: set[str] = set()
        self._deferred: dict[str, None] = {}
        self._errors: list[str] = []
        self._lost = ""

    # What is known

    @property
    def built(self) -> frozenset[str]:
        """The nodes that were built, those with a part of their rows included."""
        return frozenset(self._built)

    @property
    def limited(self) -> frozenset[str]:
        """The nodes that were built with a part of their rows."""
        return frozenset(self._limited)

    @property
    def failed(self) -> frozenset[str]:
        """The nodes that failed."""
        return frozenset(self._failed)

    @property
    def skipped(self) -> frozenset[str]:
        """The nodes that are not built because of a failure, held nodes included."""
        return frozenset(self._skipped)

    @property
    def skipped_builds(self) -> frozenset[str]:
        """The nodes that were to be built, and were skipped after a failure in this run."""
        return frozenset(uid for uid in self._skipped if uid in self._decisions and self._decisions[uid].builds)

    @property
    def untouched(self) -> frozenset[str]:
        """The skipped nodes that dbt did not even begin."""
        return frozenset(self._skipped - self._interrupted)

    @property
    def failed_tests(self) -> frozenset[str]:
        """The tests that failed, or could not be run."""
        return frozenset(uid for uid, verdict in self._verdicts.items() if verdict.is_failing)

    @property
    def retryable_tests(self) -> frozenset[str]:
        """The tests that could not be run, for a reason that may pass."""
        return frozenset(uid for uid, verdict in self._verdicts.items() if verdict.status is VerdictStatus.ERROR)

    @property
    def is_retryable(self) -> bool:
        """Whether anything failed that a retry may mend."""
        return bool(self._failed or self.retryable_tests)

    @property
    def has_failed(self) -> bool:
        """Whether a node or a test failed."""
        return bool(self._failed or self.failed_tests)

    @property
    def is_whole(self) -> bool:
        """Whether all that was to be built was built, with all of its rows."""
        return not (self._failed or self._limited or self._lost)

    @property
    def deferred_tests(self) -> tuple[str, ...]:
        """The tests that are run after all builds."""
        return tuple(self._deferred)

    @property
    def errors(self) -> tuple[str, ...]:
        """Why the run fails, each sentence once; empty where it does not."""
        return tuple(dict.fromkeys(self._errors))

    @property
    def lost(self) -> str:
        """Why the run may write nothing more, empty while it may."""
        return self._lost

    def is_stopped(self, *, fail_fast: bool) -> bool:
        """Return whether the run starts nothing more."""
        return bool(self._lost) or (fail_fast and self.has_failed)

    def is_done(self, uid: str) -> bool:
        """Return whether a node was built or failed."""
        return uid in self._built or uid in self._failed

    def decision(self, uid: str) -> Decision:
        """Return why a node is built, reused, held or skipped, as it was decided first."""
        return self._decisions[uid]

    def was_dropped(self, uid: str) -> bool:
        """Return whether a node's relation was dropped with another that this run has replaced."""
        return not self._built.isdisjoint(self._dropped.get(uid, ()))

    @property
    def decisions(self) -> Mapping[str, Decision]:
        """The decision about each node so far."""
        return dict(self._decisions)

    def test_decision(self, uid: str) -> TestDecision | None:
        """Return why a test is run or not, as it was decided last; None where it was not decided."""
        return self._test_decisions.get(uid)

    @property
    def verdicts(self) -> Mapping[str, Verdict]:
        """What dbt answered in this run about each test so far."""
        return dict(self._verdicts)

    def verdict(self, uid: str) -> Verdict | None:
        """Return what dbt answered in this run about a test, None where it has not answered."""
        return self._verdicts.get(uid)

    def build(self, uid: str) -> LastBuild:
        """Return the last record of a node that was built."""
        return self._builds[uid]

    @property
    def attempts_without_build(self) -> Mapping[str, FailedAttempt]:
        """The last attempt of each node that failed or was built with a part of its rows."""
        return {uid: self._failures[uid] for uid in self._failed | self._limited}

    def restored(self, holding: AbstractSet[str]) -> set[str]:
        """Return the lost views that are created in spite of the failures that were known when this was decided.

        `holding` are the nodes that have failed, and that nothing else is built from.
        """
        found = {uid for uid, decision in self._decisions.items() if decision.is_restored}
        below = self._graph.descendants(holding - self._known_failures) if found else set()
        return found - self._failed - below

    def gated_by(self, tests: Iterable[str]) -> set[str]:
        """Return the nodes that are built only when `tests` pass."""
        return {uid for test in tests for uid in self._graph.gates.gated_by(test)}

    def progress(self, todo: AbstractSet[str], blocked: AbstractSet[str]) -> Progress:
        """Return how far the run has come, with `todo` to be decided and nothing built from what is `blocked`."""
        return Progress(
            frozenset(todo),
            frozenset(blocked),
            frozenset(self._retried),
            frozenset(self._open_tests),
            frozenset(self._tests_again),
            frozenset(self._answered),
        )

    # What happens

    def decide(self, plan: Plan, waiting: AbstractSet[str]) -> None:
        """Take the decisions of an attempt about all that is not `waiting` for another run."""
        self._known_failures = self.failed
        self._test_decisions.update(plan.tests)
        self._dropped.update(plan.dropped)
        for uid, decision in plan.decisions.items():
            if uid in waiting:
                continue
            first = self._decisions.setdefault(uid, decision)
            # A node that is tried again keeps its first reason, but is built as it needs now.
            if first.builds and decision.builds:
                self._decisions[uid] = replace(
                    first,
                    full_refresh=decision.full_refresh,
                    batches_from=decision.batches_from,
                    is_restored=decision.is_restored,
                )

    def succeed(self, uid: str, build: LastBuild) -> None:
        """Note that a node was built."""
        self._built.add(uid)
        self._skipped.discard(uid)
        self._builds[uid] = build

    def limit(self, uid: str, attempt: FailedAttempt) -> None:
        """Note that a node was built with a part of its rows."""
        self._built.add(uid)
        self._limited.add(uid)
        self._failures[uid] = attempt

    def fail(self, uid: str, attempt: FailedAttempt) -> None:
        """Note that a node failed."""
        self._failed.add(uid)
        self._failures[uid] = attempt

    def skip(self, uid: str) -> None:
        """Note that a node is not built because of a failure."""
        self._skipped.add(uid)

    def skip_after_failure(
        self, uid: str, stopping: AbstractSet[str], labels: Mapping[str, str], *, tests_hold: bool
    ) -> Decision:
        """Note that a node is not built because of a failure in this run, and return the decision about it.

        `stopping` are the nodes that nothing is built from; `tests_hold` tells whether failing tests hold what they gate.
        """
        self.skip(uid)
        tests = tuple(sorted(test for test in self.failed_tests if self._graph.gates.gates(test, uid)))
        if tests and tests_hold:
            message = upstream_test_failed(tests, labels)
            return Decision(Action.HOLD, Reason.UPSTREAM_TEST_FAILED, message, tests)
        parents = self._graph.nodes[uid].parents
        failed = [parent for parent in parents if parent in stopping]
        return Decision(Action.SKIP, Reason.UPSTREAM_FAILED, upstream_failed(failed or parents, labels))

    def interrupt(self, nodes: Iterable[str]) -> None:
        """Note that dbt may have begun `nodes` when it stopped at the first failure."""
        self._interrupted.update(nodes)

    def answer(self, uid: str, verdict: Verdict) -> None:
        """Note what dbt answered about a test."""
        self._verdicts[uid] = self._unwritten[uid] = verdict

    def doubt_proofs(self) -> None:
        """Void the verdicts that were found by proof: one of the proofs was wrong."""
        for uid, verdict in self.verdicts.items():
            if verdict.how is How.PROVEN:
                self.answer(uid, replace(verdict, versions={}))

    def take_unwritten(self) -> Mapping[str, Verdict]:
        """Return the verdicts that are to be written now, each once."""
        taken, self._unwritten = self._unwritten, {}
        return taken

    def defer(self, tests: Iterable[str]) -> None:
        """Note that `tests` are run after all builds."""
        self._deferred.update(dict.fromkeys(tests))

    def close_tests(self, tests: Iterable[str]) -> None:
        """Note that nothing more is decided about `tests`."""
        given = set(tests)
        self._open_tests -= given
        self._tests_again -= given
        self._answered |= given

    def error(self, *sentences: str) -> None:
        """Note why the run fails, although it continues with everything that it still can do."""
        self._errors.extend(sentences)

    def lose(self, why: str) -> None:
        """Note, in any thread, that the run may write nothing more: others may build what it was building."""
        self._lost = why

    def try_again(self) -> set[str]:
        """Forget what failed, and return the nodes to decide again: the failed ones, and nodes that they or a failing test held.

        A test that could not be run is run again.
        """
        tests = self.retryable_tests
        if self.failed_tests == tests:
            self._errors.clear()
        blocked = (self._graph.descendants(self._failed) | self.gated_by(tests)) & self._skipped
        nodes = self._failed | blocked
        self._retried |= self._failed
        for outcome in (self._built, self._failed, self._skipped):
            outcome.difference_update(nodes)
        for uid in nodes:
            if not self._decisions[uid].builds:
                del self._decisions[uid]
        for uid in tests:
            self._verdicts.pop(uid, None)
        about = self._graph.tests
        self._tests_again = set(tests)
        reopened = {uid for uid in self._answered if not nodes.isdisjoint(about[uid].about)} | tests
        self._answered -= reopened
        self._open_tests |= reopened
        return nodes
