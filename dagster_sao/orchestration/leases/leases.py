"""One writer per relation, across runs and processes: a table of leases in the database of the Dagster instance.

A run claims what it is about to build in one transaction, keeps the leases by a heartbeat, and releases each relation when
its build is recorded. It never holds a lease while it waits for another one, so no order of claims can deadlock. The leases
of a killed process expire. So does its sign of life, which shows other processes that it died.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import dagster as dg
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from dagster_sao.core.code.versions import digest
from dagster_sao.orchestration.leases.tables import NOW, TableError, in_parts, open_table, reason_of, retried

LEASE_SECONDS = 60.0
"""How long a lease lasts without a heartbeat."""
HEARTBEAT_SECONDS = 10.0
LEASES_LOST = "The leases of this run ran out, so that another run may be building its models by now."
_SIGN_OF_LIFE = "alive "

T = TypeVar("T")

_LEASES = sa.Table(
    "dagster_sao_leases",
    sa.MetaData(),
    # A digest, since MySQL cannot index longer names.
    sa.Column("relation", sa.String(64), primary_key=True),
    sa.Column("owner", sa.String(64), nullable=False, index=True),
    sa.Column("run_id", sa.String(255), nullable=False),
    sa.Column("expires_at", sa.Float(53), nullable=False),
)

_IS_SIGN = _LEASES.c.relation.like(f"{_SIGN_OF_LIFE}%")


class LeaseError(TableError):
    """The leases cannot be kept, so no run may build anything."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The result of claiming relations."""

    granted: frozenset[str]
    held_by: Mapping[str, str]
    """The relations that another process holds, each with the id of its run."""


class Leases:
    """The leases of one process of a run."""

    def __init__(self, instance: dg.DagsterInstance, run_id: str) -> None:
        """Claim nothing yet. Raises LeaseError when the instance's database cannot keep leases."""
        # Used twice for each node that is built.
        self._engine = open_table(instance, _LEASES, LeaseError, keeps_open=True)
        self._run_id = run_id
        # The retry of a step is another process of the same run.
        self._owner = uuid.uuid4().hex
        self._held: set[str] = set()
        self._signs: set[str] = set()
        self._lock = threading.Lock()

    @property
    def held(self) -> frozenset[str]:
        """The relations that this process holds."""
        return frozenset(self._held)

    def claim(self, relations: Iterable[str]) -> Claim:
        """Claim the relations among `relations` that no other process holds, all in one transaction.

        Raises LeaseError when the database does not answer.
        """
        wanted = sorted(set(relations) - self._held)
        if not wanted:
            return Claim(frozenset(), {})
        claim = _retried(lambda: self._claim_once(wanted))
        with self._lock:
            self._held |= claim.granted
        return claim

    def holders(self, relations: Iterable[str]) -> Mapping[str, str]:
        """Return the relations that another process holds, each with the id of its run."""
        return _retried(lambda: self._holders_once(sorted(set(relations) - self._held)))

    def renew(self) -> bool:
        """Extend the leases that are held. Returns False when another process has taken some of them."""
        with self._lock:
            kept = self._held | self._signs
            return self._renew(sorted(kept))

    def keep(self, relations: Iterable[str]) -> bool:
        """Renew the leases among `relations` that are held. Returns False when another process has taken some of them.

        Called before dbt starts and before a build is recorded: a process that was frozen may not have noticed yet that its
        leases expired. Raises LeaseError when the database does not answer.
        """
        kept = sorted(self._held.intersection(relations))
        return _retried(lambda: self._renew(kept))

    @property
    def owner(self) -> str:
        """The id of this process among all that hold leases."""
        return self._owner

    def write(self, relations: Collection[str], action: Callable[[sa.Connection], None]) -> None:
        """Run an action in a transaction in which this process holds `relations`.

        Raises LeaseError when it has lost one of them, or the database does not answer.
        """

        def write_once() -> bool:
            with self._engine.begin() as connection:
                is_held = self._renew_in(connection, sorted(relations))
                if is_held:
                    action(connection)
                return is_held

        if not _retried(write_once):
            raise LeaseError(LEASES_LOST)

    def release(
        self,
        relations: Iterable[str] | None = None,
        *,
        then: Callable[[sa.Connection, Collection[str]], None] | None = None,
    ) -> None:
        """Release `relations`, by default all that are held. A lease that cannot be released expires.

        Calls `then` in the same transaction, with the relations that this process still held.
        """
        given = sorted(self._held if relations is None else self._held & set(relations))
        with self._lock:
            self._held -= set(given)
        if not given:
            return
        try:
            with self._engine.begin() as connection:
                released: set[str] = set()
                for part in in_parts(given):
                    # If one lease was lost, the others of this part do not count as held either.
                    if connection.execute(sa.delete(_LEASES).where(self._mine(part))).rowcount == len(part):
                        released.update(part)
                if then is not None:
                    then(connection, released)
        except SQLAlchemyError:
            return

    @contextmanager
    def heartbeat(
        self, lost: Callable[[str], None], *, step_key: str = "", renewed: Callable[[], None] = lambda: None
    ) -> Iterator[None]:
        """Renew the leases and the step's sign of life while the block runs, and release the leases at its end.

        The sign of life is left to expire: the process may be killed before Dagster records that the step has ended.

        Calls `lost` with a sentence, in another thread, once the leases cannot be kept: then nothing more may be written.
        Calls `renewed` in that thread after each renewal.
        Raises LeaseError when the database does not answer at the start.
        """
        sign = sign_of_life(self._run_id, step_key)
        _retried(lambda: self._show(sign))
        self._signs = {sign}
        ended = threading.Event()
        thread = threading.Thread(
            target=self._beat, args=(ended, lost, renewed), name="dagster_sao-leases", daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self.release()
            self._engine.dispose()

    def _beat(self, ended: threading.Event, lost: Callable[[str], None], renewed: Callable[[], None]) -> None:
        renewed_at = time.monotonic()
        while not ended.wait(HEARTBEAT_SECONDS):
            try:
                if not self.renew():
                    lost(LEASES_LOST)
                    return
                renewed_at = time.monotonic()
                renewed()
            except SQLAlchemyError as error:
                # Stop before they expire: dbt must have ended by then.
                if time.monotonic() - renewed_at >= LEASE_SECONDS / 2:
                    lost(f"The leases cannot be renewed in the Dagster instance's database: {reason_of(error)}")
                    return

    def _renew(self, kept: list[str]) -> bool:
        if not kept:
            return True
        with self._engine.begin() as connection:
            return self._renew_in(connection, kept)

    def _renew_in(self, connection: sa.Connection, kept: list[str]) -> bool:
        until, renewed = _now(connection) + LEASE_SECONDS, 0
        for part in in_parts(kept):
            # Only these leases: one that could not be released is to expire.
            renewal = sa.update(_LEASES).where(self._mine(part)).values(expires_at=until)
            renewed += connection.execute(renewal).rowcount
        return renewed == len(kept)

    def _mine(self, relations: Sequence[str]) -> sa.ColumnElement[bool]:
        return sa.and_(_LEASES.c.owner == self._owner, _LEASES.c.relation.in_(relations))

    def _show(self, sign: str) -> None:
        with self._engine.begin() as connection:
            # Replace the sign of an earlier attempt.
            connection.execute(sa.delete(_LEASES).where(_LEASES.c.relation == sign))
            self._insert(connection, [sign], _now(connection))

    def _claim_once(self, wanted: list[str]) -> Claim:
        with self._engine.begin() as connection:
            # Begin with a write: on SQLite it locks out every other writer until the end of the transaction.
            now = _now(connection)
            connection.execute(sa.delete(_LEASES).where(_LEASES.c.expires_at < now, ~_IS_SIGN))
            _cap(connection, now)
            taken = dict(_rows(connection, wanted))
            free = [relation for relation in wanted if relation not in taken]
            for part in in_parts(free):
                self._insert(connection, part, now)
        return Claim(frozenset(free), taken)

    def _insert(self, connection: sa.Connection, relations: Sequence[str], now: float) -> None:
        lease = {"owner": self._owner, "run_id": self._run_id, "expires_at": now + LEASE_SECONDS}
        connection.execute(sa.insert(_LEASES), [{"relation": relation, **lease} for relation in relations])

    def _holders_once(self, relations: list[str]) -> Mapping[str, str]:
        with self._engine.begin() as connection:
            now = _now(connection)
            _cap(connection, now)
            return dict(_rows(connection, relations, after=now))


def sign_of_life(run_id: str, step_key: str) -> str:
    """Return the key that a step of a run holds from its beginning to its end."""
    return _SIGN_OF_LIFE + digest([run_id, step_key])


def lapsed_signs(instance: dg.DagsterInstance) -> Mapping[str, str]:
    """Return the signs of life that were not renewed for two minutes, each with the id of its run.

    By then the process is dead, or has noticed that it lost its leases. Raises LeaseError as `Leases` does.
    """

    def read() -> Mapping[str, str]:
        with open_table(instance, _LEASES, LeaseError).begin() as connection:
            now = _now(connection)
            _cap(connection, now)
            is_lapsed = sa.and_(_IS_SIGN, _LEASES.c.expires_at < now - LEASE_SECONDS)
            found = connection.execute(sa.select(_LEASES.c.relation, _LEASES.c.run_id).where(is_lapsed))
            return {str(sign): str(run_id) for sign, run_id in found}

    return _retried(read)


def is_held(connection: sa.Connection, lease: sa.Column[str], owner: sa.Column[str]) -> sa.ColumnElement[bool]:
    """Return, for a query of another table on `connection`, whether an owner holds a lease."""
    is_this = sa.and_(_LEASES.c.relation == lease, _LEASES.c.owner == owner, _LEASES.c.expires_at >= _now(connection))
    return sa.exists().where(is_this)


def forget_sign(instance: dg.DagsterInstance, sign: str) -> None:
    """Delete a sign of life. Raises LeaseError as `Leases` does."""

    def delete() -> None:
        with open_table(instance, _LEASES, LeaseError).begin() as connection:
            connection.execute(sa.delete(_LEASES).where(_LEASES.c.relation == sign))

    _retried(delete)


def _cap(connection: sa.Connection, now: float) -> None:
    """Shorten every lease that would outlast a new one, because the clock was set back after it was claimed."""
    latest = now + LEASE_SECONDS
    connection.execute(sa.update(_LEASES).where(_LEASES.c.expires_at > latest).values(expires_at=latest))


def _rows(connection: sa.Connection, relations: list[str], *, after: float = 0.0) -> Iterator[tuple[str, str]]:
    for part in in_parts(relations):
        wanted = sa.and_(_LEASES.c.relation.in_(part), _LEASES.c.expires_at >= after)
        found = connection.execute(sa.select(_LEASES.c.relation, _LEASES.c.run_id).where(wanted))
        yield from ((str(relation), str(run_id)) for relation, run_id in found)


def _now(connection: sa.Connection) -> float:
    return float(connection.execute(sa.text(NOW[connection.dialect.name])).scalar_one())


def _retried(action: Callable[[], T]) -> T:
    return retried(action, "The leases cannot be taken", LeaseError)
