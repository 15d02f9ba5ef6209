"""The decisions about tests within a plan, and which of them hold what."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from dagster_sao.core.decision.decide import Decision, Request
from dagster_sao.core.decision.decide_tests import TestDecision, TestSituation, changed_reads, decide_test, reuse
from dagster_sao.core.manifest.graph import ProjectGraph, ProjectTest
from dagster_sao.core.manifest.policy import DEFAULT_UNTRACKED_INTERVAL
from dagster_sao.core.project import Project
from dagster_sao.core.state.state import StateSnapshot, Verdict


@dataclass(frozen=True, slots=True)
class TestScope:
    """Which tests a plan decides about."""

    __test__ = False  # pytest takes it for a test otherwise

    tests: frozenset[str] | None = None
    """By unique id. None: those that read a selected node; all, where every node is selected."""
    requested: frozenset[str] = frozenset()
    """The tests that the user asked for, beside the ones that read a requested node."""
    answered: frozenset[str] = frozenset()
    """The tests that this run has already run: a request does not run them again."""
    with_gates: bool = True
    """Whether the tests are added that gate what the plan builds, wherever they sit."""
    not_held: frozenset[str] = frozenset()
    """The nodes that no failing test holds: views that a run drops without being asked to, and so creates again."""
    before_builds: bool = True
    """Whether a test is run before what it gates. If not, its failing verdict holds until it has another."""

    def of(self, selected: AbstractSet[str], graph: ProjectGraph) -> TestScope:
        """Return the same scope with the tests of `selected` by name."""
        if self.tests is not None:
            return self
        return replace(self, tests=frozenset(tests_of_selection(graph, selected)))


def tests_of_selection(graph: ProjectGraph, selected: AbstractSet[str]) -> Iterable[str]:
    """Return the tests that dbt runs with a selection of nodes: all that read one, and all of a whole project."""
    if len(selected) >= len(graph.nodes) and selected >= graph.nodes.keys():
        return graph.tests
    return {test for unique_id in selected for test in graph.tests_about.get(unique_id, ())}


def failed_among(
    reads: Iterable[str], failed: AbstractSet[str], decisions: Mapping[str, Decision], graph: ProjectGraph
) -> tuple[str, ...]:
    """Return what failed among `reads`. A view that was lost is built all the same: for it, what failed above it."""
    found: dict[str, None] = {}
    for uid in reads:
        if uid in failed:
            decision = decisions.get(uid)
            is_built = decision is not None and decision.builds
            found.update(
                dict.fromkeys(failed_among(graph.nodes[uid].parents, failed, decisions, graph) if is_built else (uid,))
            )
    return tuple(found)


class TestDecisions(Mapping[str, TestDecision]):
    """The decisions about tests, by unique id.

    In most plans nearly all verdicts stand. These are kept as they are, and worded when somebody looks.
    """

    __test__ = False

    def __init__(self, decided: Mapping[str, TestDecision], standing: Mapping[str, Verdict], now: datetime) -> None:
        """Take the decisions, and the verdicts that stand at `now`."""
        self._decided, self._standing, self._now = decided, standing, now

    def __getitem__(self, unique_id: str) -> TestDecision:
        verdict = self._standing.get(unique_id)
        return self._decided[unique_id] if verdict is None else reuse(verdict, self._now)

    def __iter__(self) -> Iterator[str]:
        yield from self._decided
        yield from self._standing

    def __len__(self) -> int:
        return len(self._decided) + len(self._standing)

    @property
    def not_standing(self) -> Mapping[str, TestDecision]:
        """The decisions about all tests but those that only a change makes due."""
        return self._decided

    @property
    def runs(self) -> list[str]:
        """The tests to run."""
        return [uid for uid, decision in self._decided.items() if decision.runs]


class TestPlanner:
    """Decides about tests during and after the decisions about nodes, whose results it reads."""

    __test__ = False

    def __init__(  # noqa: PLR0913, PLR0917 (each is an input of the decision)
        self,
        project: Project,
        state: StateSnapshot,
        now: datetime,
        scope: TestScope,
        requests: Mapping[str, Request],
        decisions: Mapping[str, Decision],
        versions: Mapping[str, str],
        failed: AbstractSet[str],
        untracked: Mapping[str, Sequence[str]],
        *,
        in_job: bool,
    ) -> None:
        """Decide nothing yet. `decisions`, `versions`, `failed` and `untracked` are the plan's, as far as it has come."""
        self._project, self._graph = project, project.graph
        self._state, self._now, self._scope = state, now, scope
        self._requests, self._decisions, self._versions, self._failed = requests, decisions, versions, failed
        self._untracked, self._in_job = untracked, in_job
        self._failing = {
            uid: None for uid, verdict in state.verdicts.items() if verdict.is_failing and uid in project.graph.tests
        }
        self._holds: dict[str, bool] = {}

    def holding(self, node: str) -> tuple[str, ...]:
        """Return the tests whose failing verdict holds a node, once the plan has decided about all that is above it."""
        if not self._failing or node in self._scope.not_held:
            return ()
        gates = self._graph.gates
        return tuple(test for test in self._failing if gates.gates(test, node) and self._is_holding(test))

    def plan(self) -> TestDecisions:
        """Return the decisions about tests, once the plan has decided about all nodes."""
        gates, scope = self._graph.gates, self._scope
        wanted = scope.tests or frozenset()
        builds = gates.mask(uid for uid, decision in self._decisions.items() if decision.builds)
        decided: dict[str, TestDecision] = {}
        standing: dict[str, Verdict] = {}
        for uid, test in self._graph.tests.items():
            gates_a_build = bool(builds and gates.masks.get(uid, 0) & builds)
            # A test of severity warn stops nothing, unless it could not be run.
            is_needed = gates_a_build and scope.with_gates and (test.is_error or uid in self._failing)
            if is_needed or uid in wanted:
                verdict = self._state.verdicts.get(uid)
                if verdict is not None and self._is_plainly_reused(test, verdict):
                    standing[uid] = verdict
                else:
                    decided[uid] = self._decide(test, gates_a_build=gates_a_build)
        return TestDecisions(decided, standing, self._now)

    def _is_plainly_reused(self, test: ProjectTest, verdict: Verdict) -> bool:
        """Return whether no row but the last can match: nothing is asked, fails, changed, or comes with time."""
        if verdict.is_failing or test.is_volatile or self._is_untracked(test, verdict):
            return False
        if test.unique_id in self._scope.requested:
            return False
        if self._requests and self._is_requested(test):
            return False
        return self._stands(test, verdict) and not (self._failed and self._failed_reads(test))

    def _stands(self, test: ProjectTest, verdict: Verdict) -> bool:
        """Return whether a verdict is about the code and the versions that are there after this plan."""
        return not changed_reads(test.reads, verdict, self._versions) and not self._project.code_changes(
            test.unique_id, verdict
        )

    def _is_holding(self, test: str) -> bool:
        if test not in self._holds:
            self._holds[test] = self._find_holding(test, self._state.verdicts[test])
        return self._holds[test]

    def _find_holding(self, uid: str, verdict: Verdict) -> bool:
        test = self._graph.tests[uid]
        # A test that runs again before the nodes that it gates has a new answer by then.
        is_first = self._scope.before_builds and self._decide(test, gates_a_build=True).runs
        return self._stands(test, verdict) and not is_first

    def _decide(self, test: ProjectTest, *, gates_a_build: bool) -> TestDecision:
        uid = test.unique_id
        verdict = self._state.verdicts.get(uid)
        return decide_test(
            TestSituation(
                now=self._now,
                verdict=verdict,
                code_changes=self._code_changes(test, verdict) if verdict else (),
                reads=test.reads,
                versions=self._versions,
                failed_reads=self._failed_reads(test),
                is_requested=uid not in self._scope.answered and self._is_requested(test),
                is_volatile=test.is_volatile,
                is_untracked=verdict is not None and self._is_untracked(test, verdict),
                untracked_interval=self._project.test_policy(uid).untracked_interval or DEFAULT_UNTRACKED_INTERVAL,
                gates_a_build=gates_a_build,
                build_after=dict(self._build_after(test)),
                in_job=self._in_job,
                built_since=set(self._built_since(test, verdict)) if verdict else (),
                labels=self._project.labels,
            )
        )

    def _code_changes(self, test: ProjectTest, verdict: Verdict) -> tuple[str, ...]:
        parents_changed = bool(changed_reads(test.reads, verdict, self._versions))
        return self._project.code_changes(test.unique_id, verdict, parents_changed=parents_changed)

    def _is_untracked(self, test: ProjectTest, verdict: Verdict) -> bool:
        """Return whether a test reads, through views too, inputs whose changes cannot be detected."""
        views = (uid for uid in test.reads if uid in self._graph.nodes and self._graph.nodes[uid].is_view)
        return bool(verdict.evidence.untracked) or any(self._untracked.get(uid) for uid in views)

    def _failed_reads(self, test: ProjectTest) -> tuple[str, ...]:
        if not self._failed:
            return ()
        # A unit test needs the relations that its model reads, for their columns. The model itself may be held by it.
        reads: Sequence[str] = self._graph.nodes[test.model].parents if test.is_unit_test else test.reads
        return failed_among(reads, self._failed, self._decisions, self._graph)

    def _is_requested(self, test: ProjectTest) -> bool:
        return test.unique_id in self._scope.requested or any(uid in self._requests for uid in test.about)

    def _build_after(self, test: ProjectTest) -> Iterator[tuple[str, timedelta]]:
        """Yield each view that a test reads and that has a `build_after`, which then limits its tests instead of its builds."""
        for uid in test.reads:
            node = self._graph.nodes.get(uid)
            if node is not None and node.is_view and (wait := self._project.policy(uid).build_after) is not None:
                yield uid, wait

    def _built_since(self, test: ProjectTest, verdict: Verdict) -> Iterator[str]:
        for uid in test.reads:
            build, decision = self._state.builds.get(uid), self._decisions.get(uid)
            if (decision is not None and decision.builds) or (build is not None and build.ended_at > verdict.at):
                yield uid
