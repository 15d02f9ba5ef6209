"""PostgreSQL drops a view with each table that it reads: it comes back in the same run, whatever failed beside it."""

from __future__ import annotations

import pytest

from tests.histories.inprocess_dbt import Accident, InProcessDbt
from tests.histories.lab import TABLE, VIEW, lab
from tests.support.postgres_server import database, shop_profile

pytestmark = pytest.mark.slow

DATABASE = "lost_views"
NEW_IN_A, NEW_IN_B = "insert into raw.a values (2)", "insert into raw.b values (2)"
IDS = "models: [{name: small, columns: [{name: id, data_tests: [{unique: {name: ids}}]}]}]"
BROKEN = {"models/small.sql": TABLE + "select id, 1 / (2 - id) as x from {{ source('raw', 'b') }}"}


@pytest.fixture
def warehouse(postgres_server):
    tables = [f"create table raw.{name} as select 1 as id" for name in "ab"]
    with database(postgres_server, DATABASE, "create schema raw", *tables) as ask:
        yield ask


@pytest.fixture
def files(postgres_server, warehouse):
    del warehouse
    return {
        "profiles.yml": shop_profile(postgres_server, DATABASE, threads=1),
        "models/sources.yml": "sources: [{name: raw, schema: raw, tables: [{name: a}, {name: b}]}]",
        "models/big.sql": TABLE + "select id from {{ source('raw', 'a') }}",
        "models/small.sql": TABLE + "select id from {{ source('raw', 'b') }}",
        "models/pairs.sql": VIEW + "select b.id, s.id as other from {{ ref('big') }} b cross join {{ ref('small') }} s",
        "models/total.sql": TABLE + "select count(*) as n from {{ ref('pairs') }}",
    }


def count(warehouse, relation):
    return warehouse(f"select count(*) from main.{relation}")[0][0]


@pytest.mark.parametrize("befalls", ["interrupted", "failed"])
def test_a_run_creates_the_view_that_it_drops_though_another_parent_of_it_failed(tmp_path, files, warehouse, befalls):
    with lab(tmp_path, files, []) as case:
        case.settle()
        warehouse(NEW_IN_B)
        if befalls == "failed":
            case.edit(BROKEN)
        else:
            # dbt has built it, and nobody knows.
            InProcessDbt.stage.accident = Accident(lose_events_from=1)
        assert not case.job("small").success
        warehouse(NEW_IN_A)
        told = case.job("big")
        assert (told.success, told.failure) == (True, "")
        assert told.nodes["pairs"] == ("build", "big was rebuilt")
        assert count(warehouse, "pairs") == (2 if befalls == "failed" else 4)
        # What stores rows is not built from what a failure left, and is built once that is mended.
        assert case.job("total").nodes["total"] == ("skip", "Upstream failed: pairs")
        case.edit(files)
        case.advance(minutes=6)
        case.settle()
        assert warehouse("select n from main.total") == [(4,)]


def test_a_view_that_dbt_skipped_for_a_failure_in_the_same_run_is_created_at_its_end(tmp_path, files, warehouse):
    with lab(tmp_path, {**files, **BROKEN}, []) as case:
        case.settle()
        warehouse(NEW_IN_A)
        warehouse(NEW_IN_B)
        told = case.job()
        assert not told.success
        assert {name: what for name, (what, _) in told.nodes.items()} == {
            "big": "build",
            "small": "failed",
            "pairs": "build",
            "total": "skip",
        }
        assert count(warehouse, "pairs") == 2
        assert warehouse("select n from main.total") == [(1,)]
        assert case.cycle() == []
        case.edit(files)
        case.settle()
        assert warehouse("select n from main.total") == [(4,)]


def test_a_view_that_was_not_dropped_stays_skipped(tmp_path, files, warehouse):
    with lab(tmp_path, {**files, **BROKEN}, []) as case:
        case.settle()
        warehouse(NEW_IN_B)
        case.edit({"models/pairs.sql": files["models/pairs.sql"] + " where true"})
        told = case.job()
        assert told.nodes["pairs"] == ("skip", "Upstream failed: small")
        assert count(warehouse, "pairs") == 1


def test_a_view_that_a_failing_test_gates_is_created_when_its_table_is_replaced(tmp_path, files, warehouse):
    with lab(tmp_path, {**files, "models/p.yml": IDS}, []) as case:
        case.settle()
        warehouse("insert into raw.b values (1)")
        told = case.job()
        assert (told.success, told.tests["ids"], told.nodes["pairs"][0]) == (False, "fail", "build")
        assert told.nodes["total"] == ("hold", "Upstream test failed: ids")
        assert count(warehouse, "pairs") == 2
        assert case.cycle() == []
        warehouse("delete from raw.b; insert into raw.b values (5)")
        case.settle()
        assert warehouse("select n from main.total") == [(1,)]
