"""Waiting for something to become true, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

INTERVAL_SECONDS = 0.25


def wait_for(what: str, probe: Callable[[], T | None], *, seconds: float, details: Callable[[], str] = str) -> T:
    """Return the first answer of `probe` that is true. Raises AssertionError, with `details`, at the deadline."""
    deadline = time.monotonic() + seconds
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() >= deadline:
            msg = f"Waited {seconds:.0f} s in vain for {what}. {details()}"
            raise AssertionError(msg)
        time.sleep(INTERVAL_SECONDS)
