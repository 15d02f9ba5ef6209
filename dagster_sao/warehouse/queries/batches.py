"""Sends many questions in few statements, and finds the one that the warehouse refuses."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Generic, Protocol, TypeVar

from dagster_sao.warehouse.errors import StatementError, StatementTimeoutError
from dagster_sao.warehouse.queries.parallel import ask_in_rounds
from dagster_sao.warehouse.session import WarehouseSession

# DuckDB's file is locked meanwhile; a thousand small questions take about half a second.
_QUESTIONS_PER_CONNECTION = 1000


class Question(Protocol):
    """A question that can share a statement with others of its database."""

    @property
    def unique_id(self) -> str:
        """The unique id of its source."""
        ...

    @property
    def database(self) -> str:
        """The database that answers it."""
        ...


Q = TypeVar("Q", bound=Question)
A = TypeVar("A")


class ChunkRunner(Generic[Q, A]):
    """Send questions in chunks, one statement each. Refused ones are remembered, so that they do not delay others."""

    def __init__(
        self,
        session: WarehouseSession,
        begin: Callable[[], Callable[[Sequence[Q]], Sequence[A]]],
        *,
        size: int,
    ) -> None:
        """`begin` is called first on every connection; what it returns answers up to `size` questions in their order."""
        self._session = session
        self._begin = begin
        self._size = size
        self._refused: set[str] = set()
        self._slow: set[str] = set()

    def run(self, questions: Sequence[Q], expired: Callable[[], bool]) -> Iterator[tuple[Q, A | StatementError]]:
        """Yield each question with its answer, or with its own error. Ends early once `expired()`.

        Nothing is open while it yields. Raises WarehouseError and WarehouseBusyError, and what `begin` raises.
        """
        waiting = deque(self._chunks(questions))
        most = max(_QUESTIONS_PER_CONNECTION // self._size, 1)
        rounds = ask_in_rounds(self._session, waiting, self._begin, expired, most_per_connection=most)
        for chunk, answers in rounds:
            if not isinstance(answers, StatementError):
                self._refused.difference_update(question.unique_id for question in chunk)
                yield from zip(chunk, answers, strict=True)
            elif len(chunk) == 1:
                self._refused.add(chunk[0].unique_id)
                if isinstance(answers, StatementTimeoutError):
                    self._slow.clear()  # this question made the others slow
                yield chunk[0], answers
            elif isinstance(answers, StatementTimeoutError):
                # Halving would wait for the slow one again at every step, and the next tick from the beginning.
                self._slow.update(question.unique_id for question in chunk)
                waiting.extend([question] for question in chunk)
            else:
                half = len(chunk) // 2
                waiting.extendleft((chunk[half:], chunk[:half]))

    def _chunks(self, questions: Sequence[Q]) -> Iterator[Sequence[Q]]:
        together = [q for q in questions if q.unique_id not in self._refused and q.unique_id not in self._slow]
        # By database: one that is gone must not fail the others, and some warehouses cannot query two at once.
        for _, group in groupby(sorted(together, key=lambda q: q.database), key=lambda q: q.database):
            same = list(group)
            for start in range(0, len(same), self._size):
                yield same[start : start + self._size]
        # A question that hung alone comes last: it may use up the time of a tick.
        yield from ([q] for q in questions if q.unique_id in self._slow - self._refused)
        yield from ([q] for q in questions if q.unique_id in self._refused)
