"""The decision table of tests: one function, first match wins, one row per line of docs/semantics.md.

A test's answer depends on its own code and on the versions of what it reads: the same two things as a model's rows.
Nothing here reads a clock, a file or a network.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum

from dagster_sao.core.decision.messages import named, upstream_failed
from dagster_sao.core.durations import format_duration, grace_of_job, is_waiting
from dagster_sao.core.state.state import Verdict, VerdictStatus

_PAST = {
    VerdictStatus.PASS: "Passed",
    VerdictStatus.WARN: "Warned",
    VerdictStatus.FAIL: "Failed",
    VerdictStatus.ERROR: "Failed",
}


class TestAction(str, Enum):
    """The action for a test."""

    __test__ = False  # pytest takes it for a test otherwise

    RUN = "run"
    REUSE = "reuse"
    SKIP = "skip"


class TestReason(str, Enum):
    """Why: one code per row of the table."""

    __test__ = False

    REQUESTED = "requested"
    UPSTREAM_FAILED = "upstream_failed"
    NEVER_RUN = "never_run"
    TEST_CHANGED = "test_changed"
    INCOMPLETE = "incomplete"
    NEW_DATA = "new_data"
    VOLATILE = "volatile"
    RETRY = "retry"
    TOO_SOON = "too_soon"
    SAME_DATA = "same_data"


@dataclass(frozen=True, slots=True)
class TestDecision:
    """The decision about one test: the action, and why."""

    __test__ = False

    action: TestAction
    reason: TestReason
    message: str
    reads: tuple[str, ...] = ()
    """The nodes and sources that the reason is about, by unique id."""
    eligible_at: datetime | None = None
    """When a reused test can be run with nothing else changing."""

    @property
    def runs(self) -> bool:
        """Whether the test is run."""
        return self.action is TestAction.RUN


@dataclass(frozen=True, slots=True)
class TestSituation:
    """All that the decision about one test depends on."""

    __test__ = False

    now: datetime
    verdict: Verdict | None = None
    code_changes: tuple[str, ...] = ()
    """The names of the parts of its code that differ from the verdict."""
    reads: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    """The data version of each thing that it reads after this plan; absent where there is none."""
    failed_reads: tuple[str, ...] = ()
    """Its parents that fail, or are held or skipped in this plan."""
    is_requested: bool = False
    is_volatile: bool = False
    is_untracked: bool = False
    """Whether it reads inputs whose changes cannot be detected."""
    untracked_interval: timedelta = timedelta(hours=1)
    gates_a_build: bool = False
    """Whether something that is built in this plan waits for its answer."""
    build_after: Mapping[str, timedelta] = field(default_factory=dict)
    """For each view that it reads and that has one: how often its tests may run for new data."""
    in_job: bool = False
    """Whether a job decides: it may run a test a little earlier than after `build_after`."""
    built_since: Collection[str] = ()
    """The views that it reads and that were built after the verdict, or are built in this plan."""
    labels: Mapping[str, str] = field(default_factory=dict)


def decide_test(s: TestSituation) -> TestDecision:
    """Return what is done with a test in situation `s`: the first row of the table that matches."""
    # T1
    if s.is_requested:
        return _run(TestReason.REQUESTED, "Requested explicitly")
    # T2
    if s.failed_reads:
        message = upstream_failed(s.failed_reads, s.labels)
        return TestDecision(TestAction.SKIP, TestReason.UPSTREAM_FAILED, message, s.failed_reads)
    # T3
    if s.verdict is None:
        return _run(TestReason.NEVER_RUN, "Not run before in this environment")
    # T4
    if s.code_changes:
        return _run(TestReason.TEST_CHANGED, f"Test changed: {', '.join(s.code_changes)}")
    # T4b
    if s.verdict.limited_by:
        return _after_limited(s, s.verdict)
    # T5
    changed = changed_reads(s.reads, s.verdict, s.versions)
    wait = _wait(s, s.verdict, changed) if changed else None
    if changed and wait is None:
        return _run(TestReason.NEW_DATA, f"New data in {named(changed, s.labels)}", changed)
    # T6
    age = s.now - s.verdict.at
    if (s.is_volatile or s.is_untracked) and not is_waiting(s.now, s.verdict.at, s.untracked_interval):
        what = "Reads the clock" if s.reads and not s.is_untracked else "Reads what dbt does not know"
        return _run(TestReason.VOLATILE, f"{what}; last run {format_duration(age)} ago")
    # T7
    if s.verdict.is_failing and not s.verdict.waits(s.now):
        return _run(TestReason.RETRY, f"Failed {format_duration(age)} ago")
    # T8
    if wait is not None:
        message = (
            f"New data in {named(changed, s.labels)}. Did not meet build_after of {format_duration(wait)}."
            f" Last run {format_duration(age)} ago"
        )
        return TestDecision(
            TestAction.REUSE, TestReason.TOO_SOON, message, changed, s.verdict.at + wait - _grace(s, wait)
        )
    return reuse(s.verdict, s.now, _eligible_at(s, s.verdict))


def _after_limited(s: TestSituation, verdict: Verdict) -> TestDecision:
    """Return the decision about a test that read a part of the rows: it is run, a sensor waits where that goes on."""
    message = f"Its last answer was limited by {verdict.limited_by} {format_duration(s.now - verdict.at)} ago"
    if verdict.attempts == 1 or s.in_job or s.gates_a_build or not verdict.waits(s.now):
        return _run(TestReason.INCOMPLETE, message)
    wait = format_duration(verdict.retry_at - s.now)
    return TestDecision(
        TestAction.REUSE, TestReason.INCOMPLETE, f"{message}. Retries in {wait}", eligible_at=verdict.retry_at
    )


def changed_reads(reads: Sequence[str], verdict: Verdict, versions: Mapping[str, str]) -> tuple[str, ...]:
    """Return the nodes and sources in `reads` whose version differs from the one in the verdict.

    Here, unlike with a node's parents, a version that is no longer known is another one: the test is cheap to run again.
    """
    known = verdict.versions
    return tuple([read for read in reads if versions.get(read) != known.get(read)])


def reuse(verdict: Verdict, now: datetime, eligible_at: datetime | None = None) -> TestDecision:
    """Return the decision about a test whose verdict stands: the last row."""
    message = f"{_PAST[verdict.status]} {format_duration(now - verdict.at)} ago on the same code and data"
    return TestDecision(TestAction.REUSE, TestReason.SAME_DATA, message, eligible_at=eligible_at)


def _run(reason: TestReason, message: str, reads: tuple[str, ...] = ()) -> TestDecision:
    return TestDecision(TestAction.RUN, reason, message, reads)


def _wait(s: TestSituation, verdict: Verdict, changed: Sequence[str]) -> timedelta | None:
    """Return the shortest `build_after` that new data waits for, None when some of it does not wait.

    Nothing is built on the data before its test.
    """
    if s.gates_a_build:
        return None
    waits = [s.build_after[read] for read in changed if read in s.build_after and read not in s.built_since]
    if len(waits) < len(changed):
        return None
    wait = min(waits)
    return wait if is_waiting(s.now, verdict.at, wait - _grace(s, wait)) else None


def _grace(s: TestSituation, wait: timedelta) -> timedelta:
    return grace_of_job(wait) if s.in_job else timedelta(0)


def _eligible_at(s: TestSituation, verdict: Verdict) -> datetime | None:
    moments = [verdict.retry_at] if verdict.is_failing else []
    if s.is_volatile or s.is_untracked:
        moments.append(verdict.at + s.untracked_interval)
    return min(moments, default=None)
