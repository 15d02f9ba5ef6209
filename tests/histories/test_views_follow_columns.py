"""Views after the columns below them changed, with a real dbt: they hold what a full build would make, whatever the engine."""

from __future__ import annotations

from dagster_sao.warehouse.adapters import traits_of
from tests.histories.inprocess_dbt import run_dbt
from tests.histories.lab import TABLE, VIEW, lab

SOURCES = """
sources:
  - name: raw
    schema: raw
    tables: [{name: orders, loaded_at_query: "select date '2026-01-01' + max(id)::int from raw.orders"}]
"""
SETUP = ["create schema raw", "create table raw.orders as select * from (values (1, 10), (2, 20)) t(id, amount)"]
ORDERS = "select * from {{ source('raw', 'orders') }}"
IS_BOUND = traits_of("duckdb").relations.binds_views
NEW_COLUMN = "alter table raw.orders add column note varchar default 'x'"


def rows(case, name):
    return case.sql(f"select * from main.{name} order by all")


def columns(case, name):
    return [row[:2] for row in case.sql(f"describe main.{name}")]


def rebuilt(case, *names):
    """Return what relations hold now, and hold after a build of everything."""
    before = [(columns(case, name), rows(case, name)) for name in names]
    result = run_dbt(
        ["build", "--target", "warehouse", "--full-refresh"], case._folder, case._folder / "target" / "all"
    )
    assert result.success, result.exception
    return before, [(columns(case, name), rows(case, name)) for name in names]


def is_as_rebuilt(case, *names):
    before, after = rebuilt(case, *names)
    return before == after


def test_a_column_that_a_source_gains_without_new_rows_reaches_what_is_below_it(tmp_path):
    files = {
        "models/s.yml": SOURCES,
        "models/v.sql": VIEW + ORDERS,
        "models/w.sql": VIEW + "select * from {{ ref('v') }}",
        "models/c.sql": TABLE + "select * from {{ ref('w') }}",
        "models/d.sql": TABLE + ORDERS,
    }
    with lab(tmp_path, files, SETUP) as case:
        case.settle()
        assert case.cycle() == []
        case.sql(NEW_COLUMN)
        (run,) = case.cycle()
        assert run.success
        assert run.nodes["d"] == ("build", "New changes detected: raw.orders")
        assert run.nodes["c"] == ("build", "New changes detected: w")
        if IS_BOUND:
            assert run.nodes["v"] == ("build", "The columns of raw.orders changed")
            assert run.nodes["w"] == ("build", "v was rebuilt")
        assert case.cycle() == []
        assert is_as_rebuilt(case, "v", "w", "c", "d")


def test_a_type_that_changes_below_a_view_does_not_break_it(tmp_path):
    files = {
        "models/s.yml": SOURCES,
        "models/a.sql": TABLE + "select id, amount from {{ source('raw', 'orders') }}",
        "models/v.sql": VIEW + "select id, amount from {{ ref('a') }}",
        "models/c.sql": TABLE + "select sum(amount) as n from {{ ref('v') }}",
    }
    with lab(tmp_path, files, SETUP) as case:
        case.settle()
        case.edit({"models/a.sql": TABLE + "select id, amount * 1.5 as amount from {{ source('raw', 'orders') }}"})
        runs = case.cycle()
        assert [run.success for run in runs] == [True]
        assert case.cycle() == []
        assert is_as_rebuilt(case, "a", "v", "c")


def test_a_type_of_a_source_flows_through_tables_to_views_in_one_run(tmp_path):
    files = {
        "models/s.yml": SOURCES,
        "models/a.sql": TABLE + "select id, amount from {{ source('raw', 'orders') }}",
        "models/v.sql": VIEW + "select id, amount from {{ ref('a') }}",
        "models/c.sql": TABLE + "select sum(amount) as n from {{ ref('v') }}",
    }
    with lab(tmp_path, files, SETUP) as case:
        case.settle()
        case.sql("alter table raw.orders alter amount type decimal(9, 3)")
        (run,) = case.cycle()
        assert run.success
        assert case.cycle() == []
        assert is_as_rebuilt(case, "a", "v", "c")


GROWING = "{{ config(materialized='incremental', on_schema_change='append_new_columns') }} "


def test_a_view_follows_an_incremental_model_that_gains_a_column_nobody_foresaw(tmp_path):
    """Its columns follow from a query that dbt makes while it builds."""
    ask = "{% set more = run_query('select count(*) from raw.wide').columns[0][0] if execute else 0 %}"
    files = {
        "models/s.yml": SOURCES,
        "models/a.sql": GROWING
        + ask
        + "select id, amount {{ ', id as more' if more }} from {{ source('raw', 'orders') }}",
        "models/v.sql": VIEW + "select * from {{ ref('a') }}",
        "models/c.sql": TABLE + "select count(*) as n, count(columns(*)) from {{ ref('v') }}",
    }
    with lab(tmp_path, files, [*SETUP, "create table raw.wide (id int)"]) as case:
        case.settle()
        case.sql("insert into raw.wide values (1)")
        case.materialize("a")
        case.settle()
        case.advance(minutes=6)
        case.settle()
        assert all(run.success for run in case.told)
        assert "more" in [name for name, _ in columns(case, "v")]
        assert "more" in [name for name, _ in columns(case, "c")]
        assert case.cycle() == []


def test_new_rows_alone_renew_no_view(tmp_path):
    files = {
        "models/s.yml": SOURCES,
        "models/a.sql": TABLE + ORDERS,
        "models/v.sql": VIEW + "select * from {{ ref('a') }}",
        "models/c.sql": TABLE + "select * from {{ ref('v') }}",
    }
    with lab(tmp_path, files, SETUP) as case:
        case.settle()
        case.sql("insert into raw.orders values (3, 30)")
        (run,) = case.cycle()
        assert {name: action for name, (action, _) in run.nodes.items()} == {"a": "build", "c": "build"}
        case.materialize("a")
        case.materialize("a")
        assert case.cycle() == []


def test_what_was_built_by_hand_before_anything_was_looked_at_is_not_built_again(tmp_path):
    files = {
        "models/s.yml": SOURCES,
        "models/v.sql": VIEW + ORDERS,
        "models/c.sql": TABLE + "select * from {{ ref('v') }}",
    }
    with lab(tmp_path, files, SETUP) as case:
        case.materialize("v", "c")
        assert case.cycle() == []


def test_a_view_with_an_enforced_contract_is_compared_with_it_when_the_types_below_it_change(tmp_path):
    columns_of_v = "columns: [{name: n, data_type: integer}]"
    files = {
        "models/a.sql": TABLE + "select 1 as n",
        "models/u.sql": VIEW + "select * from {{ ref('a') }}",
        "models/v.sql": VIEW + "select n from {{ ref('u') }}",
        "models/t.sql": TABLE + "select count(*) as n from {{ ref('v') }}",
        "models/p.yml": "models: [{name: v, config: {contract: {enforced: true}}, COLUMNS}]".replace(
            "COLUMNS", columns_of_v
        ),
    }
    with lab(tmp_path, files, []) as case:
        case.settle()
        case.edit({"models/a.sql": TABLE + "select 2::bigint as n"})
        (run,) = case.cycle()
        assert {name: what for name, (what, _) in run.nodes.items()} == {
            "a": "build",
            "u": "build",
            "v": "failed",
            "t": "skip",
        }
        assert "has an enforced contract that failed" in run.failure
        case.edit({"models/p.yml": files["models/p.yml"].replace("integer", "bigint")})
        case.settle()
        assert case.decision("t")[0] == "reuse"
        assert is_as_rebuilt(case, "a", "v", "t")
