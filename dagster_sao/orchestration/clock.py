"""The one clock of this layer. Sensors and runs read it, so that a test can let days pass in a moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone

_NANOSECONDS = 1_000_000_000

_time_ns: Callable[[], int] = time.time_ns


def now() -> datetime:
    """Return the time in UTC."""
    return datetime.fromtimestamp(_time_ns() / _NANOSECONDS, timezone.utc)


def now_ns() -> int:
    """Return the time in nanoseconds since the epoch."""
    return _time_ns()


@contextmanager
def simulated(time_ns: Callable[[], int]) -> Iterator[None]:
    """Read the time from `time_ns` within the block. For tests: it holds for the whole process."""
    global _time_ns  # noqa: PLW0603 (there is one time)
    before, _time_ns = _time_ns, time_ns
    try:
        yield
    finally:
        _time_ns = before
