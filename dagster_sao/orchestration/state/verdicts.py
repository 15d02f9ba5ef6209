"""The verdicts of tests, in a table of the Dagster instance's database.

They are state, not history: one row per test and environment, which outlives its run and does not depend on asset checks.
Each write gives a row a new number, so a process that has read the table once reads only new rows.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping
from typing import Any

import dagster as dg
import sqlalchemy as sa

from dagster_sao.core.code.versions import digest
from dagster_sao.core.state.state import Verdict
from dagster_sao.orchestration.events.record_json import verdict_from_json, verdict_to_json
from dagster_sao.orchestration.leases.tables import TableError, find_table, open_table, replace_rows, retried

# A row with a lower number may be committed after one with a higher number.
_OVERLAP = 200
_TEST = "test"

_VERDICTS = sa.Table(
    "dagster_sao_verdicts",
    sa.MetaData(),
    sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    # Digests: MySQL cannot index long texts.
    sa.Column("scope", sa.String(64), nullable=False, index=True),
    sa.Column("test_key", sa.String(64), nullable=False, unique=True),
    sa.Column("record", sa.Text, nullable=False),
    # Without it SQLite gives the number of a deleted row again.
    sqlite_autoincrement=True,
)


class VerdictError(TableError):
    """The verdicts of tests cannot be stored."""


class VerdictTable:
    """The verdicts of one project and environment, kept up to date by reading new rows."""

    def __init__(self, instance: dg.DagsterInstance, state_name: str) -> None:
        """Read nothing yet. `state_name` tells the project and its environment from others."""
        self._instance = instance
        self._scope = digest(["verdicts", state_name])
        self._engine: sa.Engine | None = None
        self._known: dict[str, Verdict] = {}
        self._read: dict[int, None] = {}
        """The numbers of the newest rows that were read."""

    def prepare(self) -> None:
        """Create the table when it is missing. Raises VerdictError when that is not allowed."""
        open_table(self._instance, _VERDICTS, VerdictError)

    def read(self) -> Mapping[str, Verdict]:
        """Return all verdicts by test. Raises VerdictError."""
        if self._engine is None:
            self._engine = find_table(self._instance, _VERDICTS)
        engine = self._engine
        if engine is not None:
            for number, record in retried(lambda: self._new_rows(engine), "The verdicts cannot be read", VerdictError):
                self._read[number] = None
                self._absorb(json.loads(record))
            self._read = dict.fromkeys(sorted(self._read)[-_OVERLAP:])
        return dict(self._known)

    def start_anew(self) -> None:
        """Read everything the next time: a row that was committed late may have been passed over."""
        self._known, self._read = {}, {}

    def write(self, verdicts: Mapping[str, Verdict], known_tests: Container[str] | None = None) -> None:
        """Write verdicts in the place of the former ones of their tests. Raises VerdictError.

        With other arguments a generic test has another unique id, but the same name, under which Dagster shows it. So the
        verdicts of namesakes that are not among the project's `known_tests` are removed: if one comes back, it is run again,
        and Dagster shows its own answer.
        """
        records: dict[str, Mapping[str, Any]] = {}
        if verdicts and known_tests is not None:
            names = {_name(uid) for uid in verdicts}
            records = {uid: {_TEST: uid} for uid in self.read() if uid not in known_tests and _name(uid) in names}
        self._replace({**records, **{uid: {_TEST: uid, **verdict_to_json(v)} for uid, v in verdicts.items()}})

    def forget(self, tests: Iterable[str]) -> None:
        """Remove the verdicts of tests, which then count as never run. Raises VerdictError."""
        self._replace({uid: {_TEST: uid} for uid in tests})

    def _new_rows(self, engine: sa.Engine) -> list[tuple[int, str]]:
        newest = max(self._read, default=0)
        with engine.connect() as connection:
            is_ours = _VERDICTS.c.scope == self._scope
            last: int | None = connection.execute(
                sa.select(sa.func.max(_VERDICTS.c.number)).where(is_ours)
            ).scalar_one()
            last = last or 0
            if last < newest:  # somebody emptied the table, or put another database in its place
                self.start_anew()
                newest = 0
            if last == newest:
                return []
            is_new = sa.and_(is_ours, _VERDICTS.c.number > newest - _OVERLAP)
            found = connection.execute(sa.select(_VERDICTS.c.number, _VERDICTS.c.record).where(is_new))
            return sorted((row.number, row.record) for row in found if row.number not in self._read)

    def _absorb(self, record: Mapping[str, Any]) -> None:
        verdict = verdict_from_json(record)
        if verdict is None:
            self._known.pop(record[_TEST], None)
        else:
            self._known[record[_TEST]] = verdict

    def _replace(self, records: Mapping[str, Mapping[str, Any]]) -> None:
        if not records:
            return
        engine = open_table(self._instance, _VERDICTS, VerdictError)
        rows = [
            {"scope": self._scope, "test_key": digest([self._scope, uid]), "record": json.dumps(record)}
            for uid, record in sorted(records.items())
        ]

        def write_once() -> None:
            with engine.begin() as connection:
                replace_rows(connection, _VERDICTS, _VERDICTS.c.test_key, rows)

        retried(write_once, "The verdicts of tests cannot be stored", VerdictError)


def _name(unique_id: str) -> str:
    """Return the common part of the unique ids of a generic test, whatever its arguments."""
    return unique_id.rsplit(".", 1)[0]
