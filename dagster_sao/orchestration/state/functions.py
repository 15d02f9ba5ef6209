"""User-defined functions in a run: which ones dbt has created, and the code of each function in the warehouse.

The code is kept in a table of the Dagster instance's database, since a function has no asset whose events could hold it. It
is unknown from the moment before dbt replaces a function until dbt has reported the result. After a run whose options change
what the SQL of the function reads, it stays unknown.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Any

import dagster as dg
import sqlalchemy as sa

from dagster_sao.core.code.versions import digest
from dagster_sao.core.project import Project
from dagster_sao.core.state.state import FunctionState
from dagster_sao.orchestration import clock
from dagster_sao.orchestration.events.record_json import function_from_json, function_to_json
from dagster_sao.orchestration.leases.tables import TableError, find_table, open_table, replace_rows, retried

_FUNCTION = "function"

_FUNCTIONS = sa.Table(
    "dagster_sao_functions",
    sa.MetaData(),
    # Digests: MySQL cannot index long texts.
    sa.Column("function_key", sa.String(64), primary_key=True),
    sa.Column("scope", sa.String(64), nullable=False, index=True),
    sa.Column("record", sa.Text, nullable=False),
)


class FunctionTableError(TableError):
    """The state of functions cannot be kept."""


class FunctionTable:
    """The state of the functions of one project and environment."""

    def __init__(self, instance: dg.DagsterInstance, state_name: str) -> None:
        """Read nothing yet. `state_name` tells the project and its environment from others."""
        self._instance = instance
        self._scope = digest(["functions", state_name])
        self._engine: sa.Engine | None = None

    def read(self) -> Mapping[str, FunctionState]:
        """Return the state of each function that was ever written. Raises FunctionTableError."""
        if self._engine is None:
            self._engine = find_table(self._instance, _FUNCTIONS)
        engine = self._engine
        if engine is None:
            return {}
        records = [
            json.loads(record)
            for record in retried(lambda: self._rows(engine), "The functions cannot be read", FunctionTableError)
        ]
        states = {record[_FUNCTION]: function_from_json(record) for record in records}
        return {uid: state for uid, state in states.items() if state is not None}

    def write(self, states: Mapping[str, FunctionState]) -> None:
        """Keep the state of functions. Raises FunctionTableError."""
        if not states:
            return
        engine = open_table(self._instance, _FUNCTIONS, FunctionTableError)
        rows = [
            {
                "scope": self._scope,
                "function_key": digest([self._scope, uid]),
                "record": json.dumps({_FUNCTION: uid, **function_to_json(state)}),
            }
            for uid, state in sorted(states.items())
        ]

        def write_once() -> None:
            with engine.begin() as connection:
                replace_rows(connection, _FUNCTIONS, _FUNCTIONS.c.function_key, rows)

        retried(write_once, "The functions cannot be stored", FunctionTableError)

    def forget(self) -> None:
        """Note that it is not known from which code the warehouse has any function. Raises FunctionTableError."""
        self.write({uid: replace(known, code="") for uid, known in self.read().items() if known.code})

    def _rows(self, engine: sa.Engine) -> list[Any]:
        with engine.connect() as connection:
            found = connection.execute(sa.select(_FUNCTIONS.c.record).where(_FUNCTIONS.c.scope == self._scope))
            return list(found.scalars())


class RunFunctions:
    """The functions of one run."""

    def __init__(
        self, table: FunctionTable, project: Project, run_id: str, with_other_sql: AbstractSet[str] = frozenset()
    ) -> None:
        """Begin with none created. dbt creates the functions in `with_other_sql` with other SQL than their code has."""
        self._table, self._project, self._run_id, self._with_other_sql = table, project, run_id, with_other_sql
        self._states: dict[str, FunctionState] = {}
        self._unwritten: dict[str, FunctionState] = {}
        self.created: set[str] = set()
        """The functions that this round has created, under its leases."""
        self.failed: set[str] = set()
        """The functions that dbt could not create in this round."""

    def begin(self, states: Mapping[str, FunctionState]) -> None:
        """Begin a round: another run may have replaced functions since the last round."""
        self._states = dict(states)
        self.created, self.failed = set(), set()

    def start(self, functions: Iterable[str]) -> list[str]:
        """Note that dbt is about to create functions, and return those whose code changes. Raises FunctionTableError."""
        changing = [
            uid
            for uid in functions
            if uid in self._with_other_sql or not self._project.is_current_function(uid, self._states.get(uid))
        ]
        ahead = {uid: replace(known, code="") for uid in changing if (known := self._states.get(uid)) and known.code}
        self._table.write(ahead)
        self._states.update(ahead)
        return changing

    def create(self, uid: str, code: str, *, is_planned: bool = True) -> bool:
        """Note that dbt has created a function, from code with this digest; `is_planned` tells that dbt read the plan's files.

        Returns whether the warehouse has the function from this code now.
        """
        self.created.add(uid)
        if uid in self._with_other_sql:
            return False
        known = self._states.get(uid)
        if known is None or known.code != code or known.failed_code:
            mark = self._project.manifest_code_mark(uid) if is_planned else ""
            self._note(uid, FunctionState(code, clock.now(), self._run_id, mark))
        return True

    def fail(self, functions: Iterable[str]) -> None:
        """Note that dbt could not create functions."""
        for uid in functions:
            self.failed.add(uid)
            before = self._states.get(uid) or FunctionState("", clock.now(), self._run_id)
            self._note(uid, before.failed(self._project.fingerprints[uid].digest, clock.now(), self._run_id))

    def failed_among(self, functions: Iterable[str]) -> tuple[str, ...]:
        """Return the functions among `functions` that dbt could not create."""
        return tuple(uid for uid in functions if uid in self.failed)

    def missing_among(self, functions: Iterable[str]) -> list[str]:
        """Return the functions among `functions` that dbt has not created."""
        return [uid for uid in functions if uid not in self.created]

    def write(self) -> None:
        """Write what was noted. Raises FunctionTableError."""
        unwritten, self._unwritten = self._unwritten, {}
        self._table.write(unwritten)

    def _note(self, uid: str, state: FunctionState) -> None:
        self._states[uid] = self._unwritten[uid] = state
