"""The record of a node."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dagster_sao.api.display import as_text, moment_text, seconds_text
from dagster_sao.api.explain.verdicts import TestState, table_of_verdicts, test_state
from dagster_sao.core.decision.messages import NEVER_BUILT
from dagster_sao.core.durations import format_duration
from dagster_sao.core.state.state import FailedAttempt, FailureKind, LastBuild
from dagster_sao.orchestration import clock
from dagster_sao.orchestration.events.record_json import build_to_json, failure_to_json
from dagster_sao.orchestration.state.read_state import ProjectView

_FAILURES = {
    FailureKind.BUILD: "Failed",
    FailureKind.INTERRUPTED: "Its build was interrupted",
    FailureKind.LIMITED: "Its build was limited",
    FailureKind.TERMINATED: "Its run was terminated",
}


@dataclass(frozen=True, slots=True)
class NodeState:
    """The record of one node and of the tests about it. Prints as a page."""

    unique_id: str
    name: str
    asset_key: str
    build: LastBuild | None
    """The last successful build, None where there is none, or it was reset."""
    failure: FailedAttempt | None
    """The latest attempt, when it came after the last build and failed."""
    relation_missing: bool
    relation_altered: bool
    tests: tuple[TestState, ...] = ()
    """The tests that read it, and its unit tests."""

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "unique_id": self.unique_id,
            "name": self.name,
            "asset_key": self.asset_key,
            "build": build_to_json(self.build) if self.build else None,
            "failure": failure_to_json(self.failure) if self.failure else None,
            "relation_missing": self.relation_missing,
            "relation_altered": self.relation_altered,
            "tests": [test.to_dict() for test in self.tests],
        }

    def problems(self, now: datetime) -> list[str]:
        """Return the problems of the node itself, one line each."""
        lines = []
        if self.failure is not None:
            failure = self.failure
            times = f", {failure.attempts} times in a row" if failure.attempts > 1 else ""
            age = format_duration(now - failure.failed_at)
            retry = moment_text(failure.retry_at)
            lines.append(f"{_FAILURES[failure.kind]} {age} ago{times}. May be tried again at {retry}")
        if self.relation_missing:
            lines.append("Its relation no longer exists")
        if self.relation_altered:
            lines.append("Its relation was altered outside of Dagster since its last build")
        return lines

    def failing_tests(self, now: datetime) -> list[str]:
        """Return its tests that fail, one line each."""
        return [f"{test.name} {test.last_answer(now)}" for test in self.tests if test.is_failing]

    def __rich__(self) -> RenderableType:
        """Return it as a page."""
        lines = [Text.assemble((self.name, "bold"), f"  {self.asset_key}"), *map(Text, self._lines())]
        return Group(*lines, *([table_of_verdicts(self.tests)] if self.tests else []))

    def __str__(self) -> str:
        return as_text(self)

    def _lines(self) -> list[str]:
        build = self.build
        if build is None:
            return [NEVER_BUILT, *self.problems(clock.now())]
        took = seconds_text(build.seconds)
        return [
            f"Last built: {moment_text(build.started_at)} in run {build.run_id}, in {took}",
            f"Data version: {build.data_version}",
            f"Code: {build.fingerprint.digest}",
            *(f"Read {parent} at {version}" for parent, version in build.consumed.items()),
            *self.problems(clock.now()),
        ]


@dataclass(frozen=True, slots=True)
class NodeStates:
    """The records of a project's nodes, parents first, and of its tests. Prints as a table."""

    project_name: str
    nodes: tuple[NodeState, ...]
    tests: tuple[TestState, ...] = ()
    """The tests that are about none of these: about sources alone, or about nothing known to dbt."""

    def __iter__(self) -> Iterator[NodeState]:
        return iter(self.nodes)

    def __len__(self) -> int:
        return len(self.nodes)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "project": self.project_name,
            "nodes": [node.to_dict() for node in self.nodes],
            "tests": [test.to_dict() for test in self.tests],
        }

    def __rich__(self) -> RenderableType:
        """Return it as a table."""
        built = sum(node.build is not None for node in self.nodes)
        table = Table(title=f"{self.project_name}: {built} of {len(self.nodes)} built", title_justify="left")
        for heading in ("node", "last built (UTC)", "took", "run", "problems"):
            table.add_column(heading)
        now = clock.now()
        for node in self.nodes:
            build = node.build
            table.add_row(
                node.name,
                f"{build.started_at:%Y-%m-%d %H:%M:%S}" if build else "not built before",
                seconds_text(build.seconds) if build else "",
                build.run_id[:8] if build else "",
                "; ".join([*node.problems(now), *node.failing_tests(now)]),
            )
        others = [f"{test.name} {test.last_answer(now)}" for test in self.tests if test.is_failing]
        return Group(table, *(Text(line, style="red") for line in others))

    def __str__(self) -> str:
        return as_text(self)


def node_state(view: ProjectView, unique_id: str) -> NodeState:
    """Return the recorded state of a node and of the tests about it."""
    graph, state = view.graph, view.state
    return NodeState(
        unique_id=unique_id,
        name=graph.label(unique_id),
        asset_key=view.loaded.keys.by_unique_id[unique_id].to_user_string(),
        build=state.builds.get(unique_id),
        failure=state.failures.get(unique_id),
        relation_missing=unique_id in state.missing_relations,
        relation_altered=unique_id in state.altered_relations,
        tests=tuple(test_state(graph, test, state) for test in graph.tests_about.get(unique_id, ())),
    )


def node_states(view: ProjectView) -> NodeStates:
    """Return the recorded state of every node and test of a project."""
    graph = view.graph
    others = (uid for uid, test in graph.tests.items() if graph.nodes.keys().isdisjoint(test.about))
    return NodeStates(
        view.project.name,
        tuple(node_state(view, uid) for uid in graph.nodes),
        tuple(test_state(graph, uid, view.state) for uid in others),
    )
