"""Questions that are answered by one text each, a hundred in one `union all`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from dagster_sao.warehouse.errors import StatementError
from dagster_sao.warehouse.queries.batches import ChunkRunner
from dagster_sao.warehouse.session import WarehouseSession

# One UNION ALL of 1000 arms is slower than ten of 100: planning is superlinear (PostgreSQL 8.5 s against 1.1 s).
ARMS_PER_STATEMENT = 100


@dataclass(frozen=True, slots=True)
class Arm:
    """One question with one text as its answer: `select {value} {rest}`."""

    unique_id: str
    database: str
    value: str
    rest: str = ""


class UnionRunner:
    """Answers arms in chunks. Remembers the refused ones, so that they cost others nothing at the next tick."""

    def __init__(self, session: WarehouseSession, *, prepare: Callable[[], None] = lambda: None) -> None:
        """`prepare` is called first on every connection."""
        self._session = session
        self._prepare = prepare
        self._runner: ChunkRunner[Arm, str | None] = ChunkRunner(session, self._begin, size=ARMS_PER_STATEMENT)

    def run(
        self, arms: Sequence[Arm], expired: Callable[[], bool]
    ) -> Iterator[tuple[Arm, str | StatementError | None]]:
        """Yield each arm with its answer, or with its own error. Ends early once `expired()`.

        Nothing is open while it yields. Raises WarehouseError and WarehouseBusyError.
        """
        yield from self._runner.run(arms, expired)

    def _begin(self) -> Callable[[Sequence[Arm]], list[str | None]]:
        self._prepare()
        return self._ask

    def _ask(self, chunk: Sequence[Arm]) -> list[str | None]:
        arms = (f"select {number} as arm, {arm.value} as answer {arm.rest}" for number, arm in enumerate(chunk))
        rows = self._session.execute("\nunion all\n".join(arms))
        answers = {int(row[0]): row[1] for row in rows}
        if len(rows) != len(chunk) or len(answers) != len(chunk):
            msg = f"it returned {len(rows)} rows instead of {len(chunk)}"
            raise StatementError(msg)
        return [None if answers[n] is None else str(answers[n]) for n in range(len(chunk))]
