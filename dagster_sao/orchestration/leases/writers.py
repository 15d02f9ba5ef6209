"""Who wrote each relation last: a table in the database of the Dagster instance, beside the leases.

The record of a node is about its last build. Another node with the same alias, another target with the same schema, or a
failed attempt may have written the relation since. So each attempt stores its id in the table before dbt starts, under the
lease, and the record of its build carries the same id. The transaction that ends the lease adds the result.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import dagster as dg
import sqlalchemy as sa

from dagster_sao.core.decision.decide import Decision, Reason
from dagster_sao.core.state.state import FailedAttempt, FailureKind, LastBuild, StateSnapshot, Writer
from dagster_sao.orchestration import clock
from dagster_sao.orchestration.events.record_json import failure_from_json, failure_to_json
from dagster_sao.orchestration.leases.leases import Leases, is_held
from dagster_sao.orchestration.leases.relation_keys import writer_key, writer_keys
from dagster_sao.orchestration.leases.tables import TableError, find_table, in_parts, open_table, replace_rows, retried
from dagster_sao.orchestration.project.loaded import LoadedProject
from dagster_sao.warehouse.adapters import traits_of

_WRITERS = sa.Table(
    "dagster_sao_writers",
    sa.MetaData(),
    # Digests: MySQL cannot index long texts.
    sa.Column("relation", sa.String(64), primary_key=True),
    sa.Column("attempt_id", sa.String(64), nullable=False),
    sa.Column("lease", sa.String(64), nullable=False),
    sa.Column("owner", sa.String(64), nullable=False),
    sa.Column("record", sa.Text, nullable=False),
)


class WriterError(TableError):
    """The last writers of relations cannot be kept."""


class WriterTable:
    """The last writers of relations, from the view of one project and environment."""

    def __init__(self, instance: dg.DagsterInstance, state_name: str) -> None:
        """Read nothing yet. `state_name` tells the project and its environment from others."""
        self._instance = instance
        self._state_name = state_name
        self._engine: sa.Engine | None = None

    def read(self, loaded: LoadedProject) -> Mapping[str, Writer | None]:
        """Return the last writer of each node's relation, None where nobody has written it. Raises WriterError.

        Without nodes of which that is not known: the table has the writers of each host, account or file apart.
        """
        if self._engine is None:
            self._engine = find_table(self._instance, _WRITERS)
        engine = self._engine
        if engine is None:
            return {}
        nodes = loaded.project.graph.nodes
        of_relation: dict[str, list[str]] = {}
        for uid, key in writer_keys(loaded).items():
            of_relation.setdefault(key, []).append(uid)

        def rows() -> list[Any]:
            with engine.connect() as connection:
                is_open = is_held(connection, _WRITERS.c.lease, _WRITERS.c.owner).label("is_open")
                return [
                    row
                    for part in in_parts(sorted(of_relation))
                    for row in connection.execute(_selection(part).add_columns(is_open))
                ]

        noted = {
            uid: self._writer(uid, row.attempt_id, json.loads(row.record), nodes, is_open=bool(row.is_open))
            for row in retried(rows, "The last writers of relations cannot be read", WriterError)
            for uid in of_relation[row.relation]
        }
        if not traits_of(loaded.project.graph.adapter_type).keeps_relations:
            return noted
        return {uid: noted.get(uid) for uids in of_relation.values() for uid in uids}

    def forget_all_but(self, nodes: Collection[str]) -> None:
        """Forget what wrote the relations of this project's other nodes, so that they are built when they are back.

        Raises WriterError.
        """
        engine = self._engine = self._engine or find_table(self._instance, _WRITERS)
        if engine is None:
            return

        def forget() -> None:
            with engine.begin() as connection:
                rows: Sequence[Any] = connection.execute(sa.select(_WRITERS.c.relation, _WRITERS.c.record)).all()
                others = [row.relation for row in rows if self._is_of_another(json.loads(row.record), nodes)]
                for part in in_parts(others):
                    connection.execute(sa.delete(_WRITERS).where(_WRITERS.c.relation.in_(part)))

        retried(forget, "The last writers of relations cannot be written", WriterError)

    def _is_of_another(self, record: Mapping[str, Any], nodes: Collection[str]) -> bool:
        return record["project"] == self._state_name and record["node"] not in nodes

    def _writer(
        self, uid: str, attempt_id: str, record: Mapping[str, Any], nodes: Collection[str], *, is_open: bool
    ) -> Writer:
        project = record["project"]
        return Writer(
            attempt_id=attempt_id,
            node=record["node"],
            run_id=record["run_id"],
            at=datetime.fromisoformat(record["at"]),
            elsewhere="" if project == self._state_name else project,
            is_own=record["node"] == uid and project == self._state_name,
            is_neighbour=record["node"] != uid and project == self._state_name and record["node"] in nodes,
            is_open=is_open,
            data_version=record.get("data_version", ""),
            turns=record.get("turns", 0),
            failure=failure_from_json(record.get("failure")),
            is_on_foreign_rows=record.get("is_on_foreign_rows", False),
            limited_by=record.get("limited_by", ""),
        )


def with_writers(
    state: StateSnapshot,
    writers: Mapping[str, Writer | None],
    read_again: Callable[[], Mapping[str, Writer | None]],
    wiped_at: Mapping[str, datetime],
) -> StateSnapshot:
    """Return a state with the last writers of relations, and the failures, interruptions and moves that they show.

    `writers` were read before the builds of `state`. Where the two differ, `read_again` shows whether a run was writing in
    between. Nothing is concluded about such a run.
    """
    if any(_is_other(state, uid, writer) for uid, writer in writers.items()):
        now = read_again()
        writers = {
            uid: replace(one, is_open=True) if one is not None and one != writers.get(uid) else one
            for uid, one in now.items()
        }
    noted = {
        uid: one for uid, one in writers.items() if one is not None and (uid not in wiped_at or one.at > wiped_at[uid])
    }
    failures = {
        uid: writer.failure or FailedAttempt(writer.at, 1, kind=FailureKind.INTERRUPTED)
        for uid, writer in noted.items()
        if writer.is_own and not writer.is_open and uid not in state.failures and _is_other(state, uid, writer)
    }
    # Every build of a relation has a row of its own database.
    moved = frozenset(uid for uid, one in writers.items() if one is None and _is_other(state, uid, one))
    return replace(state, writers=noted, failures={**state.failures, **failures}, moved_relations=moved)


def _is_other(state: StateSnapshot, uid: str, writer: Writer | None) -> bool:
    build = state.builds.get(uid)
    if writer is None:
        return build is not None and bool(build.attempt_id)
    return build is None or build.attempt_id != writer.attempt_id


@dataclass(frozen=True, slots=True)
class _Attempt:
    id: str
    relation: str
    lease: str
    record: Mapping[str, Any]


class RunWriters:
    """The attempts of one run in the table of writers."""

    def __init__(  # noqa: PLR0913, PLR0917 (what tells an attempt from others)
        self,
        instance: dg.DagsterInstance,
        loaded: LoadedProject,
        leases: Leases,
        lease_of: Mapping[str, str],
        state_name: str,
        run_id: str,
    ) -> None:
        """Begin with no attempt. `lease_of` has the key of the lease of each node. Raises WriterError."""
        self._engine = open_table(instance, _WRITERS, WriterError)
        self._loaded = loaded
        self._keys = writer_keys(loaded)
        self._is_copied = {uid for uid, node in loaded.project.graph.nodes.items() if not node.is_view}
        self._leases = leases
        self._lease_of = lease_of
        self._state_name, self._run_id = state_name, run_id
        self._attempts: dict[str, _Attempt] = {}
        self._own: set[str] = set()
        """The ids of all attempts of the run."""
        self._captured: Mapping[str, str] = {}
        """The last attempt at each node that the decision knew; empty for one that was under way."""
        self._before: dict[str, Any] = {}
        """The rows from before the attempts of this round, by relation."""
        self._elsewhere: set[tuple[str, str]] = set()

    def attempt_id(self, unique_id: str) -> str:
        """Return the id of the attempt to build a node; empty where none is under way, or the node has no relation."""
        attempt = self._attempts.get(unique_id)
        return attempt.id if attempt is not None else ""

    def begin(
        self, nodes: Iterable[str], decisions: Mapping[str, Decision], state: StateSnapshot, limited_by: str = ""
    ) -> None:
        """Note, under the leases of nodes, that dbt is about to write their relations. Raises LeaseError.

        `limited_by` are the options by which it writes a part of the rows only.
        """
        at = clock.now().isoformat()
        self._attempts = {}
        for uid in nodes:
            if uid not in self._keys:
                continue
            record = self._record(uid, at)
            last = state.writers.get(uid)
            if last is not None and decisions[uid].reason is Reason.OVERWRITTEN:
                record["turns"] = last.turns + 1
            if state.has_foreign_rows(uid):
                record["is_on_foreign_rows"] = True
            if limits := limited_by or state.rows_limited_by(uid):
                record["limited_by"] = limits
            self._attempts[uid] = _Attempt(uuid.uuid4().hex, self._keys[uid], self._lease_of[uid], record)
        self._own.update(attempt.id for attempt in self._attempts.values())
        self._captured = {uid: "" if one.is_open else one.attempt_id for uid, one in state.writers.items()}
        if self._attempts:
            self._leases.write({attempt.lease for attempt in self._attempts.values()}, self._note)

    def written_by_others(self, unique_ids: Iterable[str]) -> frozenset[str]:
        """Return the nodes whose relations another run has written since the decision, or was writing. Raises WriterError.

        One without a known writer had no version to consume.
        """
        keys = {uid: self._keys[uid] for uid in unique_ids if uid in self._captured and uid in self._keys}

        def last_attempts() -> dict[str, str]:
            with self._engine.connect() as connection:
                parts = in_parts(sorted(set(keys.values())))
                return {row.relation: row.attempt_id for part in parts for row in connection.execute(_selection(part))}

        last = retried(last_attempts, "The last writers of relations cannot be read", WriterError) if keys else {}
        return frozenset(
            uid for uid, key in keys.items() if key in last and last[key] not in {self._captured[uid], *self._own}
        )

    def wrote_elsewhere(self, unique_id: str, relation_name: str) -> None:
        """Note that dbt writes another relation for a node than the plan has: it read a newer project.

        No build has the id of this attempt, so that whatever node has the relation is built again. Raises WriterError.
        """
        key = writer_key(self._loaded, relation_name)
        if not key or (unique_id, key) in self._elsewhere:
            return
        self._elsewhere.add((unique_id, key))
        record = self._record(unique_id, clock.now().isoformat())
        row = self._row(_Attempt(uuid.uuid4().hex, key, self._lease_of[unique_id], record))

        # Without a lease on that relation: dbt writes it without one too.
        def write() -> None:
            with self._engine.begin() as connection:
                replace_rows(connection, _WRITERS, _WRITERS.c.relation, [row])

        retried(write, "The last writers of relations cannot be written", WriterError)

    def _record(self, unique_id: str, at: str) -> dict[str, Any]:
        return {"node": unique_id, "project": self._state_name, "run_id": self._run_id, "at": at}

    def built(self, unique_id: str, build: LastBuild) -> None:
        """End the lease of a node whose build is recorded, and note the version that it wrote."""
        attempt = self._attempts.pop(unique_id, None)
        lease = self._lease_of[unique_id]
        # The rows of a view depend on the schema of its own target.
        told = {"data_version": build.data_version} if unique_id in self._is_copied else {}
        ended = [replace(attempt, record={**attempt.record, **told})] if attempt is not None else []
        self._leases.release([lease], then=lambda connection, released: _end(connection, ended if released else []))

    def end(self, failures: Mapping[str, FailedAttempt], untouched: Collection[str]) -> None:
        """End all leases of the run, and note failures. A relation that dbt left untouched keeps its former writer."""
        attempts, self._attempts = self._attempts, {}
        failed = [
            replace(attempt, record={**attempt.record, "failure": failure_to_json(failures[uid])})
            for uid, attempt in attempts.items()
            if uid in failures
        ]
        left = [attempt for uid, attempt in attempts.items() if uid in untouched and uid not in failures]

        def note(connection: sa.Connection, released: Collection[str]) -> None:
            _end(connection, [attempt for attempt in failed if attempt.lease in released])
            self._take_back(connection, [attempt for attempt in left if attempt.lease in released])

        self._leases.release(then=note)

    def _note(self, connection: sa.Connection) -> None:
        attempts = sorted(self._attempts.values(), key=lambda attempt: attempt.relation)
        self._before = {}
        # Where two nodes have one relation, the second writes last.
        rows = {attempt.relation: self._row(attempt) for attempt in attempts}
        for part in in_parts(list(rows)):
            self._before.update({row.relation: row for row in connection.execute(_selection(part))})
        replace_rows(connection, _WRITERS, _WRITERS.c.relation, list(rows.values()))

    def _row(self, attempt: _Attempt) -> Mapping[str, str]:
        return {
            "relation": attempt.relation,
            "attempt_id": attempt.id,
            "lease": attempt.lease,
            "owner": self._leases.owner,
            "record": json.dumps(attempt.record),
        }

    def _take_back(self, connection: sa.Connection, attempts: Iterable[_Attempt]) -> None:
        for part in in_parts(list(attempts)):
            is_ours = _WRITERS.c.attempt_id.in_([attempt.id for attempt in part])
            # Another node with the same relation may have written after the attempt.
            still_ours = [
                str(relation) for (relation,) in connection.execute(sa.select(_WRITERS.c.relation).where(is_ours))
            ]
            connection.execute(sa.delete(_WRITERS).where(is_ours))
            rows = [self._before[relation] for relation in still_ours if relation in self._before]
            if rows:
                connection.execute(sa.insert(_WRITERS), [dict(row._mapping) for row in rows])  # noqa: SLF001


def _end(connection: sa.Connection, attempts: Iterable[_Attempt]) -> None:
    rows = [{"of": attempt.relation, "id": attempt.id, "new": json.dumps(attempt.record)} for attempt in attempts]
    if rows:
        is_it = sa.and_(_WRITERS.c.relation == sa.bindparam("of"), _WRITERS.c.attempt_id == sa.bindparam("id"))
        connection.execute(sa.update(_WRITERS).where(is_it).values(record=sa.bindparam("new")), rows)


def _selection(relations: Sequence[str]) -> sa.Select[Any]:
    return sa.select(_WRITERS).where(_WRITERS.c.relation.in_(relations))
