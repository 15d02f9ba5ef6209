"""The decision table of state-aware orchestration: one function, first match wins.

The rows stand in the order, with the reason codes and the messages, of the project's semantics (docs/semantics.md).
Nothing here reads a clock, a file or a network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum

from dagster_sao.core.code.fingerprint import RELATION_NAME, Fingerprint
from dagster_sao.core.decision.materializations import NodeToBuild, only_at_creation, steps
from dagster_sao.core.decision.messages import (
    NEVER_BUILT,
    failed_ago,
    incomplete,
    named,
    relation_missing,
    relation_moved,
    relation_restored,
    retries,
    upstream_failed,
    upstream_test_failed,
    writer_label,
)
from dagster_sao.core.durations import format_duration, is_waiting
from dagster_sao.core.manifest.build_settings import NO_SETTINGS, BuildSettings
from dagster_sao.core.manifest.policy import CodeChanges, ExternalChanges, OnCodeChange, Policy, UpdatesOn
from dagster_sao.core.manifest.relation_traits import RelationTraits
from dagster_sao.core.state.news import changed_parents, news
from dagster_sao.core.state.state import FailedAttempt, FailureKind, LastBuild, Writer, retry_wait


class Action(str, Enum):
    """The action for a node."""

    BUILD = "build"
    REUSE = "reuse"
    HOLD = "hold"
    SKIP = "skip"


class Reason(str, Enum):
    """Why: one code per row of the table."""

    REQUESTED = "requested"
    UPSTREAM_TEST_FAILED = "upstream_test_failed"
    UPSTREAM_FAILED = "upstream_failed"
    FAILED_UNCHANGED = "failed_unchanged"
    NEVER_BUILT = "never_built"
    RELATION_MISSING = "relation_missing"
    OVERWRITTEN = "overwritten"
    CODE_CHANGED = "code_changed"
    NEEDS_FULL_REFRESH = "needs_full_refresh"
    INCOMPLETE = "incomplete"
    VIEW_INVALIDATED = "view_invalidated"
    VIEW_CURRENT = "view_current"
    EXPIRED = "expired"
    NO_NEW_DATA = "no_new_data"
    WAITING_FOR_ALL = "waiting_for_all"
    OWN_EFFECT = "own_effect"
    TOO_SOON = "too_soon"
    NEW_DATA = "new_data"


class Request(str, Enum):
    """An explicit request of the user."""

    BUILD = "build"
    FULL_REFRESH = "full_refresh"


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision about one node: the action, and why."""

    action: Action
    reason: Reason
    message: str
    parents: tuple[str, ...] = ()
    """The parents that the reason is about, or the tests that hold the node, by unique id."""
    eligible_at: datetime | None = None
    """When a reused or held node can be built with nothing else changing."""
    full_refresh: bool = False
    batches_from: datetime | None = None
    """From which event time on a microbatch model is built; None: from where dbt would begin by itself."""
    is_restored: bool = False
    """Whether a failure would hold it if it were there: a view that is not there, though all that it reads is."""

    @property
    def how(self) -> str:
        """How it is built, empty where that is as dbt does it by itself."""
        if self.batches_from is not None:
            return f"batches from {self.batches_from:%Y-%m-%d %H:%M}"
        return "full refresh" if self.full_refresh else ""

    @property
    def builds(self) -> bool:
        """Whether the node is built."""
        return self.action is Action.BUILD


@dataclass(frozen=True, slots=True)
class Situation:
    """All that the decision about one node depends on."""

    now: datetime
    policy: Policy
    fingerprint: Fingerprint
    last_build: LastBuild | None = None
    code_changes: tuple[str, ...] = ()
    """The names of the parts of its code that differ from the last build."""
    is_view: bool = False
    is_incremental: bool = False
    materialized: str = ""
    traits: RelationTraits = field(default_factory=RelationTraits)
    settings: BuildSettings = NO_SETTINGS
    relation_name: str = ""
    relation_missing: bool = False
    relation_restored: bool = False
    """Whether it comes from an older copy of its database, put back since its last build."""
    relation_moved: bool = False
    """Whether its last build wrote another database."""
    relation_altered: bool = False
    """Whether something else altered its rows, or its view's definition, since its last build."""
    is_deterministic: bool = False
    """Whether building it again makes the rows that its last build made."""
    overwritten_by: Writer | None = None
    """Another writer of its relation since its last build."""
    has_foreign_rows: bool = False
    """Whether another node's rows may be in its relation."""
    has_limited_rows: bool = False
    """Whether those of a limited attempt may be."""
    request: Request | None = None
    failure: FailedAttempt | None = None
    origin: str = ""
    """The digest of all code and data above it (`origins`), where an interrupted attempt is waited for."""
    failed_tests: tuple[str, ...] = ()
    """Tests that gate the node and whose failing verdict stands on the versions that it would read."""
    tests_retry_at: datetime | None = None
    """When all of them can be tried again."""
    failed_parents: tuple[str, ...] = ()
    """Parents that failed, or are held or skipped for a failure."""
    is_lost: bool = False
    """For a view: whether it is not there, or will not be after this plan, though all that it reads is."""
    invalidated_by: tuple[str, ...] = ()
    """For a view, or what is dropped like one: the parents that, when rebuilt, take its definition with them."""
    changed_columns: tuple[str, ...] = ()
    """For what has a stored definition: the parents whose columns differ from those that it is bound to."""
    unknown_columns: tuple[str, ...] = ()
    """The same: the parents whose columns may differ."""
    asked_parents: tuple[str, ...] = ()
    """For a view: the parents that its templates queried, so that its SQL follows from what these held."""
    asks_untracked: bool = False
    """For a view: whether its templates queried inputs whose changes cannot be detected."""
    parent_versions: Mapping[str, str] = field(default_factory=dict)
    """The data version each parent will have after this plan; absent where there is none."""
    moved_in_run: Mapping[str, str] = field(default_factory=dict)
    """The parents that moved during the run of its last build, each with its version at the end of that run."""
    parents: tuple[str, ...] = ()
    untracked: tuple[str, ...] = ()
    """Inputs whose changes cannot be detected, for messages."""
    untracked_from: datetime | None = None
    """When these inputs count as updated."""
    first_change_at: datetime | None = None
    """With `lag_tolerance`: when the first change appeared that the node has not consumed."""
    grace: timedelta = timedelta(0)
    """How much earlier than `build_after` says a job may build: the run before it may have started late."""
    expiry_grace: timedelta = timedelta(0)
    """The same for `rebuild_every`."""
    labels: Mapping[str, str] = field(default_factory=dict)


def decide(s: Situation) -> Decision:
    """Return what is done with a node in situation `s`: the first row of the table that matches, and how it is built."""
    decision = _first_row(s)
    if not decision.builds:
        return decision
    node = NodeToBuild(
        s.materialized,
        s.traits,
        s.settings,
        s.relation_name,
        s.now,
        changes=s.code_changes,
        last_build=s.last_build,
        failure=s.failure,
        has_other_columns=bool(s.changed_columns) and not s.is_view,
        may_have_other_columns=bool(s.unknown_columns) and not s.is_view,
        is_missing=s.relation_missing,
        is_foreign=s.has_foreign_rows,
        has_limited_rows=s.has_limited_rows,
        is_copy=s.relation_restored or s.relation_moved or s.overwritten_by is not None,
        wants_full_refresh=decision.full_refresh,
    )
    needed = steps(node)
    if needed.obstacle:
        return Decision(Action.HOLD, Reason.NEEDS_FULL_REFRESH, needed.obstacle)
    is_restored = s.is_lost and bool(s.failed_tests or s.failed_parents)
    return replace(
        decision, full_refresh=needed.full_refresh, batches_from=needed.batches_from, is_restored=is_restored
    )


def _first_row(s: Situation) -> Decision:
    # 1
    if s.request is not None:
        full = s.request is Request.FULL_REFRESH
        message = "Full refresh requested" if full else "Requested explicitly"
        return Decision(Action.BUILD, Reason.REQUESTED, message, full_refresh=full)
    # 2. A lost view has no rows to keep, and until it is created, everybody who reads it gets an error.
    if s.failed_tests and not s.is_lost:
        message = upstream_test_failed(s.failed_tests, s.labels)
        return Decision(Action.HOLD, Reason.UPSTREAM_TEST_FAILED, message, s.failed_tests, eligible_at=s.tests_retry_at)
    if s.failed_parents and not s.is_lost:
        message = upstream_failed(s.failed_parents, s.labels)
        return Decision(Action.SKIP, Reason.UPSTREAM_FAILED, message, s.failed_parents)
    # 3
    if s.failure is not None and s.failure.waits(s.now) and _is_same_attempt(s, s.failure):
        message = retries(s.failure, s.now)
        return Decision(Action.HOLD, Reason.FAILED_UNCHANGED, message, eligible_at=s.failure.retry_at)
    if s.failure is not None and s.failure.is_limited_again(s.now):
        # Each of its builds is limited, such as by the arguments that all runs have.
        message = f"{incomplete(s.failure, s.now)}. Retries in {format_duration(s.failure.limited_until - s.now)}"
        return Decision(Action.HOLD, Reason.INCOMPLETE, message, eligible_at=s.failure.limited_until)
    # 4
    if s.last_build is None:
        return Decision(Action.BUILD, Reason.NEVER_BUILT, NEVER_BUILT)
    # 5
    if s.relation_missing:
        return Decision(Action.BUILD, Reason.RELATION_MISSING, relation_missing(s.relation_name, s.code_changes))
    changes = s.code_changes
    wants_full = s.is_incremental and s.policy.on_code_change is OnCodeChange.FULL_REFRESH
    full = wants_full and not s.settings.refuses_full_refresh
    # 5b
    if s.overwritten_by is not None:
        return _decide_overwritten(s, s.overwritten_by, full_refresh=full and bool(changes))
    if s.relation_restored or (s.relation_moved and RELATION_NAME not in changes):
        why = relation_restored if s.relation_restored else relation_moved
        return Decision(Action.BUILD, Reason.OVERWRITTEN, why(s.relation_name), full_refresh=full)
    # 6
    if changes and (s.relation_moved or not _code_change_waits(s, s.last_build)):
        message = f"Code changed: {', '.join(changes)}"
        if not full and (settings := only_at_creation(s.materialized, changes)):
            message += f". dbt applies {', '.join(settings)} to {s.relation_name} only with --full-refresh"
        elif wants_full and not full:
            message += ". `full_refresh: false` keeps the rows that its old code built"
        return Decision(Action.BUILD, Reason.CODE_CHANGED, message, full_refresh=full)
    if _failed_with_other_code(s) and not _code_change_waits(s, s.last_build):
        message = "Code changed since a build that failed"
        return Decision(Action.BUILD, Reason.CODE_CHANGED, message, full_refresh=full)
    return _decide_data(s, s.last_build, code_changed=bool(changes))


def _decide_overwritten(s: Situation, writer: Writer, *, full_refresh: bool) -> Decision:
    message = f"{s.relation_name} was overwritten by {writer_label(writer)} in run {writer.run_id[:8]}"
    if writer.waits(s.now):
        message += f", as often before. Built again in {format_duration(writer.retry_at - s.now)}"
        return Decision(Action.HOLD, Reason.OVERWRITTEN, message, eligible_at=writer.retry_at)
    return Decision(Action.BUILD, Reason.OVERWRITTEN, message, full_refresh=full_refresh)


def _decide_data(s: Situation, last_build: LastBuild, *, code_changed: bool) -> Decision:
    # 6c
    if s.failure is not None and s.failure.is_incomplete:
        return Decision(Action.BUILD, Reason.INCOMPLETE, incomplete(s.failure, s.now))
    # 7
    if s.invalidated_by:
        message = f"{_names(s, s.invalidated_by)} was rebuilt"
        return Decision(Action.BUILD, Reason.VIEW_INVALIDATED, message, s.invalidated_by)
    if s.changed_columns:
        message = f"The columns of {_names(s, s.changed_columns)} changed"
        return Decision(Action.BUILD, Reason.VIEW_INVALIDATED, message, s.changed_columns)
    if s.unknown_columns:
        message = f"The columns of {_names(s, s.unknown_columns)} may have changed"
        return Decision(Action.BUILD, Reason.VIEW_INVALIDATED, message, s.unknown_columns)
    is_altered = s.relation_altered and _rebuilds_altered(s)
    if s.is_view and is_altered:
        return Decision(Action.BUILD, Reason.VIEW_INVALIDATED, "Its definition was altered outside of Dagster")
    # The failed attempt may have replaced the rows of the last build: they are not reused just because code and data are
    # again what that build had.
    must_build = code_changed or s.failure is not None or is_altered
    # 8
    if s.is_view and not must_build:
        return _decide_view(s, last_build)
    # 9
    every = s.policy.rebuild_every
    if every is not None and not is_waiting(s.now, last_build.started_at, every - s.expiry_grace):
        message = f"Last built {_age(s, last_build.started_at)} ago. rebuild_every is {format_duration(every)}"
        return Decision(Action.BUILD, Reason.EXPIRED, message)
    expires_at = last_build.started_at + every if every is not None else None
    # 10
    found = news(s.parents, last_build, s.parent_versions, s.moved_in_run, now=s.now)
    changed, stirred = found.changed, found.stirred
    untracked = _untracked_now(s)
    if s.untracked and s.untracked_from is not None and not untracked:
        expires_at = min(expires_at or s.untracked_from, s.untracked_from)
    if stirred and not changed and not untracked and not must_build:
        return _own_effect(s, last_build, stirred, expires_at)
    if not changed and not untracked and not must_build:
        message = "No new changes on any upstreams"
        return Decision(Action.REUSE, Reason.NO_NEW_DATA, message, eligible_at=expires_at)
    # 11
    unchanged = tuple(parent for parent in s.parents if parent not in changed)
    if s.policy.updates_on is UpdatesOn.ALL and unchanged and not must_build:
        message = f"No new changes on all upstreams: waiting for {_names(s, unchanged)}"
        return Decision(Action.REUSE, Reason.WAITING_FOR_ALL, message, unchanged, expires_at)
    # 12. A relation of unknown content does not wait, or its children would be built from it meanwhile.
    if s.failure is None and (too_soon := _too_soon(s, last_build, changed, expires_at)):
        return too_soon
    # 13
    if s.failure is not None and not changed and not untracked:
        return Decision(Action.BUILD, Reason.NEW_DATA, failed_ago(s.failure, s.now))
    if is_altered and not changed and not untracked:
        return Decision(Action.BUILD, Reason.NEW_DATA, "Its rows were altered outside of Dagster")
    names = named([*changed, *untracked], s.labels)
    return Decision(Action.BUILD, Reason.NEW_DATA, f"New changes detected: {names}", changed)


def _decide_view(s: Situation, last_build: LastBuild) -> Decision:
    changed = news(s.asked_parents, last_build, s.parent_versions, s.moved_in_run, now=s.now).changed
    untracked = _untracked_now(s) if s.asks_untracked else ()
    if changed or untracked:
        message = f"New changes detected: {named([*changed, *untracked], s.labels)}, which its SQL is made from"
        return Decision(Action.BUILD, Reason.VIEW_INVALIDATED, message, changed)
    expires_at = s.untracked_from if s.asks_untracked else None
    return Decision(Action.REUSE, Reason.VIEW_CURRENT, "View reads current data", eligible_at=expires_at)


def _untracked_now(s: Situation) -> tuple[str, ...]:
    return s.untracked if s.untracked_from is not None and s.now >= s.untracked_from else ()


def _rebuilds_altered(s: Situation) -> bool:
    asked = s.policy.external_changes
    return asked is ExternalChanges.REBUILD or (asked is None and (s.is_view or s.is_deterministic))


def _own_effect(s: Situation, last_build: LastBuild, parents: tuple[str, ...], expires_at: datetime | None) -> Decision:
    until = last_build.ended_at + min(retry_wait(last_build.stirred[parent]) for parent in parents)
    hooks = (f"its {hook}" for hook in ("post-hook", "pre-hook") if f"config: {hook}" in s.fingerprint.parts)
    message = (
        f"{_names(s, parents)} is changed by the runs of this model itself: {next(hooks, 'on-run-end')}?"
        f" Builds again in {format_duration(until - s.now)}"
    )
    eligible_at = min(until, expires_at) if expires_at else until
    return Decision(Action.REUSE, Reason.OWN_EFFECT, message, parents, eligible_at)


def _is_same_attempt(s: Situation, failure: FailedAttempt) -> bool:
    if failure.kind is not FailureKind.BUILD:
        return bool(s.origin) and s.origin == failure.origin
    return failure.fingerprint == s.fingerprint.digest and not any(
        changed_parents(s.parents, failure.consumed, s.parent_versions)
    )


def _failed_with_other_code(s: Situation) -> bool:
    return s.failure is not None and s.failure.fingerprint not in {"", s.fingerprint.digest}


def _code_change_waits(s: Situation, last_build: LastBuild) -> bool:
    waits = s.policy.code_changes is CodeChanges.RESPECT_BUILD_AFTER and s.policy.build_after is not None
    return waits and is_waiting(s.now, last_build.started_at, _window(s))


def _window(s: Situation) -> timedelta:
    return (s.policy.build_after or timedelta(0)) - s.grace


def _too_soon(
    s: Situation, last_build: LastBuild, changed: tuple[str, ...], expires_at: datetime | None
) -> Decision | None:
    if s.policy.build_after is not None and is_waiting(s.now, last_build.started_at, _window(s)):
        end = last_build.started_at + _window(s)
        message = (
            f"New changes detected. Did not meet build_after of {format_duration(s.policy.build_after)}."
            f" Last updated {_age(s, last_build.started_at)} ago"
        )
    elif s.policy.lag_tolerance and s.first_change_at and is_waiting(s.now, s.first_change_at, s.policy.lag_tolerance):
        end = s.first_change_at + s.policy.lag_tolerance
        message = (
            f"New changes detected. Did not meet lag_tolerance of {format_duration(s.policy.lag_tolerance)}."
            f" First new change {_age(s, s.first_change_at)} ago"
        )
    else:
        return None
    eligible_at = min(end, expires_at) if expires_at else end
    return Decision(Action.REUSE, Reason.TOO_SOON, message, changed, eligible_at)


def _age(s: Situation, moment: datetime) -> str:
    return format_duration(s.now - moment)


def _names(s: Situation, unique_ids: Sequence[str]) -> str:
    return named(unique_ids, s.labels)
