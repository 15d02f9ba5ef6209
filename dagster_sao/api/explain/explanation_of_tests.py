"""Why a test was last run, the decision about it now, and the nodes that it holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from dagster_sao.api.display import as_text, counted, next_eligible, styled
from dagster_sao.api.explain.reads import ReadState, state_of_read, table_of_reads
from dagster_sao.api.explain.verdicts import TestState, decision_to_dict, test_state
from dagster_sao.core.decision.decide import Reason
from dagster_sao.core.decision.decide_tests import TestDecision, changed_reads
from dagster_sao.core.decision.messages import named
from dagster_sao.core.decision.plan import Plan
from dagster_sao.orchestration.state.read_state import ProjectView


@dataclass(frozen=True, slots=True)
class GatedNode:
    """A node that dbt builds only after a test."""

    unique_id: str
    name: str
    is_held: bool
    """Whether the test's failing verdict holds it now."""


@dataclass(frozen=True, slots=True)
class TestExplanation:
    """The last answer of a test, and the decision about it now. Prints as a page."""

    __test__ = False  # pytest takes it for a test otherwise

    state: TestState
    severity: str
    """`error` or `warn`: what a failure means."""
    decision: TestDecision
    """The decision that a state-aware job over the whole project would make now."""
    reads: tuple[ReadState, ...]
    """The inputs of a data test: the versions in its verdict, and the versions now."""
    unit_test_of: str
    """The name of the model of a unit test, empty for a data test."""
    code_changes: tuple[str, ...]
    """The parts of its code that differ from its verdict."""
    gates: tuple[GatedNode, ...]
    """The nodes that dbt builds only after it, parents first."""
    made_at: datetime

    @property
    def unique_id(self) -> str:
        """The unique id of the test."""
        return self.state.unique_id

    @property
    def name(self) -> str:
        """The name of the test."""
        return self.state.name

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            **decision_to_dict(self.unique_id, self.name, self.decision),
            "file": self.state.file,
            "severity": self.severity,
            "unit_test_of": self.unit_test_of or None,
            "reads": [read.to_dict() for read in self.reads],
            "code_changes": list(self.code_changes),
            "gates": [node.unique_id for node in self.gates],
            "holds": [node.unique_id for node in self.gates if node.is_held],
            "state": self.state.to_dict(),
        }

    def __rich__(self) -> RenderableType:
        """Return it as a page."""
        head = Text.assemble((self.name, "bold"), f"  severity: {self.severity}  {self.state.file}")
        now = Text.assemble("Now: ", styled(self.decision.action.value), f". {self.decision.message}")
        table = [table_of_reads("Reads", "node or source", self.reads)] if self.reads else []
        return Group(head, now, *(Text(line) for line in self._lines()), *table)

    def __str__(self) -> str:
        return as_text(self)

    def _lines(self) -> Iterator[str]:
        yield from next_eligible(self.decision.eligible_at, self.made_at)
        yield from self.state.lines()
        if self.code_changes:
            yield f"Test changed since: {', '.join(self.code_changes)}"
        if self.unit_test_of:
            yield f"Unit test of {self.unit_test_of}"
        elif not self.reads:
            yield "Reads no nodes or sources"
        held = {node.unique_id: node.name for node in self.gates if node.is_held}
        gated = {node.unique_id: node.name for node in self.gates}
        yield f"Gates {counted(len(gated), 'node')}: {named([*gated], gated)}" if gated else "Gates nothing"
        if held:
            yield f"Holds {counted(len(held), 'node')}: {named([*held], held)}"


def explain_test(view: ProjectView, unique_id: str, plan: Plan) -> TestExplanation:
    """Return the last answer of a test, and the decision about it in `plan`."""
    graph, project = view.graph, view.loaded.project
    test = graph.tests[unique_id]
    recorded = test_state(graph, unique_id, view.state)
    verdict = recorded.verdict
    changed = changed_reads(test.reads, verdict, plan.versions) if verdict else ()
    consumed = verdict.versions if verdict else {}
    return TestExplanation(
        state=recorded,
        severity="error" if test.is_error else "warn",
        decision=plan.tests[unique_id],
        reads=tuple(state_of_read(uid, plan, consumed.get(uid), changed=uid in changed) for uid in test.reads),
        unit_test_of=graph.label(test.model) if test.is_unit_test else "",
        code_changes=project.code_changes(unique_id, verdict, parents_changed=bool(changed)) if verdict else (),
        gates=tuple(
            GatedNode(uid, graph.label(uid), is_held=_is_held(uid, unique_id, plan))
            for uid in graph.gates.gated_by(unique_id)
        ),
        made_at=view.now,
    )


def _is_held(node: str, test: str, plan: Plan) -> bool:
    decision = plan.decisions[node]
    return decision.reason is Reason.UPSTREAM_TEST_FAILED and test in decision.parents
