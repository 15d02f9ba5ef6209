"""The record of a test, and the decision about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dagster_sao.api.display import as_text, counted, moment_text, styled
from dagster_sao.core.decision.decide_tests import TestDecision
from dagster_sao.core.durations import format_duration
from dagster_sao.core.manifest.graph import ProjectGraph
from dagster_sao.core.state.state import StateSnapshot, Verdict, VerdictStatus
from dbt_dagster_sao.data_tests.handover import How

_PAST = {
    VerdictStatus.PASS: "passed",
    VerdictStatus.WARN: "warned",
    VerdictStatus.FAIL: "failed",
    VerdictStatus.ERROR: "could not be run",
}
_NEVER_RUN = "not run before"


@dataclass(frozen=True, slots=True)
class TestState:
    """The record of one test. Prints as a page."""

    __test__ = False  # pytest takes it for a test otherwise

    unique_id: str
    name: str
    file: str
    verdict: Verdict | None
    """The last answer, None where there is none, or it was reset."""

    @property
    def is_failing(self) -> bool:
        """Whether its last answer was that it fails, or it could not be run."""
        return self.verdict is not None and self.verdict.is_failing

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        verdict = self.verdict
        return {
            "unique_id": self.unique_id,
            "name": self.name,
            "file": self.file,
            "status": verdict.status.value if verdict else None,
            "failures": verdict.failures if verdict else None,
            "at": verdict.at.isoformat() if verdict else None,
            "run_id": verdict.run_id if verdict else None,
            "versions": dict(verdict.versions) if verdict else {},
            "attempts": verdict.attempts if verdict else 0,
            "how": verdict.how.value if verdict else None,
            "proof": (verdict.proof or None) if verdict else None,
        }

    def last_answer(self, now: datetime) -> str:
        """Return its last answer in words: `failed 5m ago (3 rows)`."""
        if self.verdict is None:
            return _NEVER_RUN
        return f"{_PAST[self.verdict.status]} {format_duration(now - self.verdict.at)} ago{_rows(self.verdict)}"

    def lines(self) -> Iterator[str]:
        """Yield all that is recorded, one line each."""
        verdict = self.verdict
        if verdict is None:
            yield f"{_NEVER_RUN.capitalize()} in this environment"
            return
        what = (
            f"{_PAST[verdict.status].capitalize()} at {moment_text(verdict.at)} in run {verdict.run_id}{_rows(verdict)}"
        )
        if verdict.is_failing:
            times = f", {verdict.attempts} times in a row" if verdict.attempts > 1 else ""
            what += f"{times}. May be tried again at {moment_text(verdict.retry_at)}"
        yield what
        if verdict.how is How.MERGED:
            yield "One query answered it together with other tests"
        if verdict.proof:
            yield f"Proven, not run: {verdict.proof}"

    def __rich__(self) -> RenderableType:
        """Return it as a page."""
        lines = [*self.lines()]
        if self.verdict is not None:
            lines.append(f"Code: {self.verdict.fingerprint.digest}")
            lines += [f"Read {read} at {version}" for read, version in self.verdict.versions.items()]
        return Group(Text.assemble((self.name, "bold"), f"  {self.file}"), *map(Text, lines))

    def __str__(self) -> str:
        return as_text(self)


@dataclass(frozen=True, slots=True)
class DecidedTest:
    """The record of one test, and the decision about it."""

    state: TestState
    decision: TestDecision

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        decided = decision_to_dict(self.state.unique_id, self.state.name, self.decision)
        return {**decided, "verdict": self.state.to_dict() if self.state.verdict else None}


def decision_to_dict(unique_id: str, name: str, decision: TestDecision) -> dict[str, Any]:
    """Return the decision about a test as JSON."""
    return {
        "unique_id": unique_id,
        "name": name,
        "action": decision.action.value,
        "reason": decision.reason.value,
        "message": decision.message,
        "reads": list(decision.reads),
        "eligible_at": decision.eligible_at.isoformat() if decision.eligible_at else None,
    }


def test_state(graph: ProjectGraph, unique_id: str, state: StateSnapshot) -> TestState:
    """Return the recorded state of a test."""
    test = graph.tests[unique_id]
    return TestState(unique_id, test.name, test.file, state.verdicts.get(unique_id))


def table_of_verdicts(tests: Iterable[TestState]) -> Table:
    """Return the records of tests as a table."""
    table = Table(title="Tests", title_justify="left")
    for heading in ("test", "verdict", "rows", "when (UTC)", "run", "attempts"):
        table.add_column(heading, justify="right" if heading in {"rows", "attempts"} else "left")
    for test in tests:
        verdict = test.verdict
        if verdict is None:
            table.add_row(test.name, _NEVER_RUN)
            continue
        table.add_row(
            test.name,
            styled(verdict.status.value),
            str(verdict.failures or ""),
            f"{verdict.at:%Y-%m-%d %H:%M:%S}",
            verdict.run_id[:8],
            str(verdict.attempts) if verdict.is_failing else "",
        )
    return table


def table_of_decisions(title: str, tests: Iterable[DecidedTest], now: datetime) -> Table:
    """Return the decisions about tests as a table."""
    table = Table(title=title, title_justify="left")
    for heading in ("test", "decision", "reason", "last verdict"):
        table.add_column(heading)
    for test in tests:
        style = "red" if test.state.is_failing else ""
        table.add_row(
            test.state.name,
            styled(test.decision.action.value),
            Text(test.decision.message),
            Text(test.state.last_answer(now), style=style),
        )
    return table


def _rows(verdict: Verdict) -> str:
    if not verdict.failures:
        return ""
    return f" ({counted(verdict.failures, 'row')})"
