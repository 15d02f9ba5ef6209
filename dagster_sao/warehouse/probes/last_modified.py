"""Tables without `loaded_at_*` on warehouses that record when a table last changed: that time is the token.

dbt reads it, in one query per database where the adapter can. A table that was dropped and made again has a later
time, so the token needs nothing else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from dagster_sao.core.manifest.graph import Source
from dagster_sao.core.manifest.policy import read_source_policy
from dagster_sao.warehouse.errors import StatementError, says_missing
from dagster_sao.warehouse.probes.base import Observation, ProbeKind
from dagster_sao.warehouse.probes.settings import does_not_exist, place
from dagster_sao.warehouse.probes.untracked import untracked, untracked_view
from dagster_sao.warehouse.queries.parallel import ask_in_rounds
from dagster_sao.warehouse.queries.soundness import why_unsound, why_unsound_kind
from dagster_sao.warehouse.queries.timestamps import parse_timestamp
from dagster_sao.warehouse.session import WarehouseSession

# A thousand names are about 100 kB of text; Snowflake accepts 1 MB.
_TABLES_PER_STATEMENT = 1000

_REMEDY = "Give it one of them, or set `meta.dagster_sao.trust_metadata: true` if that is enough for you"

_Q = TypeVar("_Q")
_A = TypeVar("_A")
_Name = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class _Table:
    """One table, by the names that dbt compares, and the sources that read it."""

    name: _Name
    """Database, schema and identifier in lower case."""
    sources: tuple[Source, ...]


class MetadataProbe:
    """Read last-modified times through dbt, and the kinds of relations whose time moved: a view's time proves nothing."""

    kind = ProbeKind.METADATA

    def __init__(self, session: WarehouseSession) -> None:
        self._session = session
        self._known: dict[_Name, tuple[datetime, tuple[str, ...]]] = {}
        """The kinds of relations behind a name at a time. Replacing a table by a view would move the time."""

    def claims(self, source: Source) -> bool:  # noqa: ARG002  # the adapter decides
        """Return whether the adapter's metadata has last-modified times."""
        return self._session.has_last_modified

    def observe(self, sources: Sequence[Source], expired: Callable[[], bool]) -> Iterator[tuple[str, Observation]]:
        """Yield each source's time, or a warning where it proves nothing. Raises WarehouseError."""
        sound = []
        for source in sources:
            if why := self._unsound(source):
                yield source.unique_id, _untrusted(source, why)
            else:
                sound.append(source)
        unproven: list[tuple[_Table, datetime | None]] = []
        for group, times in self._answers(self._groups(_tables(sound, self._session.database)), self._times, expired):
            for table in group:
                if isinstance(times, StatementError):
                    yield from self._refused(table, times)
                    continue
                time = times.get(table.sources[0].unique_id)
                known_at, kinds = self._known.get(table.name, (None, ()))
                if time is not None and known_at == time:
                    yield from _judged(table, time, kinds)
                else:
                    unproven.append((table, time))
        yield from self._look_closer(unproven, expired)

    def _look_closer(
        self, unproven: Sequence[tuple[_Table, datetime | None]], expired: Callable[[], bool]
    ) -> Iterator[tuple[str, Observation]]:
        """Say of tables that are new or moved, or have no time, what they are."""
        by_schema = _grouped(unproven, lambda entry: entry[0].name[:2])
        for entries, kinds in self._answers(by_schema, self._kinds, expired):
            for table, time in entries:
                if isinstance(kinds, StatementError):
                    yield from self._refused(table, kinds)
                else:
                    found = kinds.get(table.name[2], ())
                    if time is not None:
                        self._known[table.name] = time, found
                    yield from _judged(table, time, found)

    def _times(self, group: Sequence[_Table]) -> Mapping[str, datetime]:
        return self._session.last_modified([table.sources[0] for table in group])

    def _kinds(self, entries: Sequence[tuple[_Table, datetime | None]]) -> Mapping[str, tuple[str, ...]]:
        return self._session.relation_kinds(entries[0][0].sources[0])

    def _groups(self, tables: Sequence[_Table]) -> Iterator[Sequence[_Table]]:
        """Yield the tables of one statement: never of two databases, which dbt's batch would mix up."""
        if not self._session.has_batched_last_modified:
            yield from ([table] for table in tables)
            return
        depth = 2 if self._session.traits.times.is_asked_by_schema else 1
        for group in _grouped(tables, lambda table: table.name[:depth]):
            yield from (group[i : i + _TABLES_PER_STATEMENT] for i in range(0, len(group), _TABLES_PER_STATEMENT))

    def _answers(
        self, questions: Iterable[_Q], ask: Callable[[_Q], _A], expired: Callable[[], bool]
    ) -> Iterator[tuple[_Q, _A | StatementError]]:
        """Return each question with its answer, or with its own error, with nothing open."""
        return ask_in_rounds(self._session, deque(questions), lambda: ask, expired)

    def _unsound(self, source: Source) -> str | None:
        why = why_unsound(source, self._session.adapter_type, is_sound_here=self._session.has_sound_times)
        return None if why is None or _is_trusted(source) else why

    def _refused(self, table: _Table, error: StatementError) -> Iterator[tuple[str, Observation]]:
        is_missing = not self._session.has_batched_last_modified and says_missing(error)
        for source in table.sources:
            sentence = (
                f"{place(source)} has a last-modified time that cannot be read: {error}. Let the target's role read"
                f" the metadata of database {source.database or self._session.database}, or give the source a"
                " loaded_at_field"
            )
            yield (
                source.unique_id,
                Observation(None, self.kind, error=does_not_exist(source) if is_missing else sentence),
            )


def _judged(table: _Table, time: datetime | None, kinds: tuple[str, ...]) -> Iterator[tuple[str, Observation]]:
    return ((source.unique_id, _judge(source, time, kinds)) for source in table.sources)


def _judge(source: Source, time: datetime | None, kinds: tuple[str, ...]) -> Observation:
    if time is None and not kinds:
        return Observation(None, ProbeKind.METADATA, error=does_not_exist(source))
    if kinds == ("view",):
        return untracked_view(source)
    if time is None:
        return untracked(
            source, "has no 'loaded_at_field' or 'loaded_at_query', and the warehouse has no last-modified time for it"
        )
    why = why_unsound_kind(kinds)
    return _changed_at(time) if why is None or _is_trusted(source) else _untrusted(source, why)


def _changed_at(time: datetime) -> Observation:
    exact = parse_timestamp(time.isoformat())
    return Observation(exact.text if exact else None, ProbeKind.METADATA, loaded_at=exact.utc if exact else None)


def _untrusted(source: Source, why: str) -> Observation:
    return untracked(source, f"has no 'loaded_at_field' or 'loaded_at_query', and {why}", _REMEDY)


def _is_trusted(source: Source) -> bool:
    policy, _ = read_source_policy(source.definition)
    return policy.trust_metadata


def _tables(sources: Iterable[Source], database: str) -> Sequence[_Table]:
    def name(source: Source) -> _Name:
        parts = source.database or database, source.schema or "", source.identifier or source.name
        return parts[0].lower(), parts[1].lower(), parts[2].lower()

    return [_Table(name(group[0]), tuple(group)) for group in _grouped(sources, name)]


def _grouped(items: Iterable[_Q], key: Callable[[_Q], Hashable]) -> list[list[_Q]]:
    groups: dict[Hashable, list[_Q]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.values())
