"""How each data test of a selection would be answered, as a value that prints as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dagster_sao.api.display import as_text, counted, styled
from dagster_sao.core.decision.decide_tests import TestDecision
from dbt_dagster_sao.data_tests.handover import How


@dataclass(frozen=True, slots=True)
class DataTestReport:
    """How one data test would be answered."""

    unique_id: str
    name: str
    model: str
    """The unique id of the model that it is about, empty where there is none or several."""
    decision: TestDecision
    """The decision that a build of the selection would make now."""
    how: How
    """How it would be answered if everything selected were rebuilt: proven, merged, or by its own query."""
    merged_with: int = 0
    """The number of other tests that the same query would answer."""
    proof: str = ""
    why_not: str = ""
    """Why it cannot be proven, in one sentence; empty where it can."""

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "unique_id": self.unique_id,
            "name": self.name,
            "model": self.model or None,
            "decision": self.decision.action.value,
            "reason": self.decision.reason.value,
            "message": self.decision.message,
            "how": self.how.value,
            "merged_with": self.merged_with,
            "proof": self.proof or None,
            "why_not": self.why_not or None,
        }

    def answer(self) -> Text:
        """Return how it would be answered, in words."""
        if self.how is How.PROVEN:
            return Text.assemble(styled("proven"), f". {self.proof}")
        if self.how is How.MERGED:
            return Text.assemble(styled("merged"), f" with {counted(self.merged_with, 'other')}")
        return styled("run")


@dataclass(frozen=True, slots=True)
class DataTestReports:
    """How the data tests of a selection would be answered. Prints as a table."""

    project_name: str
    tests: tuple[DataTestReport, ...]
    queries: int
    """The number of queries that would answer all of them if everything selected were rebuilt."""
    contradiction: str = ""
    """The sentence about a proof that a test contradicted, so that runs prove nothing; empty for none."""
    notes: tuple[str, ...] = ()
    """What was not known when the decisions were made, one sentence each."""

    def __iter__(self) -> Iterator[DataTestReport]:
        return iter(self.tests)

    def __len__(self) -> int:
        return len(self.tests)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "project": self.project_name,
            "counts": {"now": dict(self._now()), "if_rebuilt": dict(self._if_rebuilt()), "queries": self.queries},
            "tests": [test.to_dict() for test in self.tests],
            "contradiction": self.contradiction or None,
            "notes": list(self.notes),
        }

    def summary(self) -> str:
        """Return one line: the counts of decisions now, and of answers and queries if everything selected were rebuilt."""
        text = f"{self.project_name}: {counted(len(self.tests), 'data test')}"
        if not self.tests:
            return text
        queries = "1 query" if self.queries == 1 else f"{self.queries} queries"
        return f"{text}. Now: {_listed(self._now())}. If rebuilt: {_listed(self._if_rebuilt())}, so {queries}"

    def __rich__(self) -> RenderableType:
        """Return it as a table."""
        table = Table()
        for heading in ("test", "now", "if its model were rebuilt", "why not proven"):
            table.add_column(heading)
        for test in self.tests:
            now = Text.assemble(styled(test.decision.action.value), f". {test.decision.message}")
            table.add_row(test.name, now, test.answer(), Text(test.why_not))
        problem = [Text(self.contradiction, style="red")] if self.contradiction else []
        notes = (Text(note, style="yellow") for note in self.notes)
        return Group(*([table] if self.tests else []), *notes, *problem, Text(self.summary()))

    def __str__(self) -> str:
        return as_text(self)

    def _now(self) -> Counter[str]:
        return Counter(sorted(test.decision.action.value for test in self.tests))

    def _if_rebuilt(self) -> Counter[str]:
        return Counter(sorted(test.how.value for test in self.tests))


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.items())
