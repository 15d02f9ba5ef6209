"""Which sources a tick probes: those whose new data could lead to a build, not too often, and after a wait if they failed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from dagster_sao.core.durations import doubled, is_waiting
from dagster_sao.core.manifest.policy import SourcePolicy

_FIRST_RETRY = timedelta(seconds=30)
_LONGEST_RETRY = timedelta(minutes=10)


@dataclass
class _Failure:
    message: str
    at: datetime
    wait: timedelta
    count: int = 1


@dataclass
class ProbeSchedule:
    """When to probe each source next. In memory: after a restart, each is probed once more."""

    _asked_at: dict[str, datetime] = field(default_factory=dict)
    _stale_at: dict[str, datetime] = field(default_factory=dict)
    _failures: dict[str, _Failure] = field(default_factory=dict)

    def is_due(self, unique_id: str, policy: SourcePolicy, now: datetime, *, is_wanted: bool) -> bool:
        """Return whether to probe a source at `now`: its new data could lead to a build, or its freshness gets worse."""
        asked_at, failure = self._asked_at.get(unique_id), self._failures.get(unique_id)
        if failure is not None and is_waiting(now, failure.at, failure.wait):
            return False
        if asked_at is None:
            return True
        if policy.probe_every is not None and is_waiting(now, asked_at, policy.probe_every):
            return False
        stale_at = self._stale_at.get(unique_id)
        return is_wanted or failure is not None or (stale_at is not None and now >= stale_at)

    def answered(self, unique_id: str, now: datetime, stale_at: datetime | None = None) -> None:
        """Note that a source was probed, and when its freshness gets worse without new data."""
        self._asked_at[unique_id] = now
        self._failures.pop(unique_id, None)
        self._stale_at.pop(unique_id, None)
        if stale_at is not None:
            self._stale_at[unique_id] = stale_at

    def failed(self, unique_id: str, message: str, now: datetime) -> None:
        """Note that the probe of a source failed: the next one is after 30 seconds, doubling up to 10 minutes."""
        before = self._failures.get(unique_id)
        count = before.count + 1 if before else 1
        self._asked_at[unique_id] = now
        self._failures[unique_id] = _Failure(message, now, doubled(_FIRST_RETRY, count, _LONGEST_RETRY), count)

    def failing(self, unique_ids: Iterable[str]) -> dict[str, str]:
        """Return the last error of each source among `unique_ids` whose probe failed."""
        return {uid: self._failures[uid].message for uid in unique_ids if uid in self._failures}
