"""Send independent questions over several connections at once. Nothing here knows sources or SQL."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

from dagster_sao.warehouse.errors import StatementError, WarehouseError
from dagster_sao.warehouse.session import WarehouseSession

Q = TypeVar("Q")
A = TypeVar("A")

_Answers = Sequence[tuple[Q, A | StatementError]]


def ask_in_rounds(
    session: WarehouseSession,
    waiting: deque[Q],
    begin: Callable[[], Callable[[Q], A]],
    expired: Callable[[], bool],
    *,
    most_per_connection: int | None = None,
) -> Iterator[tuple[Q, A | StatementError]]:
    """Yield the questions in `waiting` with their answers, or with their own error. Nothing is open meanwhile.

    In a round as many connections as the session may have take questions from the left, each until none is left, one
    fails or it has had `most_per_connection`. The caller may put more into `waiting` while it has an answer. `begin` is
    called first on every connection, and returns what asks a question with it.
    Ends early, between two questions, once `expired()`. Raises WarehouseError and WarehouseBusyError when no connection
    can be had, and what `begin` raises, after the answers of the other connections.
    """

    def one_connection() -> _Answers[Q, A]:
        answers: list[tuple[Q, A | StatementError]] = []
        with session.connection():
            ask = begin()
            while len(answers) != most_per_connection and not (answers and expired()):
                try:
                    question = waiting.popleft()
                except IndexError:  # another connection took the last
                    break
                try:
                    answers.append((question, ask(question)))
                except StatementError as error:
                    answers.append((question, error))
                    break  # a failed statement may spoil the connection, as it does PostgreSQL's transaction
        return answers

    while waiting and not expired():
        count = min(session.connections, len(waiting))
        if count == 1:
            yield from one_connection()
        else:
            yield from _results(_at_once(one_connection, count, waiting))


def _at_once(work: Callable[[], _Answers[Q, A]], count: int, waiting: deque[Q]) -> list[Future[_Answers[Q, A]]]:
    with ThreadPoolExecutor(count, thread_name_prefix="dagster_sao") as pool:
        futures = [pool.submit(work) for _ in range(count)]
        try:
            wait(futures)
        except BaseException:
            waiting.clear()  # an interrupted run waits for the statements under way, and for no others
            raise
    return futures


def _results(futures: Sequence[Future[_Answers[Q, A]]]) -> Iterator[tuple[Q, A | StatementError]]:
    errors = [error for future in futures if (error := future.exception()) is not None]
    for future in futures:
        if future.exception() is None:
            yield from future.result()
    for error in errors:
        # If the server refuses one connection while another works, nothing failed: the questions are still waiting.
        if len(errors) == len(futures) or not isinstance(error, WarehouseError):
            raise error
