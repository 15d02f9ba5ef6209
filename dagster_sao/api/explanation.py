"""Why a node was last built, and what would become of it now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import dagster as dg
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dagster_sao.api.display import as_text, seconds_text, styled
from dagster_sao.api.node_state import NodeState, node_state
from dagster_sao.core.decide import Decision
from dagster_sao.core.durations import format_duration
from dagster_sao.core.plan import Plan
from dagster_sao.core.policy import Policy
from dagster_sao.core.state import LastBuild, StateSnapshot
from dagster_sao.orchestration.project import LoadedProject
from dagster_sao.orchestration.records import BUILD_KEY, REASON_KEY

_SHOWN_VERSION = 12


@dataclass(frozen=True, slots=True)
class ParentState:
    """A direct parent of a node, as the node's last build read it and as it is."""

    unique_id: str
    name: str
    kind: str
    consumed: str | None
    """The data version that the last build read, None when it read none."""
    current: str | None
    """The data version after what would be built now, None when it has none."""
    changed: bool
    decision: Decision | None
    """What would become of the parent itself; None for a source."""

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


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a node was last built, and what would become of it now. Prints as a page."""

    unique_id: str
    name: str
    file: str
    materialized: str
    decision: Decision
    """What a state-aware job over the whole project would decide now."""
    last_reason: str
    """Why it was last built, empty when that is not known."""
    state: NodeState
    parents: tuple[ParentState, ...]
    code_changes: tuple[str, ...]
    """The parts of the code that differ from the last build."""
    settings: Mapping[str, str]
    """The settings in force that decide when it is built."""
    bound_to: tuple[str, ...]
    """Of a view: the parents whose rebuilding its definition does not survive, by unique id."""
    made_at: datetime

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        decision = self.decision
        return {
            "unique_id": self.unique_id,
            "name": self.name,
            "file": self.file,
            "materialized": self.materialized,
            "action": decision.action.value,
            "reason": decision.reason.value,
            "message": decision.message,
            "eligible_at": decision.eligible_at.isoformat() if decision.eligible_at else None,
            "last_reason": self.last_reason or None,
            "code_changes": list(self.code_changes),
            "parents": [parent.to_dict() for parent in self.parents],
            "settings": dict(self.settings),
            "bound_to": list(self.bound_to),
            "state": self.state.to_dict(),
        }

    def __rich__(self) -> RenderableType:
        """Return it as a page."""
        head = Text.assemble((self.name, "bold"), f"  {self.materialized}  {self.file}")
        now = Text.assemble("Now: ", styled(self.decision.action.value), f". {self.decision.message}")
        lines = [head, now, *(Text(line) for line in self._lines())]
        return Group(*lines, *([self._parents()] if self.parents else []))

    def __str__(self) -> str:
        return as_text(self)

    def _lines(self) -> list[str]:
        lines = []
        if self.decision.eligible_at:
            wait = format_duration(self.decision.eligible_at - self.made_at)
            lines.append(f"Next eligible: {self.decision.eligible_at:%Y-%m-%d %H:%M:%S} UTC, in {wait}")
        build = self.state.build
        if build is not None:
            why = f": {self.last_reason}" if self.last_reason else ""
            took = seconds_text(build.seconds)
            age = format_duration(self.made_at - build.started_at)
            lines.append(f"Last built: {age} ago in run {build.run_id[:8]}, in {took}{why}")
        lines.extend(self.state.problems(self.made_at))
        if self.code_changes and build is not None:
            lines.append(f"Code changed since: {', '.join(self.code_changes)}")
        if self.bound_to:
            lines.append(f"Its definition is bound to: {', '.join(self.bound_to)}")
        settings = ", ".join(f"{name}: {value}" for name, value in self.settings.items())
        lines.append(f"Settings: {settings}")
        return lines

    def _parents(self) -> Table:
        table = Table(title="Parents", title_justify="left")
        for heading in ("parent", "what it is", "last read", "now", "changed", "decision"):
            table.add_column(heading)
        for parent in self.parents:
            table.add_row(
                parent.name,
                parent.kind,
                _short(parent.consumed),
                _short(parent.current),
                Text("yes", style="green") if parent.changed else Text("no", style="dim"),
                styled(parent.decision.action.value) if parent.decision else "",
            )
        return table


def explain_node(  # noqa: PLR0913 (what an explanation is made of)
    instance: dg.DagsterInstance,
    loaded: LoadedProject,
    unique_id: str,
    *,
    plan: Plan,
    state: StateSnapshot,
    now: datetime,
) -> Explanation:
    """Return why a node was last built, and what becomes of it in `plan`."""
    graph = loaded.project.graph
    node = graph.nodes[unique_id]
    build = state.builds.get(unique_id)
    fingerprint = loaded.project.fingerprints[unique_id]
    policy = loaded.project.policy(unique_id)
    return Explanation(
        unique_id=unique_id,
        name=node.label,
        file=node.file,
        materialized=node.materialized,
        decision=plan.decisions[unique_id],
        last_reason=_last_reason(instance, loaded, unique_id, build) if build else "",
        state=node_state(loaded, unique_id, state),
        parents=tuple(_parent(parent, loaded, build, plan) for parent in node.parents),
        code_changes=tuple(fingerprint.changes_since(build.fingerprint)) if build else (),
        settings=_settings(policy, is_view=node.is_view),
        bound_to=tuple(build.definition_inputs) if build and node.is_view else (),
        made_at=now,
    )


def _parent(unique_id: str, loaded: LoadedProject, build: LastBuild | None, plan: Plan) -> ParentState:
    graph = loaded.project.graph
    node = graph.nodes.get(unique_id)
    consumed = build.consumed.get(unique_id) if build else None
    current = plan.versions.get(unique_id)
    return ParentState(
        unique_id=unique_id,
        name=graph.label(unique_id),
        kind=node.materialized if node else "source",
        consumed=consumed,
        current=current,
        changed=build is not None and current is not None and consumed != current,
        decision=plan.decisions.get(unique_id),
    )


def _last_reason(instance: dg.DagsterInstance, loaded: LoadedProject, unique_id: str, build: LastBuild) -> str:
    event = instance.get_latest_materialization_event(loaded.keys.by_unique_id[unique_id])
    materialization = event.asset_materialization if event else None
    metadata: dict[str, Any] = {k: v.value for k, v in materialization.metadata.items()} if materialization else {}
    # The latest may be of another environment, or the one whose test failed.
    is_this_one = (metadata.get(BUILD_KEY) or {}).get("run_id") == build.run_id
    return str(metadata.get(REASON_KEY) or "") if is_this_one else ""


def _settings(policy: Policy, *, is_view: bool) -> dict[str, str]:
    def text(duration: timedelta | None) -> str | None:
        return format_duration(duration) if duration is not None else None

    found = {
        "build_after": text(policy.build_after),
        "lag_tolerance": text(policy.lag_tolerance),
        "updates_on": policy.updates_on.value,
        "code_changes": policy.code_changes.value if policy.build_after else None,
        "rebuild_every": text(policy.rebuild_every),
        "external_changes": policy.external_changes.value if policy.external_changes else None,
    }
    # A view is never built for data, so what it asks for there has no effect.
    without_effect = {"build_after", "lag_tolerance", "updates_on", "code_changes", "rebuild_every"} if is_view else ()
    settings = {name: value for name, value in found.items() if value is not None and name not in without_effect}
    return settings or {"view": "built for code only, since it reads current data"}


def _short(version: str | None) -> str:
    return (version or "")[:_SHOWN_VERSION]
