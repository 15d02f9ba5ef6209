"""Which of a project's two sensors probes: with the automation sensor, new data leads to a run in the same tick.

Both share a process. So the freshness sensor leaves the probing to the automation sensor while that one ticks at least as
often, and probes itself while it does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from dagster_sao.core.durations import is_waiting

_MISSED_TICKS = 3
"""A sensor that has not ticked for this many of its intervals counts as switched off."""


@dataclass
class ProbingTurns:
    """Whose turn it is to probe. In memory: after a restart, the freshness sensor probes first."""

    interval: timedelta
    """How often the freshness sensor probes."""
    probed_at: datetime | None = None
    _ticked_at: datetime | None = None
    _planner_ticked_at: datetime | None = None
    _planner_every: timedelta = timedelta(0)

    def is_freshness_turn(self, now: datetime) -> bool:
        """Return whether the freshness sensor, which ticks `now`, probes."""
        self._ticked_at = now
        # A sensor that plans less often than sources are to be probed cannot do it alone.
        if self._planner_every > self.interval or not _is_on(self._planner_ticked_at, self._planner_every, now):
            return True
        return self.probed_at is None or not is_waiting(now, self.probed_at, self.interval + self._planner_every)

    def is_planner_turn(self, now: datetime, every: timedelta) -> bool:
        """Return whether the automation sensor, which ticks `now` and after `every` again, probes before it plans."""
        self._planner_ticked_at, self._planner_every = now, every
        if not _is_on(self._ticked_at, self.interval, now):
            return False
        # The next tick would be too late, or the clock was set back.
        return self.probed_at is None or now + every > self.probed_at + self.interval or now < self.probed_at


def _is_on(ticked_at: datetime | None, every: timedelta, now: datetime) -> bool:
    return ticked_at is not None and is_waiting(now, ticked_at, _MISSED_TICKS * every)
