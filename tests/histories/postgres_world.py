"""A history on PostgreSQL: what happens to tables there, and whether views survive it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
from hypothesis import strategies as st

from dagster_sao.core.decision.decide import Action
from tests.histories.inprocess_dbt import Accident, InProcessDbt, run_dbt
from tests.histories.kinds import ON_POSTGRES, a_step
from tests.histories.simulated_time import SimulatedTime
from tests.histories.station import Run, Station
from tests.histories.steps import PAUSE, Step
from tests.support.postgres_server import PASSWORD, USER, Server

_LONG_ENOUGH = timedelta(hours=7)

_FILES = {
    "dbt_project.yml": "{name: shop, version: 1.0.0, profile: shop, flags: {send_anonymous_usage_stats: false}}",
    "models/sources.yml": """
sources:
  - name: raw
    tables:
      - {name: orders, columns: [{name: amount, data_tests: [not_null: {name: raw_amounts}]}]}
      - {name: parts}
      - {name: sums}
      - {name: shown}
      - {name: mixed, identifier: Mixed Case}
""",
    "models/properties.yml": """
models:
  - name: t_parts
    columns:
      - name: kind
        data_tests: [accepted_values: {name: kinds, arguments: {values: [a]}, config: {severity: warn}}]
  - name: v_top
    columns: [{name: n, data_tests: [not_null: {name: top_counts}]}]
""",
    "tests/v_signs.sql": "select * from {{ ref('v_orders') }} where amount < 0",
    "tests/top_and_parts.sql": "select * from {{ ref('t_top') }}, {{ ref('t_parts') }} where s < 0",
    "models/v_orders.sql": "select * from {{ source('raw', 'orders') }}",
    "models/v_shown.sql": "select * from {{ source('raw', 'shown') }}",
    "models/t_orders.sql": "select id, amount from {{ ref('v_orders') }}",
    "models/v_on_table.sql": "select * from {{ ref('t_orders') }}",
    "models/v_on_view.sql": "select * from {{ ref('v_on_table') }} where amount > 0",
    "models/t_top.sql": "select count(*) as n, sum(amount) as s from {{ ref('v_on_view') }}",
    "models/v_top.sql": "select * from {{ ref('t_top') }}",
    "models/t_parts.sql": "select kind, count(*) as n from {{ source('raw', 'parts') }} group by kind",
    "models/t_sums.sql": "select * from {{ source('raw', 'sums') }}",
    "models/t_shown.sql": "select sum(amount) as s from {{ ref('v_shown') }}",
    "models/t_mixed.sql": "select * from {{ source('raw', 'mixed') }}",
    "models/inc.sql": """
{{ config(materialized='incremental', unique_key='id') }}
select id, amount from {{ ref('t_orders') }}
""",
    "models/v_on_inc.sql": "select * from {{ ref('inc') }}",
    "models/m_orders.sql": "{{ config(materialized='materialized_view') }} select sum(amount) as s from {{ ref('t_orders') }}",
    "models/kept.sql": """
{{ config(meta={'dagster_sao': {'external_changes': 'rebuild'}}) }}
select id from {{ ref('v_orders') }}
""",
}
_FUNCTION_FILES = {
    "functions/taxed.yml": """
functions:
  - name: taxed
    config: {volatility: deterministic}
    arguments: [{name: x, data_type: integer}]
    returns: {data_type: integer}
""",
    "functions/taxed.sql": "select x * 1",
    "models/t_taxed.sql": "select id, {{ function('taxed') }}(amount) as amount from {{ ref('t_orders') }}",
}
_TABLES = ("t_orders", "t_top", "t_parts", "t_sums", "t_shown", "t_mixed", "inc", "m_orders", "kept", "t_taxed")
_VIEWS = ("v_orders", "v_shown", "v_on_table", "v_on_view", "v_top", "v_on_inc")
_COMPARED = tuple(name for name in (*_TABLES, *_VIEWS) if "inc" not in name)
"""All but what keeps rows that its source has lost."""

_RAW = """
create table raw.orders (id integer, amount integer);
create table raw.parts (id integer, kind text) partition by list (kind);
create table raw.parts_a partition of raw.parts for values in ('a');
create table raw.parts_b partition of raw.parts for values in ('b');
create materialized view raw.sums as select count(*) as n from raw.orders;
create view raw.inner_view as select id, amount from raw.orders;
create view raw.shown as select id, amount * 2 as amount from raw.inner_view;
create table raw."Mixed Case" (id integer);
insert into raw.orders select i, i from generate_series(1, 3) i;
insert into raw.parts values (1, 'a'), (2, 'b');
"""


def write_project(folder: Path, server: Server) -> None:
    """Write the project, and the profile for its warehouse and for the oracle, another schema of the same database."""
    target = f"{{type: postgres, host: 127.0.0.1, port: {server.port}, user: {USER}, password: {PASSWORD}, threads: 1"
    profiles = "".join(
        f"    {name}: {target}, dbname: postgres, schema: {name}}}\n" for name in ("warehouse", "oracle")
    )
    files = {**_FILES, **_FUNCTION_FILES, "profiles.yml": f"shop:\n  target: warehouse\n  outputs:\n{profiles}"}
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.startswith("models/v_"):
            text = "{{ config(materialized='view') }} " + text  # noqa: PLW2901
        elif name.startswith("models/") and name.endswith(".sql") and "config(" not in text:
            text = "{{ config(materialized='table') }} " + text  # noqa: PLW2901
        path.write_text(text, encoding="utf-8")


class Works:
    """The project, parsed once, on one server for all histories of a session."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder, self.server = folder, server
        self.parsed = folder / "target" / "current"
        write_project(folder, server)
        self.publish()

    def publish(self) -> None:
        """Parse the project for the package to see."""
        result = run_dbt(["parse", "--target", "warehouse"], self.folder, self.parsed)
        assert result.success, result.exception
        temporary = self.folder / "target" / "manifest.json.new"
        shutil.copy(self.parsed / "manifest.json", temporary)
        temporary.replace(self.folder / "target" / "manifest.json")

    def write_function(self, factor: int) -> None:
        path = self.folder / "functions" / "taxed.sql"
        text = f"select x * {factor}"
        if path.exists() and path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            self.publish()

    def write_materialized_view(self, factor: int) -> None:
        path = self.folder / "models" / "m_orders.sql"
        text = _FILES["models/m_orders.sql"].replace("sum(amount)", f"sum(amount) * {factor}")
        if path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            self.publish()

    @contextmanager
    def world(self) -> Iterator[PostgresWorld]:
        """Start from an empty database, with everything built once."""
        self.write_function(1)
        self.write_materialized_view(1)
        drop = "".join(f"drop schema if exists {name} cascade;" for name in ("raw", "warehouse", "oracle"))
        self.server.ask(drop + "create schema raw;" + _RAW)
        time = SimulatedTime()
        with time.in_force(), dg.DagsterInstance.ephemeral() as instance:
            world = PostgresWorld(self, instance, time)
            world.quiesce()
            world.assert_current()
            yield world


class PostgresWorld(Station):
    """One history in progress."""

    def __init__(self, works: Works, instance: dg.DagsterInstance, time: SimulatedTime) -> None:
        self._works, self._server = works, works.server
        self._next_id, self._factor = 100, 1
        self._is_detached = False
        self._lost: set[str] = set()
        super().__init__(works.folder, works.parsed, instance, time)

    # What others do

    def _statement(self, sql: str) -> None:
        self._next_id += 1
        self._server.ask(sql.format(id=self._next_id))

    def _copy(self) -> None:
        self._next_id += 1
        with self._server.connect() as connection, connection.cursor() as cursor:
            import io

            cursor.copy_expert("copy raw.orders (id, amount) from stdin", io.StringIO(f"{self._next_id}\t5\n"))
            cursor.execute("select pg_stat_force_next_flush()")

    def _roll_back(self, sql: str) -> None:
        self._next_id += 1
        self._server.ask("begin", sql.format(id=self._next_id), "rollback")

    def _add_column(self) -> None:
        """Add a column to the table that a view reads with `select *`."""
        self._next_id += 1
        self._server.ask(f"alter table raw.orders add column c{self._next_id} integer default 7")

    def _edit_function(self) -> None:
        self._factor += 1
        self._works.write_function(self._factor)
        self.watch.learned(_TABLES)

    def _edit_materialized_view(self) -> None:
        self._factor += 1
        self._works.write_materialized_view(self._factor)
        self.watch.learned(["m_orders"])

    def _partition(self) -> None:
        """Detach a partition, or attach it again with its rows."""
        sql = (
            "attach partition raw.parts_b for values in ('b')" if self._is_detached else "detach partition raw.parts_b"
        )
        self._server.ask(f"alter table raw.parts {sql}")
        self._is_detached = not self._is_detached

    def _kill_backend(self) -> None:
        """Kill a process of the server in the midst of a transaction: all recover from the log."""
        connection = self._server.connect()
        connection.autocommit = False
        cursor = connection.cursor()
        cursor.execute("select pg_backend_pid()")
        (pid,) = cursor.fetchone()
        cursor.execute("insert into raw.orders values (-1, -1)")
        self._server.kill(pid)

    def _restart_server(self, mode: str) -> None:
        self._server.stop(mode)
        self._server.start()

    def _lose(self, name: str) -> None:
        """Drop a relation of a model, and what hangs on it."""
        rows = self._server.ask(
            "select relname, relkind::text from pg_class where relnamespace = 'warehouse'::regnamespace"
        )
        kinds = {"r": "table", "v": "view", "m": "materialized view"}
        kind = kinds[dict(rows)[name]] if name in dict(rows) else None
        if kind:
            self._server.ask(f"drop {kind} warehouse.{name} cascade")

    def _alter(self) -> None:
        """Change rows of a model by hand."""
        rows = self._server.ask("select to_regclass('warehouse.kept') is not null")
        if rows[0][0]:
            self._server.ask("insert into warehouse.kept values (-7)")

    def _replace_view(self, name: str) -> None:
        """Let somebody put an empty view in the place of a model's view."""
        found = self._server.ask(
            f"select pg_get_viewdef(oid) from pg_class where oid = to_regclass('warehouse.{name}') and relkind = 'v'"
        )
        for (query,) in found:
            self._server.ask(
                f"create or replace view warehouse.{name} as select * from ({query.rstrip(';')}) q limit 0"
            )

    # What must hold

    def _judge_run(self, asked: Run, built: AbstractSet[str]) -> None:
        del asked, built

    def _materialize(self, names: list[str]) -> None:
        """A run by hand builds again what it drops, though nobody selected it."""
        before = self._existing_views()
        super()._materialize(names)
        gone = before - self._existing_views()
        # As in dbt, what a test gates that fails in the run is not built again.
        is_failing = any(verdict.is_failing for verdict in self._verdicts().values())
        assert not gone or is_failing, f"materializing {names} by hand left without their views: {gone}"

    def _existing_views(self) -> set[str]:
        rows = self._server.ask("select viewname from pg_views where schemaname = 'warehouse'")
        return {name for (name,) in rows}

    def _cycle(self) -> bool:
        happened = super()._cycle()
        self.assert_readable()
        return happened

    def assert_readable(self) -> None:
        """No view that a run could have dropped stays away when the run has ended."""
        for name in _VIEWS:
            rows = self._server.ask(f"select to_regclass('warehouse.{name}') is not null")
            if rows[0][0]:
                self._server.ask(f"select * from warehouse.{name} limit 1")

    def settle(self) -> None:
        """Come to rest, with all waits elapsed, and compare the warehouse with a full build."""
        InProcessDbt.stage.accident = Accident()
        self.quiesce()
        self._time.advance(_LONG_ENOUGH)
        self.watch.advances += 1
        self.quiesce()
        self.assert_current()

    def assert_current(self) -> None:
        """Compare each relation with what a full `dbt build` makes of the current data."""
        self._server.ask("drop schema if exists oracle cascade")
        result: Any = run_dbt(["build", "--target", "oracle"], self._folder, self._folder / "target" / "oracle")
        statuses = {r.node.name: str(r.status) for r in result.result.results}
        self._assert_tested(statuses)
        for name in _COMPARED:
            if statuses[name] == "success":
                expected, found = (self._rows(f"{schema}.{name}") for schema in ("oracle", "warehouse"))
                assert found == expected, f"missed update: {name} holds {found}, a full build makes {expected}"

    def _assert_tested(self, statuses: Mapping[str, str]) -> None:
        """Compare verdicts and what they hold with what a full build answers, skips and fails."""
        verdicts = self._verdicts()
        for name, status in statuses.items():
            if name not in {*_TABLES, *_VIEWS, "taxed"} and status != "skipped":
                assert name in verdicts, f"no verdict: {name} was never run"
                found = verdicts[name].status.value
                assert found == status, f"wrong verdict: {name} is {verdicts[name]}, a full build: {status}"
        held = {n for n, d in self._decisions().items() if d.action in {Action.HOLD, Action.SKIP}}
        stopped = {name for name, status in statuses.items() if status in {"skipped", "error"}} & {*_TABLES, *_VIEWS}
        assert held == stopped, f"wrong hold: {sorted(held)}, dbt stops {sorted(stopped)}"
        self._assert_shown(verdicts)

    def _rows(self, relation: str) -> list[tuple[object, ...]] | str:
        import psycopg2

        try:
            return sorted(self._server.ask(f"select * from {relation}"), key=repr)
        except psycopg2.Error as error:
            return f"unreadable: {error}"


_WRITES = (
    "insert into raw.orders values ({id}, {id})",
    "insert into raw.orders values ({id}, null)",
    "update raw.orders set amount = 1 where amount is null",
    "insert into raw.orders values ({id}, -{id})",
    "update raw.orders set amount = -amount where amount < 0",
    "update raw.orders set amount = -amount where amount < 0",
    "update raw.orders set amount = {id} where id = (select min(id) from raw.orders)",
    "delete from raw.orders where id = (select max(id) from raw.orders)",
    "truncate raw.orders",
    "vacuum full raw.orders",
    "alter table raw.orders add column more_{id} int default {id}",
    'alter table raw."Mixed Case" alter id type bigint',
    "insert into raw.parts_a values ({id}, 'a')",
    "truncate raw.parts_a",
    "refresh materialized view raw.sums",
    'insert into raw."Mixed Case" values ({id})',
    "create or replace view raw.inner_view as select id, amount + {id} as amount from raw.orders",
    (
        "begin; alter table raw.parts_a rename to parts_old; create table raw.parts_a (like raw.parts_old);"
        " insert into raw.parts_a values ({id}, 'a'); drop table raw.parts_old;"
        " alter table raw.parts attach partition raw.parts_a for values in ('a'); commit"
    ),
)
_world = st.one_of(
    st.tuples(st.just("statement"), st.sampled_from(_WRITES)),
    st.tuples(st.just("roll back"), st.sampled_from(_WRITES[:9])),
    st.just(("copy",)),
    st.just(("partition",)),
    st.tuples(st.just("lose"), st.sampled_from((*_TABLES, *_VIEWS))),
    st.just(("alter",)),
    st.tuples(st.just("restart server"), st.sampled_from(["fast", "immediate"])),
    st.just(("kill backend",)),
)
_work = st.one_of(
    st.just(("cycle",)),
    st.just(("cycle",)),
    st.just(("freshness",)),
    st.tuples(st.just("materialize"), st.lists(st.sampled_from(_TABLES), min_size=1, max_size=2, unique=True)),
    st.tuples(st.just("advance"), st.sampled_from([1, 6, 61])),
    st.just(("restart",)),
)
step = st.one_of(st.just(PAUSE), _world, _world, _work, a_step(ON_POSTGRES))
postgres_histories: st.SearchStrategy[list[Step]] = st.lists(step, min_size=8, max_size=8)
