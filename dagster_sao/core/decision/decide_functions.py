"""The decision table of functions: first match wins, one row per line of docs/semantics.md.

A node that calls a function has the function's code in its own fingerprint, and is built after it in the same run. So this
table is about the rest: functions that nothing in the plan calls, and whose code in the warehouse may not be the project's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from dagster_sao.core.decision.messages import named, upstream_failed
from dagster_sao.core.durations import format_duration
from dagster_sao.core.project import Project
from dagster_sao.core.state.state import FunctionState


class FunctionAction(str, Enum):
    """The action for a function."""

    CREATE = "create"
    REUSE = "reuse"
    HOLD = "hold"
    SKIP = "skip"


class FunctionReason(str, Enum):
    """Why: one code per row of the table."""

    CALLED = "called"
    UPSTREAM_FAILED = "upstream_failed"
    FAILED_UNCHANGED = "failed_unchanged"
    NEVER_CREATED = "never_created"
    CODE_CHANGED = "code_changed"
    SAME_CODE = "same_code"


@dataclass(frozen=True, slots=True)
class FunctionDecision:
    """The decision about one function: the action, and why."""

    action: FunctionAction
    reason: FunctionReason
    message: str

    @property
    def creates(self) -> bool:
        """Whether the function is created."""
        return self.action is FunctionAction.CREATE


@dataclass(frozen=True, slots=True)
class FunctionSituation:
    """All that the decision about one function depends on."""

    now: datetime
    code: str
    """The digest of its fingerprint."""
    state: FunctionState | None = None
    is_current: bool = False
    """Whether the warehouse has it from this very code."""
    called_by: tuple[str, ...] = ()
    """The nodes and tests of the plan that call it."""
    failed_parents: tuple[str, ...] = ()
    """Its parents that fail, or are held or skipped in this plan."""
    labels: Mapping[str, str] = field(default_factory=dict)


def decide_function(s: FunctionSituation) -> FunctionDecision:
    """Return what is done with a function in situation `s`: the first row of the table that matches."""
    # F1
    if s.called_by:
        return _create(FunctionReason.CALLED, f"Called by {named(s.called_by, s.labels)}")
    # F2
    if s.failed_parents:
        message = upstream_failed(s.failed_parents, s.labels)
        return FunctionDecision(FunctionAction.SKIP, FunctionReason.UPSTREAM_FAILED, message)
    # F3
    state = s.state
    if state is not None and state.failed_code == s.code and state.waits(s.now):
        age, wait = format_duration(s.now - state.at), format_duration(state.retry_at - s.now)
        message = f"Failed {age} ago with the same code. Retries in {wait}, or when it changes"
        return FunctionDecision(FunctionAction.HOLD, FunctionReason.FAILED_UNCHANGED, message)
    # F4
    if state is None or not state.code:
        return _create(FunctionReason.NEVER_CREATED, "Not created before in this environment")
    # F5
    if not s.is_current:
        return _create(FunctionReason.CODE_CHANGED, "The warehouse has it from other code")
    # F6
    return FunctionDecision(FunctionAction.REUSE, FunctionReason.SAME_CODE, "Created from the same code")


def decide_functions(  # noqa: PLR0913 (each is an input of the decision)
    project: Project,
    states: Mapping[str, FunctionState],
    now: datetime,
    callers: Iterable[str],
    failed: Collection[str],
    *,
    everything: bool,
) -> dict[str, FunctionDecision]:
    """Return the decisions about functions: about those that `callers` call, or about all of the project.

    `callers` are the nodes that a plan builds and the tests that it runs, `failed` what nothing is built from.
    """
    called: dict[str, list[str]] = {}
    for caller in callers:
        for function in _functions(project, caller):
            called.setdefault(function, []).append(caller)
    return {
        uid: decide_function(
            FunctionSituation(
                now=now,
                code=project.fingerprints[uid].digest,
                state=states.get(uid),
                is_current=project.is_current_function(uid, states.get(uid)),
                called_by=tuple(called.get(uid, ())),
                failed_parents=tuple(parent for parent in function.parents if parent in failed),
                labels=project.labels,
            )
        )
        for uid, function in project.graph.functions.items()
        if everything or uid in called
    }


def _functions(project: Project, caller: str) -> Sequence[str]:
    node = project.graph.nodes.get(caller)
    return node.functions if node is not None else project.graph.tests[caller].functions


def _create(reason: FunctionReason, message: str) -> FunctionDecision:
    return FunctionDecision(FunctionAction.CREATE, reason, message)
