"""User-defined functions on PostgreSQL, where dbt creates them by itself and views are bound to one of them."""

from __future__ import annotations

import pytest

from tests.histories.lab import TABLE, VIEW, lab
from tests.support.postgres_server import database, shop_profile

pytestmark = pytest.mark.slow

DATABASE = "functions"
ORDERS = "{{ source('raw', 'orders') }}"
SOURCES = "sources: [{name: raw, schema: raw, tables: [{name: orders}]}]"
SIGNATURE = "functions: [{name: taxed, arguments: [{name: x, data_type: integer}], returns: {data_type: RETURNS}}]"


@pytest.fixture
def warehouse(postgres_server):
    orders = "create table raw.orders as select * from (values (1, 10), (2, 20)) t(id, amount)"
    with database(postgres_server, DATABASE, "create schema raw", orders) as ask:
        yield ask


@pytest.fixture
def files(postgres_server, warehouse):
    return {
        "profiles.yml": shop_profile(postgres_server, DATABASE, threads=2),
        "models/sources.yml": SOURCES,
        "models/v.sql": VIEW + f"select {{{{ function('taxed') }}}}(amount) as amount from {ORDERS}",
        "models/t.sql": TABLE + "select sum(amount) as amount from {{ ref('v') }}",
        "models/u.sql": TABLE + f"select sum({{{{ function('taxed') }}}}(amount)) as amount from {ORDERS}",
        "functions/taxed.sql": "select x * 2",
        "functions/taxed.yml": SIGNATURE.replace("RETURNS", "integer"),
    }


def test_an_edited_function_is_created_before_all_that_calls_it(tmp_path, files, warehouse):
    with lab(tmp_path, files, []) as case:
        case.settle()
        assert warehouse("select t.amount, u.amount from main.t, main.u") == [(60, 60)]
        case.edit({"functions/taxed.sql": "select x * 3"})
        (run,) = case.cycle()
        assert run.nodes["v"] == run.nodes["u"] == ("build", "Code changed: function: taxed")
        assert warehouse("select t.amount, u.amount from main.t, main.u") == [(90, 90)]
        assert case.cycle() == []


def test_what_the_database_says_of_a_function_that_it_does_not_replace_is_told(tmp_path, files, warehouse):
    with lab(tmp_path, files, []) as case:
        case.settle()
        case.edit({"functions/taxed.yml": SIGNATURE.replace("RETURNS", "bigint")})
        (run,) = case.cycle()
        assert (run.success, run.nodes["v"]) == (False, ("failed", "Upstream failed: taxed"))
        assert case.cycle() == []
        assert warehouse("select t.amount, u.amount from main.t, main.u") == [(60, 60)]
        # As PostgreSQL asks for; it takes the view along, which is built with its function.
        warehouse("drop function main.taxed(integer) cascade")
        case.edit({"functions/taxed.sql": "select x * 4"})
        case.settle()
        assert warehouse("select t.amount, u.amount from main.t, main.u") == [(120, 120)]
