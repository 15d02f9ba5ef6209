"""Which data tests of a dbt invocation may be answered without a query of their own, and what their proofs may rely on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from dagster_sao.core.manifest.graph import ProjectGraph, ProjectTest
from dagster_sao.core.manifest.policy import EfficientTesting
from dagster_sao.core.project import Project
from dagster_sao.core.state.source_tokens import is_untracked_token
from dagster_sao.core.state.state import StateSnapshot, Verdict, VerdictStatus
from dbt_dagster_sao.data_tests.handover import DataTestRequest

DEFAULT_VERIFIED_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class TestSettings:
    """How data tests are answered, unless a test has its own setting."""

    __test__ = False  # pytest takes it for a test otherwise

    efficient_testing: EfficientTesting = EfficientTesting.AGGREGATE
    verified_share: float = DEFAULT_VERIFIED_SHARE
    allowed: EfficientTesting = EfficientTesting.ALL
    """The most that a run may do, whatever a test's own setting is."""

    def of_run(self, chosen: EfficientTesting | None) -> TestSettings:
        """Return the settings of a run, whose choice takes precedence over the project's settings."""
        return replace(self, efficient_testing=chosen or self.efficient_testing)

    def limited_to(self, allowed: EfficientTesting) -> TestSettings:
        """Return the same settings, with no more than what is `allowed`."""
        return replace(self, allowed=allowed)


def data_test_request(  # noqa: PLR0913, PLR0917 (what a request follows from)
    settings: TestSettings,
    project: Project,
    state: StateSnapshot,
    nodes: Iterable[str],
    tests: Iterable[str],
    verdicts: Mapping[str, Verdict],
    stands: Callable[[ProjectTest, Verdict], bool],
    now: datetime,
) -> DataTestRequest | None:
    """Return the request for an invocation that builds `nodes` and runs `tests`; None where dbt runs each test by itself.

    `verdicts` are from this run, and replace the ones in `state`; `stands` tells whether one is about the code and data that dbt will read.
    """
    graph, builds, run = project.graph, frozenset(nodes), frozenset(tests)
    modes = {uid: project.test_policy(uid).efficient_testing or settings.efficient_testing for uid in run}
    data_tests = {uid for uid in run if not graph.tests[uid].is_unit_test}
    mergeable = frozenset(uid for uid in data_tests if settings.allowed.merges and modes[uid].merges)
    provable = frozenset(
        uid
        for uid in data_tests
        if settings.allowed.proves and modes[uid].proves and _reads_one_state(graph.tests[uid], project, state)
    )
    if not (mergeable or provable):
        return None
    views = _known_views(project, state, provable, builds) - builds
    read = {parent for uid in builds | views for parent in graph.nodes[uid].parents} if provable else set()
    about = {test for uid in read for test in graph.tests_about.get(uid, ())}
    last = {**state.verdicts, **verdicts}
    usable = {uid for uid in about if _is_premise(graph.tests[uid], project, state)}
    # A verdict from before this command is not about the rows that it builds.
    earlier = {uid for uid in usable & last.keys() - run if builds.isdisjoint(_read_by(graph.tests[uid], graph))}
    return DataTestRequest(
        builds=builds,
        views=frozenset(views),
        mergeable=mergeable,
        provable=provable,
        premises=frozenset(usable & run),
        passed={
            uid: label_in_proofs(last[uid], now)
            for uid in sorted(earlier)
            if last[uid].status is VerdictStatus.PASS and stands(graph.tests[uid], last[uid])
        },
        verified_share=settings.verified_share,
    )


def _known_views(project: Project, state: StateSnapshot, tests: Iterable[str], builds: Iterable[str]) -> set[str]:
    """Return the views that tests and builds read, also through views, and that still have the project's code."""
    graph = project.graph
    if not tests:
        return set()
    read: set[str] = set()
    stack = [uid for test in tests for uid in graph.tests[test].reads]
    stack.extend(parent for uid in builds for parent in graph.nodes[uid].parents)
    while stack:
        uid = stack.pop()
        if uid not in read and uid in graph.nodes and graph.nodes[uid].is_view:
            read.add(uid)
            stack.extend(graph.nodes[uid].parents)
    return {
        uid
        for uid in read - state.missing_relations - state.altered_relations.keys()
        if (build := state.builds.get(uid)) is not None
        and not state.is_copied(uid)
        and state.other_writer(uid) is None
        and not project.code_changes(uid, build)
    }


def _reads_one_state(test: ProjectTest, project: Project, state: StateSnapshot) -> bool:
    """Return whether all that a test reads is certainly as it was when its model was built.

    That makes no difference to a test of one relation alone.
    """
    return len(test.reads) == 1 or all(_is_tracked(uid, project, state) for uid in _read_by(test, project.graph))


def _is_premise(test: ProjectTest, project: Project, state: StateSnapshot) -> bool:
    """Return whether a proof may rely on a test: not if something that nothing tracks may change after the test."""
    if test.is_unit_test or test.is_volatile:
        return False
    return all(_is_tracked(uid, project, state) for uid in _read_by(test, project.graph))


def _is_tracked(uid: str, project: Project, state: StateSnapshot) -> bool:
    node = project.graph.nodes.get(uid)
    if node is None:
        source = state.sources.get(uid)
        return source is not None and not is_untracked_token(source.token)
    if not node.is_view:
        return True
    # A view may give other rows at another time over the same data: that is known of the code of its last build.
    build = state.builds.get(uid)
    return build is not None and build.evidence.is_deterministic and not project.code_changes(uid, build)


def _read_by(test: ProjectTest, graph: ProjectGraph) -> set[str]:
    """Return the nodes and sources that a data test reads, also through views."""
    found: set[str] = set()
    stack = list(test.reads)
    while stack:
        uid = stack.pop()
        if uid not in found:
            found.add(uid)
            node = graph.nodes.get(uid)
            stack.extend(node.parents if node is not None and node.is_view else ())
    return found


def label_in_proofs(verdict: Verdict, now: datetime) -> str:
    """Return how proofs name a verdict that they rely on, such as `passed 12:03, run 4f2a`."""
    day = "" if verdict.at.date() == now.date() else f"{verdict.at:%Y-%m-%d} "
    return f"passed {day}{verdict.at:%H:%M}, run {verdict.run_id[:4]}"
