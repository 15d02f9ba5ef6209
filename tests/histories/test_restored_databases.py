"""A DuckDB file that somebody puts back from a copy: it no longer contains what was built since."""

from __future__ import annotations

import shutil

import duckdb
import pytest

from tests.histories import test_functions_in_runs as with_functions
from tests.histories.lab import TABLE, VIEW, lab

pytestmark = pytest.mark.slow

FILES = {
    "models/sources.yml": "sources: [{name: raw, schema: raw, tables: [{name: orders}]}]",
    "models/stg_orders.sql": VIEW + "select id, amount from {{ source('raw', 'orders') }}",
    "models/orders.sql": TABLE + "select id, amount from {{ ref('stg_orders') }}",
    "models/totals.sql": TABLE + "select sum(amount) as amount from {{ ref('orders') }}",
}
SETUP = ["create schema raw", "create table raw.orders as select * from (values (1, 10), (2, 20)) t(id, amount)"]
WHY = '"warehouse"."main"."{}" comes from an older copy of its database'
NAMES = ("stg_orders", "orders", "totals")


def copy(case):
    shutil.copy(case.folder / "warehouse.duckdb", case.folder / "copy.duckdb")


def put_back(case):
    shutil.copy(case.folder / "copy.duckdb", case.folder / "warehouse.duckdb")


def edit_orders(case):
    case.edit({"models/orders.sql": TABLE + "select id, amount * 2 as amount from {{ ref('stg_orders') }}"})


def test_all_that_is_in_a_database_that_was_put_back_is_built_again_once(tmp_path):
    with lab(tmp_path, FILES, SETUP) as case:
        case.settle()
        copy(case)
        edit_orders(case)
        case.settle()
        assert case.sql("from main.totals") == [(60,)]
        put_back(case)
        case.look()
        assert [case.decision(name) for name in NAMES] == [("build", WHY.format(name)) for name in NAMES]
        case.settle()
        assert case.sql("from main.totals") == [(60,)]
        assert case.cycle() == []


def test_a_job_sees_that_a_database_was_put_back_after_the_job_before(tmp_path):
    with lab(tmp_path, FILES, SETUP) as case:
        case.foresees = False  # a plan does not look at relations
        case.job()
        copy(case)
        edit_orders(case)
        case.job()
        put_back(case)
        assert case.job().nodes["totals"] == ("build", WHY.format("totals"))
        assert case.sql("from main.totals") == [(60,)]


def test_a_model_that_was_switched_off_while_a_database_was_put_back_is_built_when_it_is_back(tmp_path):
    switched = "{{ config(materialized='table', enabled=(var('is_on') | as_bool)) }} select "

    def project(is_on):
        return {"dbt_project.yml": f"{{name: shop, version: 1.0.0, profile: shop, vars: {{is_on: {is_on}}}}}"}

    with lab(tmp_path, {**FILES, **project("true"), "models/old.sql": switched + "1 as n"}, SETUP) as case:
        case.settle()
        copy(case)
        edit_orders(case)
        case.edit({"models/old.sql": switched + "2 as n"})
        case.settle()
        case.edit(project("false"))
        case.settle()
        put_back(case)
        case.watch.learned(NAMES)
        case.settle()
        case.edit(project("true"))
        assert case.decision("old")[0] == "build"
        case.settle()
        assert case.sql("from main.old") == [(2,)]
        assert case.cycle() == []


def test_what_others_write_is_not_taken_for_an_older_copy(tmp_path):
    with lab(tmp_path, FILES, SETUP) as case:
        case.settle()
        case.sql("insert into raw.orders values (3, 30)")
        case.look()
        case.advance(minutes=10)
        case.settle()
        assert case.sql("from main.totals") == [(60,)]
        assert not [why for told in case.told for _, why in told.nodes.values() if "older copy" in why]


def test_what_is_built_on_a_part_of_an_older_copy_is_built_again(tmp_path):
    with lab(tmp_path, FILES, SETUP) as case:
        case.settle()
        copy(case)
        edit_orders(case)
        case.settle()
        put_back(case)
        case.look()
        case.job("totals")
        case.advance(minutes=10)
        case.settle()
        assert case.sql("from main.totals") == [(60,)]


PROFILE = """
shop:
  target: warehouse
  outputs: {{warehouse: {{type: duckdb, path: "FOLDER/{}/warehouse.duckdb", threads: 1}}}}
"""
MOVED = '"warehouse"."main"."{}" was last built in another database'


def copy_elsewhere(case):
    (case.folder / "other").mkdir()
    shutil.copy(case.folder / "warehouse.duckdb", case.folder / "other")


def move(case):
    """Let the profile have the copy that is elsewhere."""
    case.edit({"profiles.yml": PROFILE.format("other")})
    case.restart()


def rows_elsewhere(case, statement):
    with duckdb.connect(str(case.folder / "other" / "warehouse.duckdb")) as db:
        return db.execute(statement).fetchall()


def test_all_that_is_in_another_database_of_the_same_name_is_built_again_once(tmp_path):
    with lab(tmp_path, FILES, SETUP) as case:
        case.settle()
        copy_elsewhere(case)
        edit_orders(case)
        case.settle()
        move(case)
        case.look()
        assert [case.decision(name) for name in NAMES] == [("build", MOVED.format(name)) for name in NAMES]
        case.job("totals")
        case.advance(minutes=10)
        case.settle()
        assert rows_elsewhere(case, "from main.totals") == [(60,)]
        assert case.cycle() == []


def test_a_verdict_says_nothing_about_another_database_of_the_same_name(tmp_path):
    sources = """
sources:
  - name: raw
    schema: raw
    tables:
      - name: orders
        config: {loaded_at_query: "select timestamp '2026-01-01'"}
        columns: [{name: amount, data_tests: [not_null]}]
"""
    with lab(tmp_path, {**FILES, "models/sources.yml": sources}, SETUP) as case:
        case.settle()
        copy_elsewhere(case)
        rows_elsewhere(case, "update raw.orders set amount = null where id = 1")
        move(case)
        case.settle()
        assert case.verdicts == {"source_not_null_raw_orders_amount": "fail"}
        runs = len(case.told)
        case.settle()
        assert len(case.told) == runs


def test_functions_are_created_again_in_a_database_that_was_put_back_and_in_another_one(tmp_path):
    with lab(tmp_path, with_functions.FILES, with_functions.SETUP) as case:
        case.settle()
        copy(case)
        copy_elsewhere(case)
        case.edit({"functions/taxed.sql": "x * 3"})
        case.settle()
        now = with_functions.amounts(case)
        assert now == [(92, 90)]
        put_back(case)
        case.look()
        case.settle()
        assert with_functions.amounts(case) == now
        move(case)
        case.settle()
        assert rows_elsewhere(case, "select b.amount, t.amount from main.below b, main.t t") == now


ATTACHED = {
    **FILES,
    "profiles.yml": """
shop:
  target: warehouse
  outputs:
    warehouse: {type: duckdb, path: "FOLDER/warehouse.duckdb", attach: [{path: "FOLDER/marts.duckdb", alias: marts}]}
""",
    "models/orders.sql": "{{ config(materialized='table', database='marts') }} select id, amount from {{ ref('stg_orders') }}",
}


def in_marts(case, statement):
    with duckdb.connect(str(case.folder / "marts.duckdb")) as db:
        return db.execute(statement).fetchall()


def test_what_is_dropped_from_an_attached_database_is_built_again(tmp_path):
    with lab(tmp_path, ATTACHED, SETUP) as case:
        case.settle()
        case.advance(minutes=10)
        case.settle()
        in_marts(case, "drop table main.orders")
        case.settle()
        assert in_marts(case, "select count(*) from main.orders") == [(2,)]


def test_what_is_in_an_attached_database_that_was_put_back_is_built_again(tmp_path):
    with lab(tmp_path, ATTACHED, SETUP) as case:
        case.settle()
        shutil.copy(case.folder / "marts.duckdb", case.folder / "copy.duckdb")
        case.sql("insert into raw.orders values (3, 30)")
        case.settle()
        shutil.copy(case.folder / "copy.duckdb", case.folder / "marts.duckdb")
        case.look()
        case.settle()
        assert in_marts(case, "select count(*) from main.orders") == [(3,)]
        assert case.cycle() == []


def test_an_attached_database_at_another_path_is_another_one(tmp_path):
    with lab(tmp_path, ATTACHED, SETUP) as case:
        case.settle()
        shutil.copy(case.folder / "marts.duckdb", case.folder / "copy.duckdb")
        case.sql("update raw.orders set amount = 100")
        case.settle()
        case.edit({"profiles.yml": ATTACHED["profiles.yml"].replace("marts.duckdb", "copy.duckdb")})
        case.restart()
        case.settle()
        with duckdb.connect(str(case.folder / "copy.duckdb")) as db:
            assert db.sql("select sum(amount) from main.orders").fetchall() == [(200,)]


@pytest.mark.parametrize("edits_a_model_too", [True, False])
def test_a_function_that_nothing_calls_is_created_again_when_a_database_was_put_back(tmp_path, edits_a_model_too):
    files = {**FILES, **with_functions.functions(taxed="x * 2")}
    with lab(tmp_path, files, SETUP) as case:
        case.job()
        copy(case)
        case.edit({"functions/taxed.sql": "x * 3"})
        if edits_a_model_too:
            edit_orders(case)
        case.job()
        put_back(case)
        case.settle()
        assert case.sql("select main.taxed(1)") == [(3,)]
