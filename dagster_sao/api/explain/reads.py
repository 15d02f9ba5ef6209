"""The inputs of a node or a test: the versions that its last build or verdict read, and the versions now."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from dagster_sao.api.display import styled
from dagster_sao.core.decision.decide import Decision
from dagster_sao.core.decision.plan import Plan

_SHOWN_VERSION = 12


@dataclass(frozen=True, slots=True)
class ReadState:
    """Something that a node or a test reads directly."""

    unique_id: str
    name: str
    kind: str
    consumed: str | None
    """The data version that the last build or verdict is about, None when there was none."""
    current: str | None
    """The data version after what would be built now, None when it has none."""
    changed: bool
    decision: Decision | None
    """The decision about it; None for a source."""

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "unique_id": self.unique_id,
            "name": self.name,
            "kind": self.kind,
            "consumed": self.consumed,
            "current": self.current,
            "changed": self.changed,
            "action": self.decision.action.value if self.decision else None,
            "reason": self.decision.reason.value if self.decision else None,
        }


def state_of_read(unique_id: str, plan: Plan, consumed: str | None, *, changed: bool) -> ReadState:
    """Return the state of an input; `consumed` is the version that was read last."""
    node = plan.graph.nodes.get(unique_id)
    return ReadState(
        unique_id=unique_id,
        name=plan.graph.label(unique_id),
        kind=node.materialized if node else "source",
        consumed=consumed,
        current=plan.versions.get(unique_id),
        changed=changed,
        decision=plan.decisions.get(unique_id),
    )


def table_of_reads(title: str, heading: str, reads: Iterable[ReadState]) -> Table:
    """Return a table of inputs."""
    table = Table(title=title, title_justify="left")
    for name in (heading, "what it is", "last read", "now", "changed", "decision"):
        table.add_column(name)
    for read in reads:
        table.add_row(
            read.name,
            read.kind,
            _short(read.consumed),
            _short(read.current),
            Text("yes", style="green") if read.changed else Text("no", style="dim"),
            styled(read.decision.action.value) if read.decision else "",
        )
    return table


def _short(version: str | None) -> str:
    return (version or "")[:_SHOWN_VERSION]
