"""A DuckDB file that somebody puts back from a copy: it no longer contains what was built since."""

from __future__ import annotations

import shutil

import duckdb
import pytest

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


def test_all_that_is_in_another_database_of_the_same_name_is_built_again_once(tmp_path):
    (tmp_path / "other").mkdir()
    with lab(tmp_path, FILES, SETUP) as case:
        case.settle()
        shutil.copy(case.folder / "warehouse.duckdb", case.folder / "other")
        edit_orders(case)
        case.settle()
        case.edit({"profiles.yml": PROFILE.format("other")})
        case.restart()
        case.look()
        assert [case.decision(name) for name in NAMES] == [("build", MOVED.format(name)) for name in NAMES]
        case.job("totals")
        case.advance(minutes=10)
        case.settle()
        with duckdb.connect(str(case.folder / "other" / "warehouse.duckdb")) as db:
            assert db.sql("from main.totals").fetchall() == [(60,)]
        assert case.cycle() == []
