"""DuckLake tables without `loaded_at_*`: the catalog lists the snapshots of the lake, and what each of them touched.

The token is the last snapshot that touched the table. Snapshots can be expired, in any order, and an expired one may have
touched any table. So a table that none of the snapshots since then touched counts as changed, once.
"""

# ruff: noqa: S608  # the name of a database of the profile, quoted

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

from dagster_sao.core.manifest.graph import Source
from dagster_sao.warehouse.errors import StatementError
from dagster_sao.warehouse.probes.base import Observation, ProbeKind
from dagster_sao.warehouse.probes.settings import does_not_exist, place, settings_of
from dagster_sao.warehouse.probes.untracked import untracked_view
from dagster_sao.warehouse.session import WarehouseSession

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

# The tables of the catalog: https://ducklake.select/docs/stable/specification/tables/overview
# `known_since` begins the last unbroken run of snapshots. A snapshot touched the tables that its changes name, unless it
# only moved rows between files. Views have no uuid here: their rows are elsewhere.
_RELATIONS = """
with listed as (
  select snapshot_id, epoch_us(snapshot_time) as us, changes,
    changes is null or lag(snapshot_id) over (order by snapshot_id) is distinct from snapshot_id - 1 as is_after_a_gap
  from ducklake_snapshots({lake})
),
known as (
  select max(snapshot_id) filter (is_after_a_gap) as since, max(snapshot_id) as latest,
    max(us) filter (snapshot_id = {seen}) as seen_us
  from listed
),
entries as (select snapshot_id, unnest(map_entries(changes)) as entry from listed),
named as (
  select snapshot_id, unnest(entry.value) as name
  from entries
  where entry.key not in ('flushed_inlined', 'merge_adjacent', 'rewrite_delete')
),
touched as (select name, max(snapshot_id) as last from named group by name),
relations as (
  select schema_id, table_name as name, table_uuid::varchar as uuid, table_id::varchar as id, begin_snapshot
  from {catalog}.ducklake_table
  where end_snapshot is null
  union all
  select schema_id, view_name, null, null, begin_snapshot
  from {catalog}.ducklake_view
  where end_snapshot is null
)
select lower(schema_name), lower(relations.name), uuid, listed.snapshot_id, listed.us,
  greatest(relations.begin_snapshot, coalesce(touched.last, 0)) >= since,
  latest, (select us from listed where snapshot_id = latest), since, seen_us
from relations
join {catalog}.ducklake_schema as schemas on schemas.schema_id = relations.schema_id and schemas.end_snapshot is null
cross join known
left join touched on touched.name = relations.id
join listed on listed.snapshot_id = greatest(relations.begin_snapshot, coalesce(touched.last, 0), since)
"""

_Name = tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Snapshot:
    id: int
    us: int
    """When it was made, in microseconds since the epoch. A restored catalog gives the same numbers anew."""

    @property
    def time(self) -> datetime:
        return _EPOCH + timedelta(microseconds=self.us)


@dataclass(frozen=True, slots=True)
class _Look:
    """What the last look found in a lake."""

    latest: _Snapshot | None = None
    tables: dict[str, _Snapshot] = field(default_factory=dict)
    """The snapshot that stands for each table's data, by the table's uuid."""
    names: dict[_Name, str | None] = field(default_factory=dict)
    """The uuid behind each name, None for a view."""


class DuckLakeProbe:
    """Read from a lake's snapshots when each table was last touched: one query per lake."""

    kind = ProbeKind.DUCKLAKE

    def __init__(self, session: WarehouseSession) -> None:
        self._session = session
        self._looks: dict[str, _Look] = {}

    def claims(self, source: Source) -> bool:
        """Return whether the source is in a database that the profile attaches as `ducklake:`."""
        settings = settings_of(source)
        return self._lake(source) in self._session.ducklakes and not settings.is_external and not settings.plugin

    def observe(self, sources: Sequence[Source], expired: Callable[[], bool]) -> Iterator[tuple[str, Observation]]:
        """Yield the last snapshot of each source. Raises WarehouseError and WarehouseBusyError."""
        for lake in sorted({self._lake(source) for source in sources}):
            if expired():
                return
            inside = [source for source in sources if self._lake(source) == lake]
            try:
                look = self._looks[lake] = self._look(lake, self._looks.get(lake, _Look()))
            except StatementError as error:
                yield from ((source.unique_id, _refused(source, lake, error)) for source in inside)
            else:
                yield from ((source.unique_id, _read(source, look)) for source in inside)

    def _look(self, lake: str, before: _Look) -> _Look:
        name = lake.replace("'", "''")
        catalog = '"__ducklake_metadata_{}"'.format(lake.replace('"', '""'))
        seen = before.latest.id if before.latest else "null"
        with self._session.connection():
            attached = f"select 1 from duckdb_databases() where lower(database_name) = '{name}'"
            if not self._session.execute(attached):
                return _Look()
            rows = self._session.execute(_RELATIONS.format(lake=f"'{name}'", catalog=catalog, seen=seen))
        look = _Look()
        for schema, relation, uuid, snapshot, us, is_known, latest, latest_us, since, seen_us in rows:
            look = _Look(_Snapshot(latest, latest_us), look.tables, look.names)
            look.names[schema, relation] = uuid
            if uuid is None:
                continue
            # No snapshot since the last look is missing, so what was true then still is.
            is_continued = before.latest is not None and before.latest.us == seen_us and before.latest.id >= since
            kept = before.tables.get(uuid) if is_continued and not is_known else None
            look.tables[uuid] = kept or _Snapshot(snapshot, us)
        return look

    def _lake(self, source: Source) -> str:
        return (source.database or self._session.database).lower()


def _read(source: Source, look: _Look) -> Observation:
    name = (source.schema or "main").lower(), (source.identifier or source.name).lower()
    if name not in look.names:
        return Observation(None, ProbeKind.DUCKLAKE, error=does_not_exist(source))
    uuid = look.names[name]
    if uuid is None:
        return untracked_view(source)
    snapshot = look.tables[uuid]
    token = f"{uuid} snapshot {snapshot.id} of {snapshot.time:%Y-%m-%dT%H:%M:%S.%f}Z"
    return Observation(token, ProbeKind.DUCKLAKE, loaded_at=snapshot.time)


def _refused(source: Source, lake: str, error: StatementError) -> Observation:
    sentence = (
        f"{place(source)} is in the DuckLake {lake}, whose snapshots cannot be read: {error}."
        " Repair the attachment in the profile, or give the source a loaded_at_field"
    )
    return Observation(None, ProbeKind.DUCKLAKE, error=sentence)
