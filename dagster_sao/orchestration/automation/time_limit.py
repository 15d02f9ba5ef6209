"""A time limit for the decision of a tick: Dagster's daemon waits for a tick for a minute, unless it is told another time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextvars import copy_context
from typing import TypeVar

_T = TypeVar("_T")


class TooLateError(Exception):
    """There is no decision in time."""


class TimeLimit:
    """Lets one decision at a time be made in a thread of its own. A decision that comes too late still ends as it would."""

    def __init__(self, seconds: float) -> None:
        """Decide nothing yet."""
        self._seconds = seconds
        self._is_busy = threading.Lock()

    def decide(self, make: Callable[[], _T]) -> _T:
        """Return what `make` returns, or raise what it raises.

        Raises TooLateError when it takes longer than the limit, or while an earlier decision is still being made.
        """
        if not self._is_busy.acquire(blocking=False):
            msg = "an earlier tick is still deciding"
            raise TooLateError(msg)
        answer: Future[_T] = Future()
        thread = threading.Thread(target=copy_context().run, args=(self._answer, make, answer), daemon=True)
        thread.start()
        try:
            return answer.result(self._seconds)
        except FutureTimeoutError:
            msg = f"there was no decision within {self._seconds:g} seconds"
            raise TooLateError(msg) from None

    def _answer(self, make: Callable[[], _T], answer: Future[_T]) -> None:
        try:
            found = make()
        except BaseException as error:  # noqa: BLE001 (it is raised where the answer is waited for)
            self._is_busy.release()
            answer.set_exception(error)
        else:
            self._is_busy.release()
            answer.set_result(found)
