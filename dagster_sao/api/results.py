"""What became of each node and test of a run, read from the events of that run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from types import MappingProxyType
from typing import Any

import dagster as dg
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dagster_sao.api.display import as_text, counted, seconds_text, styled
from dagster_sao.core.decision.decide import Reason
from dagster_sao.core.manifest.graph import ProjectGraph
from dagster_sao.core.state.state import VerdictStatus
from dagster_sao.orchestration.events.event_schema import (
    FAILED_ROWS_KEY,
    REASON_KEY,
    Outcome,
    ResultOfTest,
    is_reused,
    node_event,
    plain,
    source_problems_of_run,
    tests_of_run,
)
from dagster_sao.orchestration.messages import one_line
from dagster_sao.orchestration.private.dagster_internals import events_of_run, metadata_of_engine_event
from dagster_sao.orchestration.project.orchestrated import LoadedProject


class NodeStatus(str, Enum):
    """What became of a node."""

    SUCCESS = "success"
    """It was built."""
    REUSED = "reused"
    """It was left as it is, because building it would have changed nothing or was too soon."""
    ERROR = "error"
    """It could not be built."""
    SKIPPED = "skipped"
    """Something above it failed."""
    HELD = "held"
    """An earlier attempt with the same code and data failed and its time has not come again, or a failed test gates it."""


_STATUSES = {
    Outcome.BUILT: NodeStatus.SUCCESS,
    Outcome.REUSED: NodeStatus.REUSED,
    Outcome.HELD: NodeStatus.HELD,
    Outcome.SKIPPED: NodeStatus.SKIPPED,
    Outcome.LOST: NodeStatus.SKIPPED,
    Outcome.FAILED: NodeStatus.ERROR,
}


class TestStatus(str, Enum):
    """What became of a test, in dbt's words."""

    __test__ = False  # pytest takes it for a test otherwise

    PASS = "pass"  # noqa: S105 (no password)
    WARN = "warn"
    FAIL = "fail"
    ERROR = "error"
    """It could not be run."""
    REUSED = "reused"
    """Its code and what it reads are those of its last answer, which stands."""
    SKIPPED = "skipped"
    """Something that it reads failed."""


_NOT_RUN = frozenset({TestStatus.REUSED, TestStatus.SKIPPED})
_NOT_WORTH_A_ROW = frozenset({TestStatus.PASS, TestStatus.REUSED})
_VERDICTS: Mapping[str | None, VerdictStatus] = {status.value: status for status in VerdictStatus}
_FAILING = frozenset({VerdictStatus.FAIL, VerdictStatus.ERROR})


@dataclass(frozen=True, slots=True)
class NodeResult:
    """What became of one node."""

    unique_id: str
    name: str
    status: NodeStatus
    message: str
    """The reason for the decision; of what failed, what dbt said."""
    reason: str = ""
    """The code of that reason (docs/semantics.md); empty for what failed."""
    seconds: float = 0.0
    """How long the build took."""
    seconds_saved: float = 0.0
    """How long the last build of a reused node took."""
    failed_upstreams: tuple[str, ...] = ()
    """Of a skipped node: the nearest nodes above it that failed, by unique id."""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    invocation_id: str | None = None
    """dbt's own id of the invocation that built it."""

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "unique_id": self.unique_id,
            "name": self.name,
            "status": self.status.value,
            "reason": self.reason,
            "message": self.message,
            "seconds": round(self.seconds, 3),
            "seconds_saved": round(self.seconds_saved, 3),
            "failed_upstreams": list(self.failed_upstreams),
        }


@dataclass(frozen=True, slots=True)
class TestResult:
    """What became of one data test or unit test."""

    __test__ = False

    unique_id: str
    name: str
    status: TestStatus
    message: str = ""
    """The reason for the decision; of what failed, what dbt said."""
    failures: int | None = None
    verdict: VerdictStatus | None = None
    """The answer that stands, of a reused test that of an earlier run; None where there is none."""

    @property
    def is_failing(self) -> bool:
        """Whether the answer that stands is that it fails, or it could not be run."""
        return self.verdict in _FAILING

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "unique_id": self.unique_id,
            "name": self.name,
            "status": self.status.value,
            "message": self.message,
            "failures": self.failures,
            "verdict": self.verdict.value if self.verdict else None,
        }


@dataclass(frozen=True)
class BuildResults(Mapping[str, NodeResult]):
    """What became of each node of a run, by unique id, in topological order, and of its tests. Prints as tables."""

    nodes: Mapping[str, NodeResult]
    run_id: str
    started_at: datetime
    ended_at: datetime
    tests: Mapping[str, TestResult] = field(default_factory=dict)
    """What became of each test that the run decided about, by unique id."""
    error: str = ""
    """What the run failed of, empty when it did not."""
    warnings: tuple[str, ...] = ()
    """A sentence for each source in which new data may not be seen: its probe failed, or it is not tracked."""

    def __getitem__(self, unique_id: str) -> NodeResult:
        return self.nodes[unique_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self.nodes)

    def __len__(self) -> int:
        return len(self.nodes)

    @property
    def success(self) -> bool:
        """Whether every node and test is as it should be: none failed, or waits for one that failed earlier."""
        bad = self.with_status(NodeStatus.ERROR, NodeStatus.SKIPPED, NodeStatus.HELD)
        return not (self.error or bad or self.failing_tests)

    @property
    def culprits(self) -> list[NodeResult]:
        """The nodes that are not as they should be by themselves: they failed, in this run or in an earlier one."""
        found = self.with_status(NodeStatus.ERROR, NodeStatus.HELD)
        return [result for result in found if result.reason != Reason.UPSTREAM_TEST_FAILED]

    @property
    def failing_tests(self) -> list[TestResult]:
        """The tests that failed or could not be run, in this run or in an earlier one whose answer stands."""
        return [result for result in self.tests.values() if result.is_failing]

    @property
    def problems(self) -> list[str]:
        """What failed and why, one line each: the tests, the nodes, or the run itself where it was neither."""
        found = [f"{test.name}: {test.message}" for test in self.failing_tests]
        found += [f"{node.name}: {node.message}" for node in self.culprits]
        return found or ([self.error] if self.error else [])

    @property
    def seconds(self) -> float:
        """How long the run took."""
        return (self.ended_at - self.started_at).total_seconds()

    def with_status(self, *statuses: NodeStatus) -> list[NodeResult]:
        """Return the results with one of these statuses."""
        return [result for result in self.nodes.values() if result.status in statuses]

    def counts(self) -> dict[str, int]:
        """Return how many nodes have each status, without those that none has."""
        found = {status.value: len(self.with_status(status)) for status in NodeStatus}
        return {status: count for status, count in found.items() if count}

    def test_counts(self) -> dict[str, int]:
        """Return how many tests have each status, without those that none has."""
        return dict(sorted(Counter(result.status.value for result in self.tests.values()).items()))

    def summary(self) -> str:
        """Return one line: the counts and the time."""
        counts = ", ".join(f"{count} {status}" for status, count in self.counts().items()) or "nothing to do"
        saved = sum(result.seconds_saved for result in self.nodes.values())
        saved_text = f", {seconds_text(saved)} saved" if saved else ""
        return f"{counts} in {seconds_text(self.seconds)}{saved_text}{self._counted_tests()}"

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "run_id": self.run_id,
            "success": self.success,
            "error": self.error or None,
            "warnings": list(self.warnings),
            "seconds": round(self.seconds, 3),
            "counts": self.counts(),
            "test_counts": self.test_counts(),
            "nodes": [result.to_dict() for result in self.nodes.values()],
            "tests": [result.to_dict() for result in self.tests.values()],
        }

    def __rich__(self) -> RenderableType:
        """Return it as tables."""
        table = Table(title=f"Run {self.run_id[:8]}: {self.summary()}", title_justify="left")
        for heading in ("node", "status", "seconds", "reason"):
            table.add_column(heading, justify="right" if heading == "seconds" else "left")
        for result in self.nodes.values():
            took = f"{result.seconds:.2f}" if result.status is NodeStatus.SUCCESS else ""
            table.add_row(result.name, styled(result.status.value), took, Text(result.message))
        return Group(table, *self._tables_of_tests(), *(Text(warning, style="yellow") for warning in self.warnings))

    def __str__(self) -> str:
        return as_text(self)

    def _counted_tests(self) -> str:
        if not self.tests:
            return ""
        return f"; tests: {', '.join(f'{count} {status}' for status, count in self.test_counts().items())}"

    def _tables_of_tests(self) -> Iterator[RenderableType]:
        """Yield the tests that did not pass as a table, and how many others there are."""
        shown = [test for test in self.tests.values() if test.is_failing or test.status not in _NOT_WORTH_A_ROW]
        if shown:
            table = Table(title="tests", title_justify="left")
            for heading in ("test", "status", "reason"):
                table.add_column(heading)
            for test in shown:
                table.add_row(test.name, styled(test.status.value), Text(test.message))
            yield table
        if rest := len(self.tests) - len(shown):
            yield Text(f"{counted(rest, 'other test')} passed or reused", style="dim")


def read_results(  # noqa: PLR0913 (what a run leaves)
    events: Iterable[dg.DagsterEvent],
    loaded: LoadedProject,
    selected: Iterable[str],
    *,
    run_id: str,
    started_at: datetime,
    ended_at: datetime,
    error: str = "",
    tests: Mapping[str, ResultOfTest] = MappingProxyType({}),
    said: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    warnings: Iterable[str] = (),
) -> BuildResults:
    """Return what became of `selected`, from the events of their run, oldest first: the last word of each counts.

    `tests` is what the run said of its tests, as `said_of_tests` returns it, and `said` what dbt wrote of nodes and tests
    in that run: its words for a failure. `warnings` is what `said_of_sources` returns.
    """
    heard = {result.unique_id: result for event in events if (result := _heard_of_node(event, loaded)) is not None}
    graph = loaded.project.graph
    nodes = {}
    wanted = set(selected)
    for uid in graph.nodes:
        if uid in wanted or uid in heard:
            nodes[uid] = _in_dbts_words(heard.get(uid) or _silent(graph, uid, error), said.get(uid))
    return BuildResults(
        nodes=_with_upstreams(nodes, graph),
        run_id=run_id,
        started_at=started_at,
        ended_at=ended_at,
        tests={uid: _test_result(uid, of_run, graph, said.get(uid)) for uid, of_run in tests.items()},
        error=error,
        warnings=tuple(warnings),
    )


def heard_result(
    event: dg.DagsterEvent, loaded: LoadedProject, tests: Mapping[dg.AssetCheckKey, str]
) -> NodeResult | TestResult | None:
    """Return what an event of a run says of a node, or of one of `tests` by check; None for any other event."""
    if event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION:
        evaluation = event.asset_check_evaluation_data
        uid = tests.get(evaluation.asset_check_key)
        return _heard_of_test(uid, evaluation, loaded.project.graph) if uid is not None else None
    return _heard_of_node(event, loaded)


def said_of_tests(instance: dg.DagsterInstance, run_id: str, graph: ProjectGraph) -> dict[str, ResultOfTest]:
    """Return what a run said at its end of each of its tests, by unique id: also of those that have no asset check."""
    found: dict[str, ResultOfTest] = {}
    for record in events_of_run(instance, run_id):
        event = record.event_log_entry.dagster_event
        tests = tests_of_run(metadata_of_engine_event(event)) if event else {}
        # Each step of a run says so. What one of them ran, the others reuse.
        found.update({uid: of_run for uid, of_run in tests.items() if uid not in found or _was_run(of_run)})
    return {uid: of_run for uid, of_run in found.items() if uid in graph.tests}


def said_of_sources(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    """Return what a run said at its end of sources in which new data may not be seen, a sentence each."""
    found: dict[str, None] = {}
    for record in events_of_run(instance, run_id):
        event = record.event_log_entry.dagster_event
        found.update(dict.fromkeys(source_problems_of_run(metadata_of_engine_event(event)) if event else ()))
    return list(found)


def _was_run(of_run: ResultOfTest) -> bool:
    return TestStatus(of_run["result"]) not in _NOT_RUN


def _heard_of_node(event: dg.DagsterEvent, loaded: LoadedProject) -> NodeResult | None:
    if event.event_type is dg.DagsterEventType.ASSET_MATERIALIZATION:
        metadata = event.step_materialization_data.materialization.metadata
    elif event.event_type is dg.DagsterEventType.ASSET_OBSERVATION:
        metadata = event.asset_observation_data.asset_observation.metadata
    else:
        return None
    uid = loaded.keys.unique_ids.get(event.asset_key) if event.asset_key else None
    reported = node_event(metadata)
    status = _STATUSES.get(reported.outcome) if reported.outcome is not None else None
    if uid is None or uid not in loaded.keys.nodes or status is None:
        return None
    record = reported.build
    return NodeResult(
        unique_id=uid,
        name=loaded.project.graph.label(uid),
        status=status,
        message=reported.message,
        reason=reported.reason_code,
        seconds=reported.seconds,
        seconds_saved=reported.seconds_saved if status is NodeStatus.REUSED else 0.0,
        started_at=_moment(record.get("started_at")),
        ended_at=_moment(record.get("ended_at")),
        invocation_id=record.get("invocation_id"),
    )


def _heard_of_test(unique_id: str, evaluation: dg.AssetCheckEvaluation, graph: ProjectGraph) -> TestResult | None:
    values = plain(evaluation.metadata)
    verdict = _VERDICTS.get(values.get("status"))
    if verdict is None:
        return None
    return TestResult(
        unique_id=unique_id,
        name=graph.label(unique_id),
        status=TestStatus.REUSED if is_reused(values) else TestStatus(verdict.value),
        message=str(values.get(REASON_KEY) or ""),
        failures=values.get(FAILED_ROWS_KEY),
        verdict=verdict,
    )


def _test_result(
    unique_id: str, of_run: ResultOfTest, graph: ProjectGraph, said: Mapping[str, Any] | None
) -> TestResult:
    result = TestResult(
        unique_id=unique_id,
        name=graph.label(unique_id),
        status=TestStatus(of_run["result"]),
        message=of_run["reason"],
        failures=of_run.get("failures"),
        verdict=VerdictStatus(of_run["status"]) if "status" in of_run else None,
    )
    if result.status in _NOT_RUN or result.verdict is VerdictStatus.PASS:
        return result
    return replace(
        result, message=one_line(str(said.get("message") or "") if said else "") or _without_dbts_words(result)
    )


def _without_dbts_words(result: TestResult) -> str:
    """Return what is said of a test that did not pass and of which dbt left no word (`--no-write-json`)."""
    return (
        "dbt could not run it"
        if result.status is TestStatus.ERROR
        else f"Got {counted(result.failures or 0, 'result')}"
    )


def _silent(graph: ProjectGraph, unique_id: str, error: str) -> NodeResult:
    message = error or "The run ended before it said what became of it"
    return NodeResult(unique_id, graph.label(unique_id), NodeStatus.ERROR, message)


def _in_dbts_words(result: NodeResult, said: Mapping[str, Any] | None) -> NodeResult:
    if result.status is not NodeStatus.ERROR or said is None or said["status"] != "error" or not said.get("message"):
        return result
    return replace(result, message=one_line(str(said["message"])))


def _with_upstreams(nodes: Mapping[str, NodeResult], graph: ProjectGraph) -> dict[str, NodeResult]:
    """Return the results with the nearest failed nodes above each skipped one."""
    return {
        uid: replace(result, failed_upstreams=tuple(_failed_above(uid, nodes, graph)))
        if result.status is NodeStatus.SKIPPED
        else result
        for uid, result in nodes.items()
    }


def _failed_above(unique_id: str, nodes: Mapping[str, NodeResult], graph: ProjectGraph) -> Iterator[str]:
    stack, seen = list(graph.nodes[unique_id].parents), set()
    while stack:
        parent = stack.pop(0)
        if parent in seen or parent not in graph.nodes:
            continue
        seen.add(parent)
        result = nodes.get(parent)
        if result is not None and result.status in (NodeStatus.ERROR, NodeStatus.HELD):
            yield parent
        else:
            stack.extend(graph.nodes[parent].parents)


def _moment(text: object) -> datetime | None:
    return datetime.fromisoformat(text) if isinstance(text, str) else None
