"""PostgreSQL tables without `loaded_at_*`: the token comes from its catalogs and counters, for all that is read.

Counters are written some time after the commit, up to ten seconds after it and later while the writer is inside another
statement. A token may lag behind the data, then, but never run ahead of it: read before a build, it costs at worst
another build. A rolled back insert counts too, and also costs a build.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from dagster_sao.core.manifest.graph import Source
from dagster_sao.warehouse.errors import StatementError
from dagster_sao.warehouse.probes.base import Observation, ProbeKind
from dagster_sao.warehouse.probes.settings import does_not_exist, place, relation_sql
from dagster_sao.warehouse.queries.batches import ChunkRunner
from dagster_sao.warehouse.relations.names import RelationName, parse_relation_name
from dagster_sao.warehouse.relations.postgres_catalog import (
    RelationMarks,
    ServerFacts,
    is_counting,
    read_relations,
    read_server,
)
from dagster_sao.warehouse.session import WarehouseSession

_RELATIONS_PER_STATEMENT = 500
# Until 14 a separate process collected the counters: it lost messages under load, and idle sessions kept their last ones.
_OLDEST_VERSION = 150000
_PAUSES = 0.05, 0.1, 0.25, 0.6, 1.0
"""Seconds between two looks at whether a session that was closed has ended."""
_REMEDY = "Give it a loaded_at_field or loaded_at_query to have it tracked"


@dataclass(frozen=True, slots=True)
class _Wanted:
    source: Source
    name: RelationName

    @property
    def unique_id(self) -> str:
        return self.source.unique_id

    @property
    def database(self) -> str:
        return self.name.database


@dataclass(frozen=True, slots=True)
class _Answer:
    epoch: str
    relation: RelationMarks


class _UnusableError(Exception):
    """The counters of this server prove nothing."""


class PostgresProbe:
    """Read catalogs and counters of many relations in one statement. Reads no row and waits for no lock."""

    kind = ProbeKind.POSTGRES

    def __init__(self, session: WarehouseSession) -> None:
        self._session = session
        self._runner: ChunkRunner[_Wanted, _Answer] = ChunkRunner(session, self._begin, size=_RELATIONS_PER_STATEMENT)

    def claims(self, source: Source) -> bool:  # noqa: ARG002 (part of the protocol)
        """Return whether the target is PostgreSQL. The kind of a relation is known only from the catalog."""
        return self._session.adapter_type == "postgres"

    def observe(self, sources: Sequence[Source], expired: Callable[[], bool]) -> Iterator[tuple[str, Observation]]:
        """Yield the change token of each source, nothing open meanwhile. Raises WarehouseError."""
        waiting: dict[str, Source] = {}
        wanted = []
        for source in sources:
            name = parse_relation_name(relation_sql(source), self._session.adapter_type)
            if name is None:
                yield source.unique_id, Observation(None, ProbeKind.POSTGRES, error=does_not_exist(source))
            elif not self._is_here(name):
                yield source.unique_id, _failed(source, self._elsewhere())
            else:
                waiting[source.unique_id] = source
                wanted.append(_Wanted(source, name))
        try:
            for question, answer in self._runner.run(wanted, expired):
                del waiting[question.unique_id]
                yield question.unique_id, self._observation(question, answer)
        except _UnusableError as error:
            for unique_id in waiting:
                yield unique_id, Observation(None, ProbeKind.UNTRACKED, warning=str(error))

    def _begin(self) -> Callable[[Sequence[_Wanted]], list[_Answer]]:
        # On every connection: the next one may lead to another server.
        try:
            facts = read_server(self._session)
        except StatementError as error:
            raise _UnusableError(_unusable(str(error), "")) from None
        why = _why_unusable(facts)
        if why is not None:
            raise _UnusableError(why)
        return partial(self._ask, facts.epoch)

    def _ask(self, epoch: str, chunk: Sequence[_Wanted]) -> list[_Answer]:
        relations = read_relations(self._session, [(one.name.schema, one.name.identifier) for one in chunk])
        return [_Answer(epoch, relation) for relation in relations]

    def _observation(self, wanted: _Wanted, answer: _Answer | StatementError) -> Observation:
        source = wanted.source
        if isinstance(answer, StatementError):
            return _failed(source, f"cannot be probed: {answer}. It is tried again at the next tick")
        relation = answer.relation
        if relation.is_closed:
            schema = wanted.name.schema
            return _failed(
                source,
                f"cannot be read: permission denied for schema {schema}. Grant usage on it to the role of the target",
            )
        if not relation.exists:
            return Observation(None, ProbeKind.POSTGRES, error=does_not_exist(source))
        if relation.unknowable is not None:
            why = f"{place(source)} {relation.unknowable}, and PostgreSQL does not report when that changes"
            return Observation(None, ProbeKind.UNTRACKED, warning=f"{why}, so it is always considered fresh. {_REMEDY}")
        token = hashlib.sha256(f"{answer.epoch}|{relation.marks}".encode()).hexdigest()[:32]
        return Observation(token, ProbeKind.POSTGRES)

    def _is_here(self, name: RelationName) -> bool:
        return name.database.lower() in {"", self._session.database.lower()}

    def _elsewhere(self) -> str:
        return (
            f"is not in {self._session.database}, the database of the target, and PostgreSQL reads no other."
            " Correct the source's database"
        )


def has_all_counted(session: WarehouseSession) -> bool:
    """Return whether the counters include everything written with our role. Waits for that, two seconds at most.

    Raises WarehouseError when the server cannot be reached.
    """
    for pause in (0.0, *_PAUSES):
        time.sleep(pause)
        # A transaction keeps the list of sessions that it saw first.
        with session.connection():
            try:
                if not is_counting(session):
                    return True
            except StatementError:
                return False
    return False


def _failed(source: Source, what: str) -> Observation:
    return Observation(None, ProbeKind.POSTGRES, error=f"{place(source)} {what}")


def _why_unusable(facts: ServerFacts) -> str | None:
    """Return the warning for a server whose counters prove nothing."""
    if not facts.is_postgres:
        return _unusable(f"{facts.version_text.split(' on ')[0]} is not PostgreSQL itself", "")
    if facts.version < _OLDEST_VERSION:
        return _unusable(f"PostgreSQL {facts.version // 10000} may lose some", "or upgrade to PostgreSQL 15")
    if facts.is_standby:
        return _unusable("the server is a standby, which counts nothing", "or let the target be the primary")
    if not facts.counts_here:
        return _unusable("track_counts is off", "or switch it on")
    if facts.not_counting:
        return _unusable(f"track_counts is off for {facts.not_counting}", "or switch it on")
    if facts.has_citus:
        return _unusable("Citus keeps rows on other servers", "")
    return None


def _unusable(why: str, other_remedy: str) -> str:
    remedy = "Give them one of these to have them tracked" + (f", {other_remedy}" if other_remedy else "")
    return (
        f"The change counters of this PostgreSQL server cannot be used: {why}. Sources with no 'loaded_at_field' or"
        f" 'loaded_at_query' are therefore always considered fresh. {remedy}"
    )
