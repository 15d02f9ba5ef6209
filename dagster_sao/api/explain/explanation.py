"""Why a node was last built, and the decision about it now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from dagster_sao.api.display import as_text, counted, next_eligible, seconds_text, styled
from dagster_sao.api.explain.node_state import NodeState, node_state
from dagster_sao.api.explain.reads import ReadState, state_of_read, table_of_reads
from dagster_sao.api.explain.verdicts import DecidedTest, table_of_decisions, test_state
from dagster_sao.core.decision.decide import Decision, Reason
from dagster_sao.core.decision.messages import named
from dagster_sao.core.decision.plan import Plan
from dagster_sao.core.durations import format_duration
from dagster_sao.core.manifest.policy import Policy
from dagster_sao.core.state.state import LastBuild, StateSnapshot
from dagster_sao.orchestration.events.event_schema import node_event
from dagster_sao.orchestration.state.read_state import ProjectView


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a node was last built, and the decision about it now. Prints as a page."""

    unique_id: str
    name: str
    file: str
    materialized: str
    decision: Decision
    """The decision that a state-aware job over the whole project would make now."""
    last_reason: str
    """Why it was last built; empty if that is not known."""
    state: NodeState
    parents: tuple[ReadState, ...]
    code_changes: tuple[str, ...]
    """The parts of the code that differ from the last build."""
    settings: Mapping[str, str]
    """The settings in force that decide when it is built."""
    bound_to: tuple[str, ...]
    """For a view: the parents whose rebuild makes a build of the view necessary, by unique id."""
    made_at: datetime
    tests: tuple[DecidedTest, ...] = ()
    """The tests that read it, and its unit tests."""
    held_by: tuple[DecidedTest, ...] = ()
    """The tests whose failing verdict holds it."""
    gated_by: Mapping[str, str] = field(default_factory=dict)
    """The names of all tests that it is built after, by unique id."""
    functions: Mapping[str, str] = field(default_factory=dict)
    """The names of all user-defined functions that it calls and that are created before it, by unique id."""

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
            "functions": list(self.functions),
            "tests": [test.to_dict() for test in self.tests],
            "held_by": [test.state.unique_id for test in self.held_by],
            "gated_by": list(self.gated_by),
            "state": self.state.to_dict(),
        }

    def __rich__(self) -> RenderableType:
        """Return it as a page."""
        head = Text.assemble((self.name, "bold"), f"  {self.materialized}  {self.file}")
        now = Text.assemble("Now: ", styled(self.decision.action.value), f". {self.decision.message}")
        lines = [head, now, *(Text(line) for line in self._lines())]
        return Group(*lines, *self._tables())

    def __str__(self) -> str:
        return as_text(self)

    def _lines(self) -> list[str]:
        lines = next_eligible(self.decision.eligible_at, self.made_at)
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
        if self.functions:
            lines.append(f"Calls {counted(len(self.functions), 'function')}: {', '.join(self.functions.values())}")
        if self.gated_by:
            lines.append(f"Gated by {counted(len(self.gated_by), 'test')}: {named([*self.gated_by], self.gated_by)}")
        settings = ", ".join(f"{name}: {value}" for name, value in self.settings.items())
        lines.append(f"Settings: {settings}")
        return lines

    def _tables(self) -> Iterator[RenderableType]:
        if self.parents:
            yield table_of_reads("Parents", "parent", self.parents)
        if self.tests:
            yield table_of_decisions("Tests", self.tests, self.made_at)
        if self.held_by:
            yield table_of_decisions("Held by", self.held_by, self.made_at)


def explain_node(view: ProjectView, unique_id: str, plan: Plan) -> Explanation:
    """Return why a node was last built, and the decision about it in `plan`."""
    graph, project, state = view.graph, view.loaded.project, view.state
    node = graph.nodes[unique_id]
    build = state.builds.get(unique_id)
    parents = tuple(_parent(parent, build, plan) for parent in node.parents)
    any_changed = any(parent.changed for parent in parents)
    policy = project.policy(unique_id)
    decision = plan.decisions[unique_id]
    held_by = decision.parents if decision.reason is Reason.UPSTREAM_TEST_FAILED else ()
    return Explanation(
        unique_id=unique_id,
        name=node.label,
        file=node.file,
        materialized=node.materialized,
        decision=decision,
        last_reason=_last_reason(view, unique_id, build) if build else "",
        state=node_state(view, unique_id),
        parents=parents,
        code_changes=project.code_changes(unique_id, build, parents_changed=any_changed) if build else (),
        settings=_settings(policy, is_view=node.is_view),
        bound_to=tuple(build.view_bindings) if build and node.is_view else (),
        made_at=view.now,
        tests=_decided(graph.tests_about.get(unique_id, ()), plan, state),
        held_by=_decided(held_by, plan, state),
        gated_by={uid: test.name for uid, test in graph.tests.items() if graph.gates.gates(uid, unique_id)},
        functions={uid: graph.functions[uid].name for uid in node.functions},
    )


def _decided(tests: Iterable[str], plan: Plan, state: StateSnapshot) -> tuple[DecidedTest, ...]:
    """Return the records of tests, and the decisions of `plan` about them."""
    return tuple(DecidedTest(test_state(plan.graph, uid, state), plan.tests[uid]) for uid in tests)


def _parent(unique_id: str, build: LastBuild | None, plan: Plan) -> ReadState:
    consumed = build.consumed.get(unique_id) if build else None
    current = plan.versions.get(unique_id)
    changed = build is not None and current is not None and consumed != current
    return state_of_read(unique_id, plan, consumed, changed=changed)


def _last_reason(view: ProjectView, unique_id: str, build: LastBuild) -> str:
    event = view.instance.get_latest_materialization_event(view.loaded.keys.by_unique_id[unique_id])
    materialization = event.asset_materialization if event else None
    reported = node_event(materialization.metadata if materialization else {})
    # The latest may be of another environment.
    return reported.message if reported.build.get("run_id") == build.run_id else ""


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
