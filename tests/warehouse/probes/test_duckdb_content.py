"""DuckDB tables without `loaded_at_*`: a gate on the file, then a hash of the rows."""

from __future__ import annotations

import time
from contextlib import closing

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dagster_sao.warehouse import ProbeKind, SourceProber
from dagster_sao.warehouse.queries.duckdb_hash import ROW, rows_hash
from dagster_sao.warehouse.relations.file_stat import SETTLED_AFTER_NS

LABEL = "plain.orders"


def later() -> int:
    """A clock by which every stat is settled, without waiting."""
    return time.time_ns() + SETTLED_AFTER_NS


def tick(path) -> None:
    """Wait until the clock of the file system has moved past the file's last change."""
    changed = max(path.stat().st_mtime_ns, path.stat().st_ctime_ns)
    probe = path.with_suffix(".tick")
    while True:
        probe.write_text("")
        if probe.stat().st_ctime_ns > changed:
            return


CHANGES = {
    "insert": "insert into plain.orders values (3, 'c')",
    "update": "update plain.orders set name = 'z' where id = 1",
    "delete": "delete from plain.orders where id = 1",
    "truncate": "truncate plain.orders",
    "swap": "update plain.orders set name = case name when 'a' then 'b' else 'a' end",
    "double": "insert into plain.orders select * from plain.orders",
    "recreate": "create or replace table plain.orders as select 1 as id, 'a' as name",
    "null": "update plain.orders set name = null where id = 1",
    "empty text": "update plain.orders set name = '' where id = 1",
    "add column": "alter table plain.orders add column more int",
    "rename column": "alter table plain.orders rename name to label",
    "change type": "alter table plain.orders alter id type bigint",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_content_changes_the_token(shop, change):
    prober = SourceProber(shop.session(), now_ns=later)
    before = shop.observe(LABEL, prober=prober)[LABEL]
    tick(shop.database)
    shop.write(CHANGES[change])
    after = shop.observe(LABEL, prober=prober)[LABEL]
    assert before.kind is after.kind is ProbeKind.DUCKDB
    assert None not in (before.token, after.token)
    assert before.token != after.token


def test_equal_pairs_of_rows_do_not_cancel_each_other(shop):
    tokens = set()
    for name in ("a", "b", "c"):
        shop.write(f"create or replace table plain.orders as select 1 as id, '{name}' as name from range(2)")
        tokens.add(shop.observe(LABEL)[LABEL].token)
    assert len(tokens) == 3


def test_values_exchanged_between_rows_do_not_cancel_each_other(shop):
    """DuckDB's own hash of a row is linear in its last column."""
    hashed = f"select {rows_hash([])} from (values {{}}) as {ROW}(id, name)"
    with closing(duckdb.connect()) as connection:
        before, after = (
            connection.execute(hashed.format(rows)).fetchone() for rows in ("(1, 'a'), (2, 'b')", "(1, 'b'), (2, 'a')")
        )
    assert [one != other for one, other in zip(before[0].split("-"), after[0].split("-"), strict=True)] == [
        False,
        True,
        True,
    ]


EQUATED = [
    ("int[]", "null", "[]"),
    ("int[][]", "[[1], [2]]", "[[1, 2]]"),
    ("struct(a int)", "null", "{'a': null}"),
    ("double", "0.0", "'-0.0'"),
    ("interval", "interval '1 month'", "interval '30 days'"),
    ("struct(a interval)", "{'a': interval '1 day'}", "{'a': interval '24 hours'}"),
    ("union(a int, b int)", "union_value(a := 1)", "union_value(b := 1)"),
]
"""Values that DuckDB's hash, or their text, does not tell apart, with their type."""


@pytest.mark.parametrize(("kind", "before", "after"), EQUATED, ids=[kind for kind, *_ in EQUATED])
def test_values_that_are_equal_for_a_join_have_tokens_of_their_own(shop, kind, before, after):
    def token(value):
        shop.write(f'create or replace table plain.orders("the "" column" {kind})')
        shop.write(f"insert into plain.orders values ({value})")
        return shop.observe(LABEL)[LABEL].token

    assert token(before) != token(after)


def test_the_token_does_not_depend_on_the_time_zone_of_the_session(shop, monkeypatch):
    shop.write("create or replace table plain.orders as select [timestamptz '2026-01-01 00:00:00+00'] as at")
    tokens = set()
    for zone in ("UTC", "Asia/Kathmandu"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        tokens.add(shop.observe(LABEL)[LABEL].token)
    monkeypatch.undo()
    time.tzset()
    assert len(tokens) == 1


def test_another_collation_changes_the_token(shop):
    tokens = set()
    for collation in ("", "collate nocase"):
        shop.write(f"create or replace table plain.orders(name varchar {collation})")
        tokens.add(shop.observe(LABEL)[LABEL].token)
    assert len(tokens) == 2


def test_writes_elsewhere_and_the_order_of_rows_keep_the_token(shop):
    prober = SourceProber(shop.session(), now_ns=later)
    before = shop.observe(LABEL, prober=prober)[LABEL].token
    tick(shop.database)
    shop.write(
        "create table plain.other as select 1 as id",
        "create or replace table plain.orders as select * from plain.orders order by id desc",
    )
    assert shop.observe(LABEL, prober=prober)[LABEL].token == before


def test_an_unmoved_file_is_not_opened(shop):
    prober = SourceProber(shop.session(), now_ns=later)
    labels = (LABEL, "plain.recent", "plain.gone", "plain.odd")
    first = shop.observe(*labels, prober=prober)
    opened = len(shop.opened)
    assert shop.observe(*labels, prober=prober) == first
    assert len(shop.opened) == opened


def test_a_stat_that_may_still_hide_a_write_is_no_proof(shop):
    changed = max(shop.database.stat().st_mtime_ns, shop.database.stat().st_ctime_ns)
    prober = SourceProber(shop.session(), now_ns=lambda: changed + SETTLED_AFTER_NS - 1)
    shop.observe(LABEL, prober=prober)
    opened = len(shop.opened)
    shop.observe(LABEL, prober=prober)
    assert len(shop.opened) > opened


def test_a_stat_in_the_future_is_no_proof(shop):
    prober = SourceProber(shop.session(), now_ns=lambda: 0)
    shop.observe(LABEL, prober=prober)
    opened = len(shop.opened)
    shop.observe(LABEL, prober=prober)
    assert len(shop.opened) > opened


def test_a_write_during_the_look_is_seen_by_the_next(shop):
    session = shop.session()
    prober = SourceProber(session, now_ns=later)
    execute = session.execute
    written = []

    def write_meanwhile(sql, limit=None):
        rows = execute(sql, limit)
        if "bit_xor" in sql and not written:
            written.append(sql)
            session._adapter.release()
            shop.write("insert into plain.orders values (3, 'c')")
            session._adapter.open()
        return rows

    session.execute = write_meanwhile
    before = shop.observe(LABEL, prober=prober)[LABEL].token
    assert shop.observe(LABEL, prober=prober)[LABEL].token != before


def test_a_commit_that_is_only_in_the_write_ahead_log_is_seen(shop):
    prober = SourceProber(shop.session(), now_ns=later)
    before = shop.observe(LABEL, prober=prober)[LABEL].token
    tick(shop.database)
    with closing(duckdb.connect(str(shop.database))) as connection:
        connection.execute("pragma disable_checkpoint_on_shutdown")
        connection.execute("insert into plain.orders values (3, 'c')")
    assert shop.database.with_name("shop.duckdb.wal").exists()
    assert shop.observe(LABEL, prober=prober)[LABEL].token != before


def test_a_view_is_untracked_and_says_so(shop):
    seen = shop.observe("plain.recent")["plain.recent"]
    assert (seen.token, seen.kind, seen.error) == (None, ProbeKind.UNTRACKED, None)
    assert seen.warning == (
        "plain.recent is a view with no 'loaded_at_field' or 'loaded_at_query', so it is always considered fresh"
    )


def test_a_table_replaced_by_a_view_becomes_untracked(shop):
    prober = SourceProber(shop.session(), now_ns=later)
    shop.observe(LABEL, prober=prober)
    tick(shop.database)
    shop.write("drop view plain.recent", "drop table plain.orders", "create view plain.orders as select 1 as id")
    assert shop.observe(LABEL, prober=prober)[LABEL].kind is ProbeKind.UNTRACKED


def test_a_missing_table_is_an_error_and_comes_back(shop):
    prober = SourceProber(shop.session(), now_ns=later)
    assert shop.observe("plain.gone", prober=prober)["plain.gone"].error == (
        "plain.gone (models/sources.yml) does not exist in the warehouse."
        " Create it, or correct the source's schema and identifier"
    )
    tick(shop.database)
    shop.write("create table plain.gone (id int)")
    assert shop.observe("plain.gone", prober=prober)["plain.gone"].token


def test_a_database_file_that_does_not_exist_yet_holds_no_table_and_is_not_created(shop):
    shop.database.unlink()
    prober = SourceProber(shop.session(), now_ns=later)
    labels = (LABEL, "fields.exact", "queries.this")
    assert all(
        "does not exist in the warehouse" in seen.error for seen in shop.observe(*labels, prober=prober).values()
    )
    assert not shop.database.exists()
    shop.write((shop.folder / "warehouse.sql").read_text())
    assert all(seen.token for seen in shop.observe(*labels, prober=prober).values())


def test_sources_in_files_work_before_the_database_exists(shop):
    shop.database.unlink()
    (shop.folder / "data" / "loads.csv").write_text("loaded_at\n2026-01-01 00:00:00\n")
    labels = ("files.with_field", "files.with_query")
    assert {seen.token for seen in shop.observe(*labels).values()} == {"2026-01-01T00:00:00"}


def test_an_attached_database_is_looked_at_without_a_gate(shop):
    lake = shop.folder / "lake.duckdb"

    def write(statement):
        with closing(duckdb.connect(str(lake))) as connection:
            connection.execute(statement)

    write("create table events as select 1 as id")
    prober = SourceProber(shop.session(target="attached"), now_ns=later)
    first = shop.observe("lake.events", LABEL, prober=prober)
    write("insert into events values (2)")
    second = shop.observe("lake.events", LABEL, prober=prober)
    assert first["lake.events"].token
    assert first["lake.events"].token != second["lake.events"].token
    assert first[LABEL] == second[LABEL]


def test_a_table_of_an_in_memory_database_does_not_exist(shop):
    prober = SourceProber(shop.session(target="memory"))
    assert "does not exist" in shop.observe(LABEL, prober=prober)[LABEL].error


VALUES = st.tuples(st.one_of(st.none(), st.integers(-2, 2)), st.one_of(st.none(), st.sampled_from(["", "a", "b"])))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), st.lists(VALUES, min_size=1, max_size=3)),
        st.tuples(st.just("update"), st.integers(-2, 2), st.sampled_from(["", "a", "b", None])),
        st.tuples(st.just("delete"), st.integers(-2, 2)),
        st.tuples(st.just("truncate")),
        st.tuples(st.just("recreate"), st.lists(VALUES, max_size=2), st.sampled_from(["int", "bigint"])),
        st.tuples(st.just("rollback"), st.lists(VALUES, min_size=1, max_size=1)),
        st.tuples(st.just("nothing")),
    ),
    min_size=1,
    max_size=6,
)


def apply(connection, step) -> None:
    name, *arguments = step
    if name == "insert":
        connection.executemany("insert into plain.orders values (?, ?)", [list(row) for row in arguments[0]])
    elif name == "update":
        connection.execute("update plain.orders set name = ? where id = ?", [arguments[1], arguments[0]])
    elif name == "delete":
        connection.execute("delete from plain.orders where id = ?", [arguments[0]])
    elif name == "truncate":
        connection.execute("truncate plain.orders")
    elif name == "recreate":
        connection.execute("drop table plain.orders cascade")
        connection.execute(f"create table plain.orders (id {arguments[1]}, name varchar)")
        for row in arguments[0]:
            connection.execute("insert into plain.orders values (?, ?)", list(row))
    elif name == "rollback":
        connection.execute("begin")
        connection.execute("insert into plain.orders values (?, ?)", list(arguments[0][0]))
        connection.execute("rollback")


def content(connection):
    result = connection.execute("select * from plain.orders")
    columns = [(column[0], str(column[1])) for column in result.description]
    return columns, sorted(map(repr, result.fetchall()))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_the_token_differs_exactly_when_the_content_does(shop, steps):
    shop.write("drop view if exists plain.recent", "create or replace table plain.orders (id int, name varchar)")
    prober = SourceProber(shop.session(), now_ns=later)
    previous = None
    for step in steps:
        tick(shop.database)
        with closing(duckdb.connect(str(shop.database))) as connection:
            apply(connection, step)
            now = content(connection)
        token = shop.observe(LABEL, prober=prober)[LABEL].token
        assert token is not None
        if previous is not None:
            assert (token == previous[0]) == (now == previous[1])
        previous = token, now
        opened = len(shop.opened)
        assert shop.observe(LABEL, prober=prober)[LABEL].token == token
        assert len(shop.opened) == opened, "nothing was written, yet the database was opened"
