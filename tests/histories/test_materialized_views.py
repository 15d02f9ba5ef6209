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


def test_one_with_an_index_that_is_dropped_with_its_table_is_created_in_the_same_run(tmp_path, files, warehouse):
    """dbt reports of it what it reports when it alters an index: that it created one."""
    indexed = materialized(indexes="[{'columns': ['id']}]")
    of_table = {
        "models/orders.sql": TABLE + "select * from {{ source('raw', 'orders') }}",
        "models/doubled.sql": indexed + "select id, amount * 2 as amount from {{ ref('orders') }}",
    }
    with lab(tmp_path, {**files, **of_table}, []) as case:
        case.settle()
        warehouse("insert into raw.orders values (3, 1)")
        (run,) = case.cycle()
        assert (run.success, run.failure, run.nodes["doubled"]) == (True, "", ("build", "orders was rebuilt"))
        assert warehouse("select amount from main.total") == [(62,)]
        assert case.cycle() == []
        # By hand: it is built with the table, though nobody selected it.
        assert case.materialize("orders").success


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


OTHER_COLUMNS = {
    "a new column": ["alter table raw.orders add column extra integer default 7"],
    "columns that swap names": [
        f"alter table raw.orders rename {swap}" for swap in ("id to x", "amount to id", "x to amount")
    ],
    "a table in the place of another": [
        "create table raw.next as select 9 as id, 90 as amount",
        "alter table raw.orders rename to before",
        "alter table raw.next rename to orders",
    ],
}


@pytest.mark.parametrize(
    "what", [next(iter(OTHER_COLUMNS)), *(pytest.param(what, marks=pytest.mark.rare) for what in [*OTHER_COLUMNS][1:])]
)
def test_a_materialized_view_follows_the_columns_and_the_identity_of_its_source(tmp_path, files, warehouse, what):
    """A refresh runs the SQL that it was created from, bound to the columns of then."""
    files = {**files, "models/doubled.sql": materialized() + "select * from {{ source('raw', 'orders') }}"}
    with lab(tmp_path, files, []) as case:
        case.settle()
        warehouse("; ".join(OTHER_COLUMNS[what]))
        (run,) = case.cycle()
        assert run.nodes["doubled"] == ("build", "The columns of raw.orders changed")
        assert case.cycle() == []
        found = warehouse("select to_jsonb(doubled) from main.doubled order by 1")
        assert found == warehouse("select to_jsonb(orders) from raw.orders order by 1")
        assert warehouse("select amount from main.total") == warehouse("select sum(amount) from raw.orders")
        made = warehouse("select 'main.doubled'::regclass::oid")
        warehouse("insert into raw.orders (id, amount) values (10, 1)")
        case.settle()
        assert warehouse("select 'main.doubled'::regclass::oid") == made


@pytest.mark.rare
def test_a_materialized_view_follows_the_columns_that_a_model_gains(tmp_path, files, warehouse):
    incremental = "{{ config(materialized='incremental', unique_key='id', on_schema_change='append_new_columns') }} "
    files = {
        **files,
        "models/kept.sql": incremental + "select * from {{ source('raw', 'orders') }}",
        "models/doubled.sql": materialized() + "select * from {{ ref('kept') }}",
    }
    with lab(tmp_path, files, []) as case:
        case.settle()
        warehouse("alter table raw.orders add column extra integer default 7")
        case.settle()
        assert warehouse("select extra from main.doubled") == [(7,), (7,)]


def test_what_is_dropped_with_a_materialized_view_is_built_in_the_same_run(tmp_path, files, warehouse):
    """A table takes the materialized views on it along, and these take the views on them."""
    files = {
        **files,
        "models/orders.sql": TABLE + "select * from {{ source('raw', 'orders') }}",
        "models/doubled.sql": materialized() + DOUBLED.replace("source('raw', 'orders')", "ref('orders')"),
        "models/once_more.sql": materialized() + "select * from {{ ref('seen') }}",
    }
    with lab(tmp_path, files, []) as case:
        case.settle()
        warehouse("insert into raw.orders values (3, 1)")
        (run,) = case.cycle()
        assert run.success
        assert run.nodes["seen"] == ("build", "doubled was rebuilt")
        assert warehouse("select (select sum(amount) from main.once_more), amount from main.total") == [(62, 62)]
        assert case.cycle() == []
        run = case.materialize("orders")
        assert {"doubled", "seen", "once_more"} <= run.nodes.keys()
        assert warehouse("select sum(amount) from main.once_more") == [(62,)]
