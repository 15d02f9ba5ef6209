"""Which of a project's two sensors probes: with the automation sensor, new data leads to a run in the same tick.

Both share a process. So the freshness sensor leaves the probing to the automation sensor while that one ticks at least as
often, and probes itself while it does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

_MISSED_TICKS = 3
"""A sensor that has not ticked for this many of its intervals counts as switched off."""


@dataclass
class ProbingTurns:
    """Whose turn it is to probe. In memory: after a restart, the freshness sensor probes first."""

    interval: timedelta
    """How often the freshness sensor probes."""
    probed_at: datetime | None = None
    _is_on_until: datetime | None = None
    _planner_until: datetime | None = None
    _planner_every: timedelta = timedelta(0)

    def is_freshness_turn(self, now: datetime) -> bool:
        """Return whether the freshness sensor, which ticks `now`, probes."""
        self._is_on_until = now + _MISSED_TICKS * self.interval
        if self.probed_at is None or self._planner_until is None or now >= self._planner_until:
            return True
        return now >= self.probed_at + self.interval + self._planner_every

    def is_planner_turn(self, now: datetime, every: timedelta) -> bool:
        """Return whether the automation sensor, which ticks `now` and after `every` again, probes before it plans."""
        self._planner_every = every
        # A sensor that plans less often than sources are to be probed cannot do it alone.
        self._planner_until = now + _MISSED_TICKS * every if every <= self.interval else None
        if self._is_on_until is None or now >= self._is_on_until:
            return False
        # The next tick would be too late.
        return self.probed_at is None or now + every > self.probed_at + self.interval
