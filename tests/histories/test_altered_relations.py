"""Rows that somebody or something else alters, and files that somebody writes back, at the moments between two looks."""

from __future__ import annotations

import pytest

from tests.histories.inprocess_dbt import InProcessDbt
from tests.histories.lab import TABLE, lab

pytestmark = pytest.mark.slow

WATCHED = "{{ config(materialized='table', meta={'dagster_sao': {'external_changes': 'rebuild'}}) }} "
FILES = {
    "models/sources.yml": "sources: [{name: raw, schema: raw, tables: [{name: orders}, {name: items}]}]",
    "models/orders.sql": WATCHED + "select id, amount from {{ source('raw', 'orders') }}",
    "models/totals.sql": TABLE
    + "select sum(amount) as amount, (select count(*) from {{ source('raw', 'items') }}) as items from {{ ref('orders') }}",
}
SETUP = [
    "create schema raw",
    "create table raw.orders as select * from (values (1, 10), (2, 20)) t(id, amount)",
    "create table raw.items as select 1 as id",
]


def watch(case):
    """Settle, with a look at rows that was a minute ago."""
    case.settle()
    case.advance(minutes=10)
    case.settle()
    case.advance(minutes=1)


def later(case):
    for _ in range(3):
        case.settle()
        case.advance(hours=3)
    case.settle()


def test_rows_that_were_altered_right_after_a_look_are_found_by_the_next_one(tmp_path):
    with lab(tmp_path, FILES, SETUP) as case:
        watch(case)
        case.sql("update main.orders set amount = 1000")
        later(case)
        assert case.sql("from main.orders order by id") == [(1, 10), (2, 20)]
        assert case.sql("from main.totals") == [(30, 1)]


@pytest.mark.parametrize("by", ["sensor", "hand"])
def test_what_was_built_from_altered_rows_is_built_again_when_they_are_repaired(tmp_path, by):
    with lab(tmp_path, FILES, SETUP) as case:
        watch(case)
        case.sql("update main.orders set amount = 1000")
        case.advance(minutes=1)
        if by == "sensor":
            case.sql("insert into raw.items values (2)")
            case.cycle()
        else:
            case.materialize("totals")
        case.watch.learned(["orders"])
        later(case)
        assert case.sql("select amount from main.totals") == [(30,)]
        assert case.cycle() == []


@pytest.mark.parametrize("when", ["in the run", "after it"])
def test_what_dbt_read_of_a_file_that_is_written_back_is_built_again(tmp_path, when):
    with lab(tmp_path, FILES, SETUP) as case:
        case.settle()
        case.sql("insert into raw.items values (2)")
        path = case.folder / "models/totals.sql"
        text = path.read_text()
        InProcessDbt.stage.accident.before_dbt = lambda: path.write_text(text.replace("(amount)", "(amount) * 100"))
        if when == "in the run":
            InProcessDbt.stage.accident.before_events = lambda: path.write_text(text)
        case.cycle()
        assert case.sql("from main.totals") == [(3000, 2)]
        path.write_text(text)
        case.watch.learned(["totals"])
        later(case)
        assert case.sql("from main.totals") == [(30, 2)]


def test_two_external_models_of_one_file_overwrite_each_other(tmp_path):
    def external(sql):
        config = f"materialized='external', location='{tmp_path}/totals.parquet'"
        return f"{{{{ config({config}) }}}} {sql}"

    sql = "select sum(amount) as amount from {{ source('raw', 'orders') }}"
    files = {"models/sources.yml": FILES["models/sources.yml"], "models/a.sql": external(sql)}
    with lab(tmp_path, files, SETUP) as case:
        case.settle()
        (tmp_path / "models/a.sql").unlink()
        case.edit({"models/b.sql": external(sql.replace("(amount)", "(amount) * 100"))})
        case.restart()
        case.settle()
        (tmp_path / "models/b.sql").unlink()
        case.edit({"models/a.sql": files["models/a.sql"]})
        case.restart()
        case.settle()
        assert case.sql("from main.a") == [(30,)]


VIEWS = {
    "models/sources.yml": FILES["models/sources.yml"],
    "models/paid.sql": "{{ config(materialized='view') }} select * from {{ source('raw', 'orders') }} where amount > 10",
    "models/big.sql": "{{ config(materialized='view') }} select * from {{ ref('paid') }}",
    "models/totals.sql": TABLE + "select count(*) as n from {{ ref('big') }}",
}


@pytest.mark.parametrize(
    "statement",
    [
        "create or replace view main.paid as select * from raw.orders",
        pytest.param("drop view main.paid; create table main.paid as select * from raw.orders", marks=pytest.mark.rare),
    ],
)
def test_a_view_that_was_replaced_by_hand_is_created_anew_and_nothing_else(tmp_path, statement):
    with lab(tmp_path, VIEWS, SETUP) as case:
        watch(case)
        case.sql(statement)
        case.advance(minutes=10)
        (told,) = case.cycle()
        assert told.nodes == {"paid": ("build", "Its definition was altered outside of Dagster")}
        assert case.sql("from main.big") == [(2, 20)]
        assert case.cycle() == []


@pytest.mark.rare
def test_a_view_that_was_replaced_right_after_a_job_is_created_anew_by_the_next_one(tmp_path):
    with lab(tmp_path, VIEWS, SETUP) as case:
        case.job()
        case.sql("create or replace view main.paid as select * from raw.orders")
        case.job()
        assert case.sql("from main.big") == [(2, 20)]


def test_what_was_built_from_a_replaced_view_is_built_again_when_the_view_is_repaired(tmp_path):
    with lab(tmp_path, VIEWS, SETUP) as case:
        watch(case)
        case.sql("create or replace view main.paid as select * from raw.orders")
        case.advance(minutes=1)
        case.materialize("totals")
        assert case.sql("from main.totals") == [(2,)]
        later(case)
        assert case.sql("from main.totals") == [(1,)]
        assert case.cycle() == []


@pytest.mark.rare
def test_a_table_that_was_replaced_by_a_view_is_built_again(tmp_path):
    with lab(
        tmp_path, {**VIEWS, "models/paid.sql": VIEWS["models/paid.sql"].replace("'view'", "'table'")}, SETUP
    ) as case:
        watch(case)
        case.sql("drop table main.paid; create view main.paid as select * from raw.orders")
        later(case)
        assert case.sql("from main.big") == [(2, 20)]
        assert case.cycle() == []
