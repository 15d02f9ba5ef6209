"""What became of each node of a run, read from the events of that run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from types import MappingProxyType
from typing import Any

import dagster as dg
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from dagster_sao.api.display import as_text, seconds_text, styled
from dagster_sao.core.graph import ProjectGraph
from dagster_sao.orchestration.project import LoadedProject
from dagster_sao.orchestration.records import (
    BUILD_KEY,
    DECISION_KEY,
    DURATION_KEY,
    REASON_CODE_KEY,
    REASON_KEY,
    SECONDS_SAVED_KEY,
)


class NodeStatus(str, Enum):
    """What became of a node."""

    SUCCESS = "success"
    """It was built."""
    REUSED = "reused"
    """It was left as it is, because building it would have changed nothing or was too soon."""
    ERROR = "error"
    """It, or an error-severity test on it, failed."""
    SKIPPED = "skipped"
    """Something above it failed."""
    HELD = "held"
    """An earlier attempt with the same code and data failed, and its time has not come again."""


_STATUSES = {
    "build": NodeStatus.SUCCESS,
    "reused": NodeStatus.REUSED,
    "reuse": NodeStatus.REUSED,
    "hold": NodeStatus.HELD,
    "skip": NodeStatus.SKIPPED,
    "failed": NodeStatus.ERROR,
}


class TestStatus(str, Enum):
    """What became of a data test, in dbt's words."""

    __test__ = False  # pytest takes it for a test otherwise

    PASS = "pass"  # noqa: S105 (no password)
    WARN = "warn"
    FAIL = "fail"
    REUSED = "reused"


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
    """What became of one data test."""

    __test__ = False

    unique_id: str
    name: str
    status: TestStatus
    message: str = ""
    failures: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "unique_id": self.unique_id,
            "name": self.name,
            "status": self.status.value,
            "message": self.message,
            "failures": self.failures,
        }


@dataclass(frozen=True)
class BuildResults(Mapping[str, NodeResult]):
    """What became of each node of a run, by unique id, in topological order. Prints as a table."""

    nodes: Mapping[str, NodeResult]
    run_id: str
    started_at: datetime
    ended_at: datetime
    tests: Mapping[str, TestResult] = field(default_factory=dict)
    """What became of the tests, by unique id."""
    error: str = ""
    """What the run failed of, empty when it did not."""

    def __getitem__(self, unique_id: str) -> NodeResult:
        return self.nodes[unique_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self.nodes)

    def __len__(self) -> int:
        return len(self.nodes)

    @property
    def success(self) -> bool:
        """Whether every node is as it should be: none failed, or waits for one that failed earlier."""
        return not self.error and not self.with_status(NodeStatus.ERROR, NodeStatus.SKIPPED, NodeStatus.HELD)

    @property
    def culprits(self) -> list[NodeResult]:
        """The nodes that are not as they should be by themselves: they failed, in this run or in an earlier one."""
        return self.with_status(NodeStatus.ERROR, NodeStatus.HELD)

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

    def summary(self) -> str:
        """Return one line: the counts and the time."""
        counts = ", ".join(f"{count} {status}" for status, count in self.counts().items()) or "nothing to do"
        saved = sum(result.seconds_saved for result in self.nodes.values())
        saved_text = f", {seconds_text(saved)} saved" if saved else ""
        return f"{counts} in {seconds_text(self.seconds)}{saved_text}"

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "run_id": self.run_id,
            "success": self.success,
            "error": self.error or None,
            "seconds": round(self.seconds, 3),
            "counts": self.counts(),
            "nodes": [result.to_dict() for result in self.nodes.values()],
            "tests": [result.to_dict() for result in self.tests.values()],
        }

    def __rich__(self) -> RenderableType:
        """Return it as a table."""
        table = Table(title=f"Run {self.run_id[:8]}: {self.summary()}", title_justify="left")
        for heading in ("node", "status", "seconds", "reason"):
            table.add_column(heading, justify="right" if heading == "seconds" else "left")
        for result in self.nodes.values():
            took = f"{result.seconds:.2f}" if result.status is NodeStatus.SUCCESS else ""
            table.add_row(result.name, styled(result.status.value), took, Text(result.message))
        return table

    def __str__(self) -> str:
        return as_text(self)


def read_results(  # noqa: PLR0913 (what a run leaves)
    events: Iterable[dg.DagsterEvent],
    loaded: LoadedProject,
    selected: Iterable[str],
    *,
    run_id: str,
    started_at: datetime,
    ended_at: datetime,
    error: str = "",
    said: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> BuildResults:
    """Return what became of `selected`, from the events of their run, oldest first: the last word of each counts.

    `said` is what dbt wrote of nodes and tests in that run: its words for a failure.
    """
    reader = _Reader(loaded)
    for event in events:
        reader.absorb(event)
    graph = loaded.project.graph
    nodes = {}
    wanted = set(selected)
    for uid in graph.nodes:
        if uid in wanted or uid in reader.nodes:
            nodes[uid] = _in_dbts_words(reader.nodes.get(uid) or _silent(graph, uid, error), said.get(uid))
    return BuildResults(
        nodes=_with_upstreams(nodes, graph),
        run_id=run_id,
        started_at=started_at,
        ended_at=ended_at,
        tests=reader.tests,
        error=error,
    )


def node_result(event: dg.DagsterEvent, loaded: LoadedProject) -> NodeResult | None:
    """Return what an event of a run says of a node, None for any other event."""
    reader = _Reader(loaded)
    reader.absorb(event)
    return next(iter(reader.nodes.values()), None)


class _Reader:
    def __init__(self, loaded: LoadedProject) -> None:
        self._keys = loaded.keys
        self._graph = loaded.project.graph
        self._tests = {key: uid for uid, key in loaded.check_keys.items()}
        self.nodes: dict[str, NodeResult] = {}
        self.tests: dict[str, TestResult] = {}

    def absorb(self, event: dg.DagsterEvent) -> None:
        if event.event_type is dg.DagsterEventType.ASSET_MATERIALIZATION:
            self._absorb_node(event.asset_key, event.step_materialization_data.materialization.metadata)
        elif event.event_type is dg.DagsterEventType.ASSET_OBSERVATION:
            self._absorb_node(event.asset_key, event.asset_observation_data.asset_observation.metadata)
        elif event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            self._absorb_test(event.asset_check_evaluation_data)

    def _absorb_node(self, key: dg.AssetKey | None, metadata: Mapping[str, Any]) -> None:
        uid = self._keys.unique_ids.get(key) if key else None
        plain = {name: getattr(value, "value", value) for name, value in metadata.items()}
        status = _STATUSES.get(str(plain.get(DECISION_KEY)))
        if uid is None or uid not in self._keys.nodes or status is None:
            return
        record = plain.get(BUILD_KEY) or {}
        self.nodes[uid] = NodeResult(
            unique_id=uid,
            name=self._graph.label(uid),
            status=status,
            message=str(plain.get(REASON_KEY) or ""),
            reason=str(plain.get(REASON_CODE_KEY) or ""),
            seconds=float(plain.get(DURATION_KEY) or 0.0),
            seconds_saved=float(plain.get(SECONDS_SAVED_KEY) or 0.0) if status is NodeStatus.REUSED else 0.0,
            started_at=_moment(record.get("started_at")),
            ended_at=_moment(record.get("ended_at")),
            invocation_id=record.get("invocation_id"),
        )

    def _absorb_test(self, evaluation: dg.AssetCheckEvaluation) -> None:
        uid = self._tests.get(evaluation.asset_check_key)
        if uid is None:
            return
        metadata: dict[str, Any] = {name: value.value for name, value in evaluation.metadata.items()}
        failures = metadata.get("dagster_dbt/failed_row_count")
        self.tests[uid] = TestResult(
            unique_id=uid,
            name=self._graph.tests[uid].name,
            status=_test_status(evaluation, metadata),
            message=str(metadata.get(REASON_KEY) or evaluation.description or ""),
            failures=int(failures) if failures is not None else None,
        )


def _test_status(evaluation: dg.AssetCheckEvaluation, metadata: Mapping[str, Any]) -> TestStatus:
    if metadata.get(DECISION_KEY) == "reuse":
        return TestStatus.REUSED
    if evaluation.passed:
        return TestStatus.PASS
    return TestStatus.WARN if evaluation.severity is dg.AssetCheckSeverity.WARN else TestStatus.FAIL


def _silent(graph: ProjectGraph, unique_id: str, error: str) -> NodeResult:
    message = error or "The run ended before it said what became of it"
    return NodeResult(unique_id, graph.label(unique_id), NodeStatus.ERROR, message)


def _in_dbts_words(result: NodeResult, said: Mapping[str, Any] | None) -> NodeResult:
    if result.status is not NodeStatus.ERROR or said is None or said["status"] != "error" or not said.get("message"):
        return result
    return replace(result, message=" ".join(str(said["message"]).split()))


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
