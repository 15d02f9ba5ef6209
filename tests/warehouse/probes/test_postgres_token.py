"""PostgreSQL tables without loaded_at: whatever changes the rows moves the token, on a real server.

Writers write their counters at once (`Server.ask`), so no test waits for them.
"""

from __future__ import annotations

import subprocess
from contextlib import closing
from dataclasses import replace
from itertools import count

import pytest

from dagster_sao.core.manifest.graph import Source
from dagster_sao.warehouse import ProbeKind, SourceProber, StatementError
from dagster_sao.warehouse.probes import postgres_token as postgres_token_module
from dagster_sao.warehouse.relations.postgres_catalog import ServerFacts
from tests.support.postgres_server import PASSWORD, USER, Server, folder_for_server, session_with

pytest.importorskip("dbt.adapters.postgres")

TABLES = """
create type mood as enum ('good', 'bad');
create type point2 as (x int, y int);
create table orders (id int primary key, name text, size varchar(10), mood mood, place point2, at timestamptz);
insert into orders values (1, 'a', 's', 'good', (1, 2), '2026-01-01'), (2, 'b', 's', 'bad', (1, 2), '2026-01-02');
create table other (id int);
create table days (id int, day int) partition by range (day);
create table day1 partition of days for values from (1) to (2);
create table day2 partition of days for values from (2) to (3);
create table day3 (id int, day int);
create table archive () inherits (orders);
create materialized view totals as select count(*) from orders;
create unlogged table fast (id int);
create sequence numbers;
"""


def source(name, schema="raw", database="postgres"):
    return Source(
        f"source.shop.raw.{name}",
        "raw",
        name,
        "models/sources.yml",
        database=database,
        schema=schema,
        identifier=name,
        relation_name=f'"{database}"."{schema}"."{name}"',
    )


class Place:
    """A schema of its own with the tables above, and a prober."""

    def __init__(self, server, session, schema, database="postgres"):
        self.server, self.schema, self.database = server, schema, database
        self.prober = SourceProber(session)

    def run(self, *statements):
        return self.server.ask(f"set search_path = {self.schema}", *statements, database=self.database)

    def look(self, *names):
        sources = [source(name, self.schema, self.database) for name in names]
        seen = dict(self.prober.observe(sources))
        return [seen[one.unique_id] for one in sources]

    def token(self, name):
        (seen,) = self.look(name)
        assert (seen.kind, seen.error, seen.warning) == (ProbeKind.POSTGRES, None, None)
        assert seen.token
        return seen.token


@pytest.fixture(scope="module")
def session(postgres_server, tmp_path_factory):
    return session_with(postgres_server, tmp_path_factory.mktemp("shop"))


numbers = count(1)


@pytest.fixture
def place(postgres_server, session):
    schema = f"place{next(numbers)}"
    postgres_server.ask(f"create schema {schema}")
    place = Place(postgres_server, session, schema)
    place.run(TABLES)
    yield place
    postgres_server.ask(f"drop schema {schema} cascade")


MOVES = {
    "insert": ("orders", ["insert into orders values (3)"]),
    "update": ("orders", ["update orders set name = 'x' where id = 1"]),
    "delete": ("orders", ["delete from orders where id = 1"]),
    "merge": (
        "orders",
        ["merge into orders o using (values (1)) v (id) on o.id = v.id when matched then update set name = 'm'"],
    ),
    "upsert": ("orders", ["insert into orders values (1) on conflict (id) do update set name = 'u'"]),
    "COPY": ("other", ["copy other from program 'echo 5'"]),
    "rows that replace equally many": ("other", ["insert into other values (1)", "delete from other"]),
    "prepared transaction": (
        "other",
        ["begin", "insert into other values (1)", "prepare transaction 'p'", "commit prepared 'p'"],
    ),
    "TRUNCATE": ("orders", ["truncate orders"]),
    "TRUNCATE of an empty table, and insert": ("other", ["truncate other; insert into other values (1)"]),
    "dropped and created": ("other", ["drop table other; create table other (id int)"]),
    "swap by renaming": (
        "other",
        ["create table other__new (id int); alter table other rename to o2; alter table other__new rename to other"],
    ),
    "VACUUM FULL, needlessly": ("orders", ["vacuum full orders"]),
    "add column": ("orders", ["alter table orders add c int"]),
    "add column with a default": ("orders", ["alter table orders add c int default 5"]),
    "drop column": ("orders", ["alter table orders drop name"]),
    "rename column": ("orders", ["alter table orders rename name to title"]),
    "type of a column": ("orders", ["alter table orders alter id type bigint"]),
    "type of a column without a rewrite": ("orders", ["alter table orders alter size type text"]),
    "type of a column without a rewrite or limit": ("orders", ["alter table orders alter name type varchar"]),
    "column dropped and added again": (
        "orders",
        [
            "alter table orders drop at, drop place",
            "alter table orders add place point2, add at timestamptz default now()",
        ],
    ),
    "renamed value of an enum": ("orders", ["alter type mood rename value 'bad' to 'sad'"]),
    "field of a composite type": ("orders", ["alter type point2 drop attribute y"]),
    "logged again": ("fast", ["alter table fast set logged"]),
    "insert into a partition": ("days", ["insert into day1 values (1, 1)"]),
    "insert through the parent": ("days", ["insert into days values (1, 2)"]),
    "update across partitions": ("days", ["insert into days values (1, 1); update days set day = 2"]),
    "partition attached": ("days", ["alter table days attach partition day3 for values from (3) to (4)"]),
    "partition detached": ("days", ["alter table days detach partition day1"]),
    "partition detached concurrently": ("days", ["alter table days detach partition day1 concurrently"]),
    "partition dropped": ("days", ["drop table day2"]),
    "TRUNCATE of a partition": ("days", ["truncate day1"]),
    "insert into a child table": ("orders", ["insert into archive (id) values (9)"]),
    "child table removed": ("orders", ["alter table archive no inherit orders"]),
    "REFRESH": ("totals", ["insert into orders values (3)", "refresh materialized view totals"]),
    "REFRESH CONCURRENTLY": (
        "totals",
        [
            "create unique index on totals (count)",
            "insert into orders values (3)",
            "refresh materialized view concurrently totals",
        ],
    ),
    "row inserted by a trigger": (
        "other",
        [
            """create function t() returns trigger language plpgsql as $$
               begin execute format('insert into %I.other values (1)', tg_table_schema); return new; end $$""",
            "create trigger t after insert on orders for each row execute function t()",
            "insert into orders values (3)",
        ],
    ),
    "pg_stat_reset, and as many rows again": (
        "orders",
        ["select pg_stat_reset()", "insert into orders values (3), (4)"],
    ),
    "counters of one table reset, and as many rows again": (
        "orders",
        ["select pg_stat_reset_single_table_counters('orders'::regclass)", "insert into orders values (3), (4)"],
    ),
}
KEEPS = {
    "nothing": ("orders", ["select 1"]),
    "a query": ("orders", ["select * from orders for update"]),
    "another table": ("orders", ["insert into other values (1)"]),
    "no row matched": ("orders", ["update orders set name = 'x' where false; delete from orders where false"]),
    "nothing to insert on conflict": ("orders", ["insert into orders values (1) on conflict do nothing"]),
    "rolled back TRUNCATE": ("orders", ["begin", "truncate orders", "rollback"]),
    "rolled back change of columns": ("orders", ["begin", "alter table orders add c int", "rollback"]),
    "rolled back swap": (
        "orders",
        ["begin", "alter table orders rename to o", "alter table other rename to orders", "rollback"],
    ),
    "not yet committed": ("orders", ["begin", "insert into orders values (3)", "prepare transaction 'q'"]),
    "VACUUM": ("orders", ["vacuum orders"]),
    "ANALYZE": ("orders", ["analyze orders"]),
    "an index": ("orders", ["create index on orders (name)"]),
    "a comment and a grant": ("orders", ["comment on table orders is 'x'; grant select on orders to public"]),
    "a default": ("orders", ["alter table orders alter name set default 'x'"]),
    "an enum that the table does not have": ("other", ["alter type mood rename value 'bad' to 'sad'"]),
    "base table of a materialized view": ("totals", ["insert into orders values (3)"]),
    "a sequence": ("orders", ["select nextval('numbers')"]),
}


@pytest.fixture(scope="module", autouse=True)
def prepared_transactions(postgres_server):
    postgres_server.ask("alter system set max_prepared_transactions = 5")
    postgres_server.stop("fast")
    postgres_server.start()


@pytest.mark.parametrize(("name", "statements"), MOVES.values(), ids=MOVES)
def test_what_changes_the_rows_moves_the_token_once(place, name, statements):
    before = place.token(name)
    place.run(*statements)
    after = place.token(name)
    assert after != before
    assert place.token(name) == after


@pytest.mark.parametrize(("name", "statements"), KEEPS.values(), ids=KEEPS)
def test_what_changes_no_row_keeps_the_token(place, name, statements):
    before = place.token(name)
    place.run(*statements)
    assert place.token(name) == before
    if "prepare transaction 'q'" in statements:
        place.run("rollback prepared 'q'")


def test_a_rolled_back_insert_costs_a_build_and_hides_nothing(place):
    before = place.token("orders")
    place.run("begin", "insert into orders values (3)", "rollback")
    assert place.token("orders") != before


def test_a_partition_that_is_being_detached_is_gone_for_queries_and_token(place):
    place.run("insert into days values (1, 1)")
    before = place.token("days")
    with closing(place.server.connect()) as reader, reader.cursor() as cursor:
        cursor.execute(f"begin; select * from {place.schema}.days")
        # The detaching session waits for the reader, then gives up halfway.
        with pytest.raises(Exception, match="statement timeout"):
            place.run("set statement_timeout = '300ms'", "alter table days detach partition day1 concurrently")
    assert place.run("select * from days") == []
    after = place.token("days")
    assert after != before
    place.run("insert into day1 values (1, 1)", "alter table days detach partition day1 finalize")
    assert place.token("days") == after


VIEWS = {
    "plain": "select id, upper(name) as name from orders where id > 0",
    "join": "select o.id from orders o join days d using (id)",
    "aggregate and window": "select count(*), string_agg(name, ','), row_number() over () from orders group by id",
    "time zone of the session": "select date_trunc('day', at), at::date, at + interval '1 day' as later, at < date '2026-01-01' as old from orders",
    "text of the session": "select concat(name, id), 'x' || id, to_char(at, 'YYYY'), to_jsonb(o), json_agg(name) from orders o group by o.id, o.name, o.at, o",
    "sub-query": "select (select max(id) from orders) as m, exists (select from orders where name = 'x') as e",
    "common table expression": "with a as (select * from orders) select * from a union all select * from a",
    "view over a view": "select * from below",
    "view over a view over a partitioned table": "select * from below_days",
    "view over a materialized view": "select * from totals_of_orders",
    "array and case": "select case when id = any (array[1, 2]) then nullif(name, 'a') end from orders",
}
CHANGES = {"view over a view over a partitioned table": "insert into days values (1, 2)"}


@pytest.fixture
def views(place):
    place.run(
        "create view below as select id, name from orders",
        "create view days_ as select * from days",
        "create view below_days as select d.* from days_ d",
        "create view totals_of_orders as select * from totals",
    )
    return place


@pytest.mark.parametrize("query", VIEWS.values(), ids=VIEWS)
def test_a_view_is_followed_to_the_tables_it_reads(views, query, request):
    views.run(f"create view v as {query}")
    before = views.token("v")
    assert views.token("v") == before
    views.run("insert into other values (1)")
    assert views.token("v") == before
    case = request.node.callspec.id
    change = CHANGES.get(case, "insert into orders values (3)")
    views.run(change, *(["refresh materialized view totals"] if "materialized" in case else []))
    assert views.token("v") != before


def test_a_view_redefined_over_the_same_table_moves_its_token(views):
    views.run("create view top as select * from below")
    before = views.token("top")
    views.run("create or replace view below as select id, name from orders where id > 1")
    after = views.token("top")
    assert after != before
    views.run("create or replace view below as select id, name from orders where id > 1")
    assert views.token("top") == after


def test_a_view_of_constants_never_changes(place):
    place.run("create view v as select 1 as one")
    assert place.token("v") == place.token("v")


UNKNOWABLE = {
    "select now() as at": "calls now",
    "select current_date as day": "calls current_date or its like",
    "select random() as r from orders": "calls random",
    "select nextval('numbers') as n": "calls nextval",
    "select age(at) from orders": "calls age",
    "select * from orders where at > now() - interval '1 day'": "calls now",
    "select own(id) from orders": "calls {schema}.own",
    "select own_total(id) from orders": "calls {schema}.own_total",
    "select * from orders tablesample system (10)": "calls tablesample",
    "select relname from pg_class": "reads the system relation pg_catalog.pg_class",
    "select table_name from information_schema.tables": "reads the system relation information_schema.tables",
    "select last_value from numbers": "reads the sequence {schema}.numbers",
    "select * from pg_ls_dir('.')": "calls pg_ls_dir",
    "select current_setting('work_mem')": "calls current_setting",
    "select to_regclass(name) from orders": "calls to_regclass",
    "select * from through_clock": "calls clock_timestamp",
}


@pytest.mark.parametrize(("query", "why"), UNKNOWABLE.items(), ids=UNKNOWABLE)
def test_what_nothing_tells_is_untracked_with_its_reason(place, query, why):
    place.run(
        "create function own(int) returns int immutable language sql as 'select $1'",
        "create aggregate own_total(int) (sfunc = int4pl, stype = int)",
        "create view through_clock as select clock_timestamp()",
        f"create view v as {query}",
    )
    (seen,) = place.look("v")
    assert (seen.token, seen.kind, seen.error) == (None, ProbeKind.UNTRACKED, None)
    assert seen.warning == (
        f"raw.v (models/sources.yml) {why.format(schema=place.schema)}, and PostgreSQL does not report when that changes, so it"
        " is always considered fresh. Give it a loaded_at_field or loaded_at_query to have it tracked"
    )


def test_a_foreign_table_is_untracked_and_so_is_what_reads_it(place):
    try:
        place.run(
            "create extension if not exists file_fdw", "create server if not exists files foreign data wrapper file_fdw"
        )
    except Exception as error:  # noqa: BLE001
        pytest.skip(f"file_fdw is not here: {error}")
    place.run(
        "create foreign table remote (id int) server files options (program 'echo 1')",
        "create view v as select * from remote",
        "create foreign table day4 partition of days for values from (4) to (5) server files options (program 'echo 1')",
    )
    itself, view, partitioned = place.look("remote", "v", "days")
    assert f"is the foreign table {place.schema}.remote, and" in itself.warning
    assert f"reads the foreign table {place.schema}.remote, and" in view.warning
    assert f"reads the foreign table {place.schema}.day4, and" in partitioned.warning


def test_rows_behind_row_level_security_are_untracked_for_whom_it_restricts(place, tmp_path):
    schema = place.schema
    place.run(
        "alter table orders enable row level security",
        "create policy p on orders using (id in (select id from other))",
        "create view through as select * from orders",
        f"create role limited login password '{PASSWORD}'; grant usage on schema {schema} to limited",
    )
    limited = Place(place.server, session_with(place.server, tmp_path, user="limited"), schema)
    seen, plain, view = limited.look("orders", "other", "through")
    why = f"is read through the row-level security of {schema}.orders, and PostgreSQL does not report when that changes"
    assert seen.kind is view.kind is ProbeKind.UNTRACKED
    assert seen.warning.startswith(f"raw.orders (models/sources.yml) {why}")
    assert why in view.warning
    assert plain.token
    # The owner and a superuser see all rows.
    place.token("orders")
    place.run("drop owned by limited; drop role limited")


def test_a_sequence_or_an_index_is_no_table(place):
    sequence, index = place.look("numbers", "orders_pkey")
    assert "is the sequence" in sequence.warning
    assert "is the index or type" in index.warning


def test_a_missing_table_schema_or_database_is_one_sentence_and_harms_no_other(place):
    gone, fine = place.look("gone", "orders")
    assert gone.error == (
        "raw.gone (models/sources.yml) does not exist in the warehouse. Create it, or correct the source's schema and identifier"
    )
    assert fine.token
    sources = [source("orders", "no_such_schema"), source("other", place.schema, "elsewhere")]
    no_schema, no_database = [seen for _, seen in sorted(place.prober.observe(sources), key=lambda pair: pair[0])]
    assert "does not exist in the warehouse" in no_schema.error
    assert "is not in postgres, the database of the target" in no_database.error


def test_names_are_taken_as_dbt_writes_them(place):
    place.run(
        'create table "Mixed Case" (id int)',
        """create table "it's ""quoted"" \\ . here" (id int)""",
        'create table "ORDERS" (id int)',
        f'create table "{"ü" * 40}" (id int)',
    )
    names = ("Mixed Case", 'it\'s "quoted" \\ . here', "ORDERS", "ü" * 40)
    sources = [
        replace(source(name, place.schema), relation_name=f'"{place.schema}"."{name.replace(chr(34), chr(34) * 2)}"')
        for name in names
    ]
    # `quoting: {identifier: false}`: PostgreSQL folds it to lower case.
    bare = replace(source("bare"), relation_name=f'"postgres"."{place.schema}".ORDERS')
    seen = dict(place.prober.observe([*sources, bare, source("orders", place.schema)]))
    assert [one.error for one in seen.values()] == [None] * 6
    assert seen[bare.unique_id].token == seen["source.shop.raw.orders"].token
    assert len({one.token for one in seen.values()}) == 5


def test_the_same_name_in_two_schemas_is_two_tables(place):
    two = f"{place.schema}_two"
    place.run(f"create schema {two}", f"create table {two}.orders (id int)")
    here = source("orders", place.schema)
    there = replace(source("orders", two), unique_id="source.shop.raw.there")
    before = dict(place.prober.observe([here, there]))
    place.run(f"insert into {two}.orders values (1)", "select 1")
    after = dict(place.prober.observe([here, there]))
    assert after[here.unique_id] == before[here.unique_id]
    assert after[there.unique_id] != before[there.unique_id]
    place.run(f"drop schema {two} cascade")


def test_the_same_tables_in_another_database_are_other_tables(place, tmp_path):
    place.server.ask("create database original")
    place.server.ask("create schema raw; create table raw.orders (id int)", database="original")
    session = session_with(place.server, tmp_path, database="copy")
    tokens = set()
    for rows in range(2):
        # A copy keeps the oids and file nodes of its template, and its counters begin at zero.
        place.server.ask(f"insert into raw.orders select {rows}", database="original")
        place.server.ask("drop database if exists copy", "create database copy template original")
        tokens.add(Place(place.server, session, "raw", "copy").token("orders"))
    assert len(tokens) == 2
    place.server.ask("drop database copy", "drop database original")


def test_a_schema_without_permission_is_one_sentence_and_harms_no_other(place, tmp_path):
    schema = place.schema
    place.server.ask(
        f"create role reader login password '{PASSWORD}'",
        f"create schema {schema}_open; grant usage on schema {schema}_open to reader",
        f"create table {schema}_open.orders (id int)",
    )
    prober = SourceProber(session_with(place.server, tmp_path, user="reader"))
    closed = source("orders", schema)
    opened = replace(source("orders", f"{schema}_open"), unique_id="source.shop.raw.open")
    seen = dict(prober.observe([closed, opened]))
    assert seen[closed.unique_id].error == (
        f"raw.orders (models/sources.yml) cannot be read: permission denied for schema {schema}."
        " Grant usage on it to the role of the target"
    )
    assert seen[opened.unique_id].token
    place.server.ask(f"drop schema {schema}_open cascade; drop role reader")


def test_a_thousand_sources_of_which_ten_are_bad(place):
    place.run("do $$ begin for i in 1..990 loop execute format('create table many%s (id int)', i); end loop; end $$")
    names = [f"many{i}" for i in range(1, 1001)]
    before = place.look(*names)
    assert [seen.token is None for seen in before] == [False] * 990 + [True] * 10
    place.run("insert into many7 values (1)")
    after = place.look(*names)
    assert [i for i in range(1000) if before[i] != after[i]] == [6]


def test_a_chunk_that_fails_is_halved_until_the_bad_one_is_alone(place, monkeypatch):
    # No name makes the catalogs fail: that takes a relation that is dropped at the same instant.
    asked = []

    def ask(session, names):
        asked.append(len(names))
        if any(name == "other" for _, name in names):
            session.execute("select 1 / 0")
        return real(session, names)

    real = postgres_token_module.read_relations
    monkeypatch.setattr(postgres_token_module, "read_relations", ask)
    orders, bad, days = place.look("orders", "other", "days")
    assert "cannot be probed: division by zero" in bad.error
    assert orders.token
    assert days.token
    assert asked == [3, 1, 2, 1, 1]


def test_a_locked_table_is_told_without_waiting(place):
    with closing(place.server.connect()) as writer, writer.cursor() as cursor:
        cursor.execute(f"begin; lock table {place.schema}.orders in access exclusive mode")
        before = place.token("orders")
        cursor.execute("commit")
    assert place.token("orders") == before


@pytest.mark.parametrize(
    ("switch", "back", "where"),
    [
        ("alter database uncounted set track_counts = off", "select 1", "track_counts is off."),
        ("alter role writer set track_counts = off", "drop role writer", "track_counts is off for role writer."),
        (
            "alter role all set track_counts = off; alter role loader in database uncounted set track_counts = on",
            "alter role all reset track_counts; alter role loader in database uncounted reset track_counts",
            "track_counts is off for all roles.",
        ),
        (
            "alter role writer in database uncounted set track_counts = 'false'",
            "drop role writer",
            "track_counts is off for role writer.",
        ),
    ],
)
def test_writers_that_are_not_counted_make_all_untracked(postgres_server, tmp_path, switch, back, where):
    postgres_server.ask("create database uncounted", "create role writer login", switch)
    postgres_server.ask(
        "create schema raw; create table raw.a (id int); create table raw.b (id int)", database="uncounted"
    )
    session = session_with(postgres_server, tmp_path, database="uncounted")
    one, other = Place(postgres_server, session, "raw", "uncounted").look("a", "b")
    assert one == other
    assert (one.kind, one.token, one.error) == (ProbeKind.UNTRACKED, None, None)
    assert one.warning.startswith("The change counters of this PostgreSQL server cannot be used: track_counts is off")
    assert "or switch it on" in one.warning
    assert where.rstrip(".") in one.warning
    postgres_server.ask(back, "drop database uncounted", "drop role if exists writer")


FACTS = ServerFacts(150004, True, "PostgreSQL 15.4 on x", False, True, None, False, "e")


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        (replace(FACTS, version=140011), "PostgreSQL 14 may lose some"),
        (replace(FACTS, is_standby=True), "the server is a standby, which counts nothing"),
        (replace(FACTS, has_citus=True), "Citus keeps rows on other servers"),
        (
            replace(FACTS, is_postgres=False, version_text="PostgreSQL 15.2-YB-2.25 on x"),
            "PostgreSQL 15.2-YB-2.25 is not PostgreSQL itself",
        ),
    ],
)
def test_a_server_whose_counters_prove_nothing_makes_all_untracked(place, monkeypatch, facts, why):
    monkeypatch.setattr(postgres_token_module, "read_server", lambda session: facts)
    seen, same = place.look("orders", "gone")
    assert seen == same
    assert seen.kind is ProbeKind.UNTRACKED
    assert f"cannot be used: {why}." in seen.warning


def test_a_server_that_cannot_even_say_makes_all_untracked(place, monkeypatch):
    def refuse(session):
        raise StatementError("permission denied for function pg_current_wal_lsn")

    monkeypatch.setattr(postgres_token_module, "read_server", refuse)
    (seen,) = place.look("orders")
    assert seen.kind is ProbeKind.UNTRACKED
    assert "permission denied for function" in seen.warning


def crash_of_the_server(server):
    server.stop("immediate")
    server.start()


def crash_of_a_backend(server):
    with closing(server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("select pg_backend_pid(), pid from pg_stat_activity where backend_type = 'checkpointer'")
        ((mine, checkpointer),) = cursor.fetchall()
        subprocess.run(["kill", "-9", str(mine)], check=True)
        # The server has begun anew when the old checkpointer's port answers for another one.
        for _ in range(10_000):
            try:
                answer = server.ask("select pid from pg_stat_activity where backend_type = 'checkpointer'")
            except Exception:  # noqa: BLE001
                continue
            if answer and answer != [(checkpointer,)]:
                return
    pytest.fail("the server did not come back")


@pytest.mark.parametrize("crash", [crash_of_the_server, crash_of_a_backend])
def test_a_crash_moves_every_token(place, crash):
    names = ("orders", "other", "days", "totals", "fast")
    place.run("insert into fast values (1)")
    before = place.look(*names)
    crash(place.server)
    after = place.look(*names)
    assert all(one.token and two.token and one.token != two.token for one, two in zip(before, after, strict=True))
    assert place.look(*names) == after


def test_a_restart_keeps_every_token(place):
    before = place.look("orders", "days")
    place.server.stop("fast")
    place.server.start()
    assert place.look("orders", "days") == before


def test_a_former_primary_that_is_promoted_again_moves_every_token(place):
    before = place.look("orders", "other")
    # It keeps its counters as a standby, while another primary writes.
    place.server.stop("fast")
    signal = place.server.folder / "db" / "standby.signal"
    signal.touch()
    signal.chmod(0o666)
    place.server.start()
    place.server.control("promote")
    after = place.look("orders", "other")
    assert all(one.token and two.token and one.token != two.token for one, two in zip(before, after, strict=True))


def test_a_standby_is_untracked_and_once_promoted_another_server(place, tmp_path):
    before = place.token("orders")
    with folder_for_server() as (folder, port):
        standby = Server(place.server.programs, folder, port)
        origin = ("-h", "127.0.0.1", "-p", str(place.server.port), "-U", USER)
        standby.run("pg_basebackup", *origin, "-D", f"{folder}/db", "-R", "-c", "fast", "-X", "stream")
        standby.start()
        try:
            there = Place(standby, session_with(standby, tmp_path), place.schema)
            (seen,) = there.look("orders")
            assert "the server is a standby, which counts nothing" in seen.warning
            assert "or let the target be the primary" in seen.warning
            standby.control("promote")
            assert there.token("orders") != before
        finally:
            standby.stop()


def test_the_password_is_not_in_the_messages(place):
    for seen in place.look("gone", "numbers"):
        assert PASSWORD not in f"{seen.error} {seen.warning}"


def test_the_token_of_a_view_moves_where_backslashes_escape(postgres_server, place, tmp_path):
    place.run("create view seen as select * from other")
    postgres_server.ask("alter database postgres set standard_conforming_strings = off")
    try:
        place.prober = SourceProber(session_with(postgres_server, tmp_path))
        before = place.token("seen")
        place.run("insert into other values (1)")
        assert place.token("seen") != before
    finally:
        postgres_server.ask("alter database postgres reset standard_conforming_strings")
