r"""What PostgreSQL's catalogs and counters say of relations: the two statements, and their rows as values.

A relation's *marks* move with whatever changes its rows:

| event | mark |
|---|---|
| insert, update, delete, merge, COPY, commit of a prepared transaction | the counters |
| TRUNCATE, VACUUM FULL, CLUSTER, rewriting ALTER TABLE, REFRESH | the file node |
| DROP and CREATE, a swap by renaming | the oid |
| ADD, DROP, RENAME COLUMN, ALTER TYPE without a rewrite | the columns, by number: one that was dropped and added again is another |
| ALTER TYPE of an enum or composite type that a column has | those types |
| partitions attached and detached, children | the set of relations |
| CREATE OR REPLACE VIEW | the view's parsed query |

What a role sees through policies of row-level security may change with other tables, settings and memberships: unknowable.

The *epoch* moves when the counters begin anew: a crash, `pg_stat_reset()`, another database under the same name, a
promoted standby (the timeline; a former primary keeps its counters while another one writes).

The catalogs are readable by every role, and reading them waits for no lock on the relations.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dagster_sao.warehouse.session import WarehouseSession

# The first oid that is not PostgreSQL's own.
_FIRST_USER_OID = 16384

# Functions that are only "stable" because their result depends on a setting of the session, such as its time zone. Apart from
# that they are as good as immutable. All others that are not immutable may answer differently over the same data: `now()`, `random()`, `current_setting()`, `to_regclass()`.
_BY_SETTING_ONLY = r"""(?x)^(
  (date|timestamp|timestamptz)_(cmp|eq|ge|gt|le|lt|ne)_(date|timestamp|timestamptz)
  | timestamptz_(mi|pl)_interval | interval_pl_timestamptz | in_range | overlaps
  | date | time | timetz | timestamp | timestamptz | timezone | make_timestamptz
  | date_part | date_trunc | extract | generate_series | to_char | to_date | to_number | to_timestamp
  | concat | concat_ws | format | textanycat | anytextcat | array_to_string | quote_literal | quote_nullable
  | to_jsonb? | row_to_json | array_to_json | jsonb?_(agg|object_agg)[a-z_]* | jsonb?_build_(array|object)
  | jsonb?_(to|populate)_record(set)? | jsonb_path_[a-z_]+_tz
  | convert | convert_from | convert_to | length | money | numeric
)$"""

_SERVER = r"""
select current_setting('server_version_num')::int,
       version() ~ '^PostgreSQL [0-9.]+(devel|beta|rc)?[0-9]*[ ,]',
       version(),
       pg_is_in_recovery(),
       current_setting('track_counts')::boolean,
       (select string_agg(distinct coalesce('role ' || quote_ident(r.rolname), 'database ' || quote_ident(d.datname), 'all roles'), ', ')
          from pg_db_role_setting s
          cross join unnest(s.setconfig) as setting
          left join pg_roles r on r.oid = s.setrole
          left join pg_database d on d.oid = s.setdatabase
         where s.setdatabase in (0, (select oid from pg_database where datname = current_database()))
           and setting ~* '^track_counts=' and setting !~* '=(on|true|yes|1)$'),
       exists (select from pg_extension where extname = 'citus'),
       concat_ws('|',
         (select oid from pg_database where datname = current_database()),
         case when not pg_is_in_recovery() then left(pg_walfile_name(pg_current_wal_lsn()), 8) end,
         coalesce(extract(epoch from (select stats_reset from pg_stat_bgwriter))::text, 'never'),
         coalesce(extract(epoch from (
           select stats_reset from pg_stat_database where datname = current_database()))::text, 'never'))
"""

# The relations in a view's parsed query. It also names what `pg_depend` leaves out (system catalogs, built-in functions), has
# more than the text of `pg_get_viewdef`, and needs no lock on the view.
_RELATIONS = r"""
set local jit = off;
with recursive wanted as materialized (
  select name.k, n.oid as schema_oid, c.oid
    from unnest({schemas}, {names}) with ordinality as name (nspname, relname, k)
    left join pg_namespace n on n.nspname = name.nspname
    left join pg_class c on c.relnamespace = n.oid and c.relname = name.relname
), reads (k, oid) as (
  select k, oid from wanted where oid is not null
  union
  select reads.k, next.oid
    from reads cross join lateral (
      select i.inhrelid from pg_inherits i where i.inhparent = reads.oid and not i.inhdetachpending
      union all
      select found[1]::oid
        from pg_class v
        join pg_rewrite r on r.ev_class = v.oid and r.rulename = '_RETURN'
       cross join regexp_matches(r.ev_action::text, ':relid ([0-9]+)', 'g') as found
       where v.oid = reads.oid and v.relkind = 'v'
    ) as next (oid)
), types as materialized (
  select md5(concat(
    (select string_agg(row(enumtypid, enumsortorder, enumlabel)::text, ',' order by enumtypid, enumsortorder)
       from pg_enum),
    (select string_agg(row(a.attrelid, a.attnum, a.attname, a.atttypid)::text, ',' order by a.attrelid, a.attnum)
       from pg_attribute a join pg_class c on c.oid = a.attrelid
      where c.relkind = 'c' and not a.attisdropped))) as marks
), marks as materialized (
  select c.oid,
         format('%I.%I', n.nspname, c.relname) as name,
         row(c.oid, c.relkind, c.relfilenode,
           pg_stat_get_tuples_inserted(c.oid), pg_stat_get_tuples_updated(c.oid), pg_stat_get_tuples_deleted(c.oid),
           columns.marks, case when columns.has_own_types then (select types.marks from types) end,
           md5(view.query))::text as marks,
         c.relrowsecurity as has_policies, row_security_active(c.oid) as has_policies_for_us,
         case
           when c.oid < {first_user_oid} then 'the system relation'
           when c.relkind = 'f' then 'the foreign table'
           when c.relkind = 'S' then 'the sequence'
           when c.relkind not in ('r', 'p', 'm', 'v') then 'the index or type'
           when c.relkind in ('r', 'm') and am.amname <> 'heap' then 'stored by ' || quote_ident(am.amname) || ':'
           when n.nspname = '_timescaledb_internal' then 'the TimescaleDB chunk'
         end as unknowable,
         case when c.relkind = 'v' then (
           select min(called.name) from (
             select case when p.oid < {first_user_oid} then p.proname
                         else format('%I.%I', s.nspname, p.proname) end as name
               from (select distinct call[1]::oid as oid from regexp_matches(
                      view.query, ':(?:funcid|opfuncid|aggfnoid|winfnoid) ([0-9]+)', 'g') as call) as call
               join pg_proc p on p.oid = call.oid
               join pg_namespace s on s.oid = p.pronamespace
               join pg_language l on l.oid = p.prolang
              where not (p.provolatile = 'i' and (p.oid < {first_user_oid} or l.lanname = 'c'))
                and not (p.provolatile = 's' and p.oid < {first_user_oid} and p.proname ~ '{by_setting_only}')
             union all
             select case when view.query ~ '[{{]TABLESAMPLECLAUSE' then 'tablesample'
                         when view.query ~ '[{{]SQLVALUEFUNCTION' then 'current_date or its like'
                         when view.query ~ '[{{]NEXTVALUEEXPR' then 'nextval' end
           ) as called)
         end as calls
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    left join pg_am am on am.oid = c.relam
    left join lateral (
      select r.ev_action::text as query from pg_rewrite r
       where r.ev_class = c.oid and r.rulename = '_RETURN' and c.relkind = 'v'
    ) as view on true
    left join lateral (
      select md5(string_agg(
               row(a.attnum, a.attname, a.atttypid, a.atttypmod, a.attcollation,
                 case when a.attgenerated <> '' then (
                   select d.adbin::text from pg_attrdef d where d.adrelid = a.attrelid and d.adnum = a.attnum) end)::text,
               ',' order by a.attnum)) as marks,
             bool_or(a.atttypid >= {first_user_oid}) as has_own_types
        from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    ) as columns on true
   where c.oid in (select oid from reads)
), answers as (
  select reads.k,
         md5(string_agg(marks.marks, '|' order by marks.oid)) as marks,
         min(case
           when marks.unknowable is not null then
             case when marks.oid = wanted.oid then 'is ' else 'reads ' end || marks.unknowable || ' ' || marks.name
           when marks.calls is not null then 'calls ' || marks.calls
           -- A view asks as its owner, so that here nothing tells which policies count.
           when marks.has_policies_for_us or (marks.has_policies and marks.oid <> wanted.oid)
             then 'is read through the row-level security of ' || marks.name
         end) as unknowable
    from reads join marks using (oid) join wanted using (k) group by reads.k
)
select wanted.oid is not null,
       wanted.schema_oid is not null and not has_schema_privilege(wanted.schema_oid, 'usage'),
       answers.marks, answers.unknowable
  from wanted left join answers using (k) order by wanted.k
"""


# PostgreSQL writes the counters of a session when it ends, and of one that is idle within ten seconds.
_COUNTING = """
select exists (
  select from pg_stat_activity
   where datname = current_database() and usename = session_user and backend_type = 'client backend'
     and pid <> pg_backend_pid()
     and (state is distinct from 'idle' or state_change > clock_timestamp() - interval '15 seconds'))
"""


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """The facts of a server that decide whether its counters prove anything."""

    version: int
    """Such as 150004 for 15.4."""
    is_postgres: bool
    """Whether it is PostgreSQL itself, not a server that speaks its protocol."""
    version_text: str
    is_standby: bool
    counts_here: bool
    """`track_counts` of this session."""
    not_counting: str | None
    """The roles and databases whose sessions do not count what they write."""
    has_citus: bool
    epoch: str


@dataclass(frozen=True, slots=True)
class RelationMarks:
    """The facts of one relation."""

    exists: bool
    is_closed: bool
    """Whether the role may not look into its schema."""
    marks: str | None
    """A hash that moves with the rows that a query of the relation returns."""
    unknowable: str | None
    """Why `marks` does not prove that, such as `reads the foreign table raw.orders`."""


def read_server(session: WarehouseSession) -> ServerFacts:
    """Return the facts of the server of the open connection. Raises StatementError."""
    ((version, is_postgres, text, standby, counts, not_counting, citus, epoch),) = session.execute(_SERVER)
    return ServerFacts(version, is_postgres, str(text), standby, counts, not_counting, citus, str(epoch))


def is_counting(session: WarehouseSession) -> bool:
    """Return whether another session of our role may have written rows that the counters do not include yet.

    Raises StatementError.
    """
    return bool(session.execute(_COUNTING)[0][0])


def read_relations(session: WarehouseSession, names: Sequence[tuple[str, str]]) -> list[RelationMarks]:
    """Return the facts of relations by schema and name, in their order. PostgreSQL 15 or later.

    Raises StatementError.
    """
    sql = _RELATIONS.format(
        schemas=name_array(schema for schema, _ in names),
        names=name_array(name for _, name in names),
        first_user_oid=_FIRST_USER_OID,
        by_setting_only=_BY_SETTING_ONLY,
    )
    return [RelationMarks(*row) for row in session.execute(sql)]


def name_array(names: Iterable[str]) -> str:
    """Return SQL for an array of names, cut at PostgreSQL's limit like every name.

    >>> name_array(["raw", "it's"])
    "array[e'raw', e'it''s']::name[]"
    """
    # As escape strings: a role may have switched `standard_conforming_strings` off.
    quoted = ("e'" + name.replace("\\", "\\\\").replace("'", "''") + "'" for name in names)
    return f"array[{', '.join(quoted)}]::name[]"
