"""Time that passes when a test says so: for the package, for Dagster's event log and run storage."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta, timezone
from unittest.mock import patch

from dagster._core.test_utils import get_freezable_log_manager

from dagster_sao.orchestration import clock

_NS = 1_000_000_000


class SimulatedTime:
    """The real time, moved on by what was added to it. So it goes on by itself, and never stands still."""

    def __init__(self) -> None:
        self.offset = timedelta()

    def now(self) -> datetime:
        return datetime.now(timezone.utc) + self.offset

    def time_ns(self) -> int:
        return time.time_ns() + int(self.offset.total_seconds() * _NS)

    def advance(self, duration: timedelta) -> None:
        self.offset += duration

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Let the package and Dagster live in this time."""
        with ExitStack() as stack:
            stack.enter_context(clock.simulated(self.time_ns))
            stack.enter_context(patch("dagster._time._mockable_get_current_datetime", self.now))
            stack.enter_context(patch("dagster._time._mockable_get_current_timestamp", lambda: self.now().timestamp()))
            stack.enter_context(patch("dagster._core.log_manager.DagsterLogManager", get_freezable_log_manager()))
            yield
