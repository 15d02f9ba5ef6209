"""Data that moves while dbt reads it: the build then has no known inputs, and is repeated."""

from __future__ import annotations

from collections.abc import Callable

import dagster as dg
import duckdb
import pytest

from tests.histories.inprocess_dbt import InProcessDbt
from tests.histories.lab import TABLE, VIEW, lab
from tests.support.postgres_server import PASSWORD, USER

pytestmark = pytest.mark.slow

SOURCES = """
sources:
  - name: raw
    schema: raw
    tables:
      - {name: orders, config: {loaded_at_field: updated_at}}
      - {name: items}
"""
COUNT = "select count(*) as n, (select count(*) from {{ source('raw', 'items') }}) as i from "
FILES = {
    "models/sources.yml": SOURCES,
    "models/v.sql": VIEW + "select * from {{ source('raw', 'orders') }}",
    "models/t.sql": TABLE + COUNT + "{{ source('raw', 'orders') }}",
    "models/through_view.sql": TABLE + COUNT + "{{ ref('v') }}",
    "models/below.sql": TABLE + "select n from {{ ref('t') }}",
    "models/p.yml": "models: [{name: v, columns: [{name: id, data_tests: [not_null: {name: there}]}]}]",
}
COUNTS = "select (select n from t), (select n from through_view), (select n from below)"
ROWS = "(1, timestamp '2026-01-01 01:00'), (2, timestamp '2026-01-02 01:00')"
SETUP = [
    "create schema raw",
    f"create table raw.orders as select * from (values {ROWS}) r(id, updated_at)",
    "create table raw.items as select 1 as id",
]
MORE_ITEMS, EMPTY, REFILL = (
    "insert into raw.items values (2)",
    "delete from raw.orders",
    f"insert into raw.orders values {ROWS}",
)
Sql = Callable[[str], object]


def before_dbt(happens: Callable[[], object]) -> None:
    InProcessDbt.stage.accident.before_dbt = happens


def after_dbt(happens: Callable[[], object]) -> None:
    InProcessDbt.stage.accident.before_events = happens


@pytest.mark.parametrize("what", ["loaded_at", "content"])
def test_a_state_that_only_the_build_saw_is_built_again_when_it_is_gone(tmp_path, what):
    """The rows are gone when dbt reads them, and are as before at the next look."""
    sources = SOURCES if what == "loaded_at" else SOURCES.replace(", config: {loaded_at_field: updated_at}", "")
    with lab(tmp_path, {**FILES, "models/sources.yml": sources}, SETUP) as case:
        case.settle()
        case.sql(MORE_ITEMS)
        before_dbt(lambda: case.sql(EMPTY))
        (run,) = case.cycle()
        assert (run.nodes["t"][0], case.sql(COUNTS)) == ("build", [(0, 0, 0)])
        case.sql(REFILL)
        runs = case.cycle()
        # The file was written before dbt opened it, so nothing of what it held is certain.
        assert runs[0].nodes["t"] == ("build", "New changes detected: raw.items, raw.orders")
        assert case.sql(COUNTS) == [(2, 2, 2)]
        assert case.cycle() == []


@pytest.mark.parametrize("event", [dg.AssetMaterialization, pytest.param(dg.AssetObservation, marks=pytest.mark.rare)])
def test_a_version_that_a_loader_reported_only_while_dbt_ran_is_built_again(tmp_path, event):
    """The loader gives versions that return, and takes its load back before the run records what it built."""

    def load(statement: str, version: str) -> None:
        case.sql(statement)
        tags = {"dagster/data_version": version, "dagster/data_version_is_user_provided": "true"}
        case.instance.report_runless_asset_event(event(dg.AssetKey(["raw", "orders"]), tags=tags))
        case.watch.learned(["orders"])

    def load_items() -> None:
        case.instance.report_runless_asset_event(dg.AssetMaterialization(["raw", "items"]))
        case.watch.learned(["items"])

    with lab(tmp_path, FILES, SETUP, loaded_by_dagster=["raw.*"]) as case:
        load(EMPTY, "empty")
        case.settle()
        load_items()
        # The same version again is no news.
        before_dbt(lambda: load(EMPTY, "empty"))
        assert case.cycle() != []
        assert case.cycle() == []
        load_items()
        before_dbt(lambda: load(REFILL, "filled"))
        after_dbt(lambda: load(EMPTY, "empty"))
        (run,) = case.cycle()
        assert (run.nodes["t"][0], case.sql(COUNTS)) == ("build", [(2, 2, 2)])
        (run,) = case.cycle()
        assert run.nodes["t"] == ("build", "New changes detected: raw.orders")
        assert case.sql(COUNTS) == [(0, 0, 0)]
        assert case.cycle() == []


@pytest.mark.parametrize("what", ["loaded_at", "content"])
def test_rows_that_left_and_came_back_around_dbt_in_its_own_file_are_read_again(tmp_path, what):
    """Nobody else can write the DuckDB file while dbt has it: it tells whether dbt found it as the run did."""
    sources = SOURCES if what == "loaded_at" else SOURCES.replace(", config: {loaded_at_field: updated_at}", "")
    with lab(tmp_path, {**FILES, "models/sources.yml": sources}, SETUP) as case:
        case.settle()
        for start in (case.cycle, case.job, lambda: case.materialize("t", "through_view", "below")):
            case.sql(MORE_ITEMS)
            before_dbt(lambda: case.sql(EMPTY))
            after_dbt(lambda: case.sql(REFILL))
            start()
            assert case.sql(COUNTS) == [(0, 0, 0)]
            case.settle()
            assert case.sql(COUNTS) == [(2, 2, 2)]
            assert case.cycle() == []


def test_an_invocation_that_reads_what_the_one_before_left_is_not_repeated(tmp_path):
    """The file is another after each dbt of the run, and in the midst of it the sensors of others look into it."""
    refreshed = "meta={'dagster_sao': {'on_code_change': 'full_refresh'}}"
    incremental = (
        f"{{{{ config(materialized='incremental', {refreshed}) }}}} " + COUNT + "{{ source('raw', 'orders') }}"
    )
    files = {**FILES, "models/a.sql": incremental, "models/b.sql": incremental}
    with lab(tmp_path, files, SETUP) as case:
        case.settle()
        case.edit({"models/a.sql": incremental.replace("as n", "as n, 1 as m")})
        case.sql(MORE_ITEMS)
        before = case.invocations
        before_dbt(lambda: duckdb.connect(str(tmp_path / "warehouse.duckdb"), read_only=True).close())
        (run,) = case.cycle()
        assert {"a", "b", "t"} <= {name for name, (decision, _) in run.nodes.items() if decision == "build"}
        assert case.invocations - before == 2
        assert case.cycle() == []
        case.materialize("a", "b", "t")
        case.check("there")
        assert case.cycle() == []


def test_nothing_is_built_twice_when_nothing_moves(tmp_path):
    with lab(tmp_path, FILES, SETUP) as case:
        case.settle()
        case.sql(MORE_ITEMS)
        assert [set(run.nodes) for run in case.cycle()] == [{"t", "through_view", "below"}]
        assert case.cycle() == []
        assert all(decision == "reused" for decision, _ in case.job().nodes.values())


def test_what_cannot_be_looked_at_again_is_built_once_more_when_it_can(tmp_path):
    lose, mend = "alter table raw.orders rename updated_at to gone", "alter table raw.orders rename gone to updated_at"
    with lab(tmp_path, FILES, SETUP) as case:
        case.settle()
        case.sql(MORE_ITEMS)
        before_dbt(lambda: case.sql(EMPTY))
        after_dbt(lambda: case.sql(lose))
        case.cycle()
        case.settle()  # nothing is built for ever while nobody can know
        case.advance(hours=1)
        assert case.cycle() == []
        case.sql(REFILL)
        case.sql(mend)
        case.advance(hours=1)  # what fails is asked now and then
        case.settle()
        assert case.sql(COUNTS) == [(2, 2, 2)]


BIG, SMALL = 20_000, 3


@pytest.mark.parametrize("lines", [BIG, SMALL])
def test_a_seed_whose_file_is_written_while_it_is_loaded_is_loaded_again(tmp_path, lines):
    """Over 1 MiB dbt takes no checksum, and below it takes one before it reads the file once more."""

    def seed(letter: str) -> dict[str, str]:
        return {"seeds/big.csv": "id,v\n" + "".join(f"{i},{letter}{'y' * 60}\n" for i in range(lines))}

    files = {**seed("a"), "models/c.sql": TABLE + "select distinct v[1:1] as v from {{ ref('big') }}"}
    with lab(tmp_path, files, ["create schema raw"]) as case:
        case.settle()
        case.edit(seed("b"))
        after_dbt(lambda: case.edit(seed("c")))
        case.settle()
        assert case.sql("select v from c") == [("c",)]
        after_dbt((tmp_path / "seeds/big.csv").touch)
        case.edit(seed("d"))
        case.cycle()
        assert case.decision("big") == ("build", "Code changed: columns, file")
        case.watch.learned({"big"})
        case.settle()
        assert case.decision("big")[0] == "reuse"


# PostgreSQL: its counters are the witness of a `loaded_at_field`


@pytest.fixture
def postgres(postgres_server, tmp_path):
    """A profile for the server, and a way to its database."""
    target = f"{{type: postgres, host: 127.0.0.1, port: {postgres_server.port}, user: {USER}, password: {PASSWORD},"
    profile = (
        f"shop: {{target: warehouse, outputs: {{warehouse: {target} threads: 1, dbname: moves, schema: public}}}}}}"
    )

    def sql(*statements: str) -> list[tuple[object, ...]]:
        connection = postgres_server.connect("moves")
        with connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            found = cursor.fetchall() if cursor.description else []
        connection.close()
        return found

    admin = postgres_server.connect()
    with admin.cursor() as cursor:
        cursor.execute("drop database if exists moves")
        cursor.execute("create database moves")
    sql(*SETUP)
    yield {**FILES, "profiles.yml": profile}, sql
    admin.close()


@pytest.mark.parametrize("lost", [EMPTY, "truncate raw.orders"])
def test_rows_that_left_and_came_back_under_a_build_are_read_again(postgres, tmp_path, lost):
    files, sql = postgres
    with lab(tmp_path, files, []) as case:
        case.settle()
        sql(MORE_ITEMS)
        before_dbt(lambda: sql(lost))
        after_dbt(lambda: sql(REFILL))
        case.cycle()
        assert sql(COUNTS) == [(0, 0, 0)]
        case.settle()
        assert sql(COUNTS) == [(2, 2, 2)]
        assert case.cycle() == []
        # A job and a run by hand are looked after in the same way.
        for start in (case.job, lambda: case.materialize("t", "through_view", "below")):
            sql("insert into raw.items values (3)")
            before_dbt(lambda: sql(lost))
            after_dbt(lambda: sql(REFILL))
            start()
            case.settle()
            assert sql(COUNTS) == [(2, 2, 2)]


def test_a_build_that_moves_its_own_source_is_repeated_later_and_later(postgres, tmp_path):
    files, sql = postgres
    hook = '{{ config(post_hook="update raw.orders set id = id") }} '
    with lab(tmp_path, {**files, "models/t.sql": hook + files["models/t.sql"]}, []) as case:
        case.settle()
        sql(MORE_ITEMS)
        case.settle()
        builds = len(case.told)
        case.advance(minutes=4)
        assert case.cycle() == []
        case.advance(hours=6)
        case.settle()
        assert len(case.told) == builds + 1


def test_a_verdict_on_rows_that_moved_stands_for_nothing(postgres, tmp_path):
    files, sql = postgres
    with lab(tmp_path, files, []) as case:
        case.settle()
        sql(MORE_ITEMS, "insert into raw.orders values (null, timestamp '2026-01-03')")
        before_dbt(lambda: sql("delete from raw.orders where id is null"))
        after_dbt(lambda: sql("insert into raw.orders values (null, timestamp '2026-01-03')"))
        case.cycle()
        assert case.verdicts == {"there": "pass"}
        case.settle()
        assert case.verdicts == {"there": "fail"}


def test_rows_of_another_run_that_were_taken_back_are_built_again(tmp_path):
    """Another run builds the parent after the versions were captured, and the parent returns within the child's window."""
    window = "{{ config(materialized='table', freshness={'build_after': {'count': 1, 'period': 'day'}}) }} "
    files = {
        "models/sources.yml": SOURCES,
        "models/t.sql": TABLE + COUNT + "{{ source('raw', 'orders') }}",
        "models/v.sql": VIEW + "select * from {{ ref('t') }}",
        "models/below.sql": window + "select n from {{ ref('t') }}",
        "models/through_view.sql": window + "select n from {{ ref('v') }}",
        "models/beside.sql": window + "select 1 as n",
    }
    counts = "select (select n from below), (select n from through_view)"
    with lab(tmp_path, files, SETUP) as case:
        case.settle()
        case.advance(days=2)

        def others() -> None:
            case.sql(EMPTY)
            case.look()
            case.materialize_beside("t")

        before_dbt(others)
        case.materialize("below", "through_view", "beside")
        assert case.sql(counts) == [(0, 0)]
        case.sql(REFILL)
        case.settle()
        assert case.sql("select n from t") == [(2,)]
        case.advance(days=2)
        case.settle()
        assert case.sql(counts) == [(2, 2)]
        assert case.cycle() == []
