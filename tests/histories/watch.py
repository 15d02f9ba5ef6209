"""What must never happen, judged from outside: by what was requested, what ran, and what had happened before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime, timedelta

FIRST_WAIT = timedelta(minutes=5)
LONGEST_WAIT = timedelta(hours=6)
# Runs take real seconds, and a moment is read a little before or after the package reads it.
_SLACK = timedelta(seconds=30)
WINDOWED = "t_windowed"


@dataclass(frozen=True)
class EndedRun:
    """What the event log says of a run."""

    is_automated: bool
    started_at: datetime
    ended_at: datetime
    built: AbstractSet[str]
    failed: AbstractSet[str]
    asked: AbstractSet[str] = frozenset()


@dataclass
class _Failures:
    moment: datetime
    count: int
    news: tuple[int, int]


@dataclass
class Watch:
    """Keeps the promises that are about time and about runs; each broken one is an AssertionError."""

    descendants: Callable[[Iterable[str]], AbstractSet[str]]
    build_after: timedelta
    news: Counter[str] = field(default_factory=Counter)
    """How often a node had a reason to be looked at again: recorded news above it, or of its code."""
    built_above: Counter[str] = field(default_factory=Counter)
    advances: int = 0
    requests: dict[str, tuple[int, int]] = field(default_factory=dict)
    failures: dict[str, _Failures] = field(default_factory=dict)
    last_build: EndedRun | None = None
    is_excused: bool = False
    """Whether the windowed model may be built for something other than data."""
    attempts: Counter[str] = field(default_factory=Counter)

    def learned(self, names: Iterable[str]) -> None:
        """Note recorded news of sources or nodes."""
        names = set(names)
        self.news.update(names | self.descendants(names))

    def requested(self, names: AbstractSet[str], unfinished: Iterable[AbstractSet[str]]) -> None:
        """Judge a run that the automation sensor asks for."""
        for other in unfinished:
            assert not names & other, f"two writers: {sorted(names & other)} are in an unfinished run"
        for name in names:
            now = self.news[name], self.advances
            assert self.requests.get(name) != now, f"hot loop: {name} is requested again with nothing new"
            self.requests[name] = now

    def ended(self, run: EndedRun) -> None:
        """Judge a run that has ended."""
        self._judge_window(run)
        for name in run.built - run.failed:
            self.failures.pop(name, None)
        for name in run.failed:
            self._judge_failure(name, run)
        self.built_above.update(self.descendants(run.built))
        if not run.is_automated:
            # Also of what it was interrupted in.
            self.learned(run.built | run.failed | run.asked)

    def _judge_window(self, run: EndedRun) -> None:
        if WINDOWED not in run.built:
            return
        if self.last_build is not None and run.is_automated and not self.is_excused:
            waited = run.ended_at - self.last_build.started_at
            was_set_back = waited <= _SLACK - self.build_after  # the clock: then the wait is over
            assert waited >= self.build_after or was_set_back, f"built inside its window: {waited} after the last build"
        self.last_build, self.is_excused = run, False

    def _judge_failure(self, name: str, run: EndedRun) -> None:
        self.attempts[name] += 1
        news = self.news[name], self.built_above[name]
        before = self.failures.get(name)
        count = 1
        if before is not None and before.news == news and run.is_automated:
            wait = min(FIRST_WAIT * 2 ** (before.count - 1), LONGEST_WAIT)
            waited = run.ended_at - before.moment
            assert waited >= wait - _SLACK, f"hot loop: {name} failed {before.count} times, and again after {waited}"
            count = before.count + 1
        self.failures[name] = _Failures(run.ended_at, count, news)
