"""The results of a run, as values: one for each node and test, and all of them with their counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dagster_sao.api.display import as_text, counted, seconds_text, styled
from dagster_sao.core.decision.decide import Reason
from dagster_sao.core.state.state import VerdictStatus


class NodeStatus(str, Enum):
    """The outcome of a node."""

    SUCCESS = "success"
    """It was built."""
    REUSED = "reused"
    """It was not built, because a build would have changed nothing or was too soon."""
    ERROR = "error"
    """It could not be built."""
    SKIPPED = "skipped"
    """Something above it failed."""
    HELD = "held"
    """An earlier attempt with the same code and data failed and is not due yet, or a failed test gates it."""


class TestStatus(str, Enum):
    """The outcome of a test, in dbt's words."""

    __test__ = False  # pytest takes it for a test otherwise

    PASS = "pass"  # noqa: S105 (no password)
    WARN = "warn"
    FAIL = "fail"
    ERROR = "error"
    """It could not be run."""
    REUSED = "reused"
    """Its code and its inputs are the same as for its last answer, which stands."""
    SKIPPED = "skipped"
    """Something that it reads failed."""


_NOT_WORTH_A_ROW = frozenset({TestStatus.PASS, TestStatus.REUSED})
_FAILING = frozenset({VerdictStatus.FAIL, VerdictStatus.ERROR})


@dataclass(frozen=True, slots=True)
class NodeResult:
    """The result of one node."""

    unique_id: str
    name: str
    status: NodeStatus
    message: str
    """The reason for the decision; for a failure, the message of dbt."""
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
    """The result of one data test or unit test."""

    __test__ = False

    unique_id: str
    name: str
    status: TestStatus
    message: str = ""
    """The reason for the decision; for a failure, the message of dbt."""
    failures: int | None = None
    verdict: VerdictStatus | None = None
    """The answer that stands; for a reused test, the answer of an earlier run. None if there is none."""
    how: str = ""
    """How the answer was found: `run`, `merged` (by one query with other tests), `proven` or `reused`; empty if there is none."""
    proof: str = ""
    """For a proven test: why it finds no failures."""

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
            "how": self.how or None,
            "proof": self.proof or None,
        }


@dataclass(frozen=True)
class BuildResults(Mapping[str, NodeResult]):
    """The results of a run: of each node, by unique id and parents first, and of its tests. Prints as tables."""

    nodes: Mapping[str, NodeResult]
    run_id: str
    started_at: datetime
    ended_at: datetime
    tests: Mapping[str, TestResult] = field(default_factory=dict)
    """The result of each test that the run decided about, by unique id."""
    error: str = ""
    """Why the run failed; empty if it did not."""
    warnings: tuple[str, ...] = ()
    """A sentence for each source whose new data may go undetected (its probe failed, or it is not tracked), and for a
    `run_results.json` that could not be written."""

    def __getitem__(self, unique_id: str) -> NodeResult:
        return self.nodes[unique_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self.nodes)

    def __len__(self) -> int:
        return len(self.nodes)

    @property
    def success(self) -> bool:
        """Whether no node or test failed, and none waits for an earlier failure."""
        bad = self.with_status(NodeStatus.ERROR, NodeStatus.SKIPPED, NodeStatus.HELD)
        return not (self.error or bad or self.failing_tests)

    @property
    def culprits(self) -> list[NodeResult]:
        """The nodes that failed themselves, in this run or in an earlier one."""
        found = self.with_status(NodeStatus.ERROR, NodeStatus.HELD)
        return [result for result in found if result.reason != Reason.UPSTREAM_TEST_FAILED]

    @property
    def failing_tests(self) -> list[TestResult]:
        """The tests that failed or could not be run, in this run or in an earlier one whose answer stands."""
        return [result for result in self.tests.values() if result.is_failing]

    @property
    def problems(self) -> list[str]:
        """The failures with their reasons, one line each: of tests, of nodes, or of the run itself if there is neither."""
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
