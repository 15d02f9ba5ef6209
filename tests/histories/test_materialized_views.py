"""Materialized views on PostgreSQL, which dbt refreshes with the SQL that they were created from."""

from __future__ import annotations

import pytest

from tests.histories.lab import TABLE, VIEW, lab
from tests.support.postgres_server import database, shop_profile

pytestmark = pytest.mark.slow

DOUBLED = "select id, amount * 2 as amount from {{ source('raw', 'orders') }}"
DATABASE = "materialized"


def materialized(**settings):
    words = "".join(f", {name}={value}" for name, value in settings.items())
    return f"{{{{ config(materialized='materialized_view'{words}) }}}} "


@pytest.fixture
def warehouse(postgres_server):
    orders = "create table raw.orders as select * from (values (1, 10), (2, 20)) t(id, amount)"
    with database(postgres_server, DATABASE, "create schema raw", orders) as ask:
        yield ask


@pytest.fixture
def files(postgres_server, warehouse):
    return {
        "profiles.yml": shop_profile(postgres_server, DATABASE, threads=2),
        "models/sources.yml": "sources: [{name: raw, schema: raw, tables: [{name: orders}]}]",
        "models/doubled.sql": materialized() + DOUBLED,
        "models/seen.sql": VIEW + "select * from {{ ref('doubled') }}",
        "models/total.sql": TABLE + "select sum(amount) as amount from {{ ref('seen') }}",
    }


def test_other_sql_replaces_a_materialized_view_and_other_data_refreshes_it(tmp_path, files, warehouse):
    with lab(tmp_path, files, []) as case:
        case.settle()
        case.edit({"models/doubled.sql": materialized() + DOUBLED.replace("* 2", "* 5")})
        (run,) = case.cycle()
        assert run.nodes["doubled"] == ("build", "Code changed: sql")
        assert warehouse("select sum(amount), (select amount from main.total) from main.doubled") == [(150, 150)]
        assert case.cycle() == []
        made = warehouse("select 'main.doubled'::regclass::oid")
        warehouse("insert into raw.orders values (3, 1)")
        case.settle()
        assert warehouse("select amount from main.total") == [(155,)]
        assert warehouse("select 'main.doubled'::regclass::oid") == made


def test_edited_sql_that_is_built_by_hand_is_built_from(tmp_path, files, warehouse):
    with lab(tmp_path, files, []) as case:
        case.settle()
        case.edit({"models/doubled.sql": materialized() + DOUBLED.replace("* 2", "* 5")})
        case.materialize("doubled")
        case.settle()
        assert warehouse("select sum(amount), (select amount from main.total) from main.doubled") == [(150, 150)]


def test_a_changed_index_does_not_keep_new_data_out(tmp_path, files, warehouse):
    """dbt alters the index, and refreshes nothing."""
    with lab(tmp_path, files, []) as case:
        case.settle()
        warehouse("insert into raw.orders values (3, 1)")
        case.edit({"models/doubled.sql": materialized(indexes="[{'columns': ['id']}]") + DOUBLED})
        case.settle()
        assert warehouse("select amount from main.total") == [(62,)]
        # The same for an index that somebody else made.
        warehouse("create index own on main.doubled (amount)")
        warehouse("insert into raw.orders values (4, 1)")
        case.cycle()
        case.advance(minutes=6)
        case.settle()
        assert warehouse("select amount from main.total") == [(64,)]


def test_a_configuration_change_that_dbt_is_told_to_leave_is_not_a_build(tmp_path, files, warehouse):
    with lab(tmp_path, files, []) as case:
        case.edit({"models/doubled.sql": materialized(on_configuration_change="'continue'") + DOUBLED})
        case.settle()
        warehouse("create index own on main.doubled (amount)")
        warehouse("insert into raw.orders values (3, 1)")
        (run,) = case.cycle()
        assert (run.success, run.nodes["doubled"][0]) == (False, "failed")
        assert "Run it with --full-refresh" in run.nodes["doubled"][1]


def test_a_view_leaves_a_table_that_was_renamed_for_the_one_that_has_its_name(tmp_path, files, warehouse):
    """PostgreSQL binds a view to the table, whatever its name becomes."""
    with lab(tmp_path, {**files, "models/seen.sql": VIEW + "select * from {{ source('raw', 'orders') }}"}, []) as case:
        case.settle()
        warehouse("create table raw.next as select 9 as id, 90 as amount")
        warehouse("alter table raw.orders rename to before")
        warehouse("alter table raw.next rename to orders")
        (run,) = case.cycle()
        assert run.nodes["seen"] == ("build", "The columns of raw.orders changed")
        assert case.cycle() == []
        assert warehouse("select * from main.seen") == [(9, 90)]
        assert warehouse("select amount from main.total") == [(90,)]
        warehouse("insert into raw.orders values (10, 1)")
        (run,) = case.cycle()
        assert "seen" not in run.nodes
