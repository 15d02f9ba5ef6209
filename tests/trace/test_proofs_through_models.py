"""Proofs also use tests further upstream, through models without tests that hold exactly what their queries gave in this invocation."""

from __future__ import annotations

import pytest

from dbt_dagster_sao.data_tests.handover import DataTestRequest
from dbt_dagster_sao.data_tests.proofs import TestProofs

RAW, STG, MIDDLE, ORDERS = "source.shop.raw", "model.shop.stg", "model.shop.middle", "model.shop.orders"
COLUMNS = {"id": "integer", "status": "varchar"}


def model(unique_id, parent, sql, **config):
    name = unique_id.rsplit(".", 1)[1]
    return {
        "name": name,
        "resource_type": "model",
        "relation_name": f'"db"."main"."{name}"',
        "config": {"materialized": "table", **config},
        "depends_on": {"nodes": [parent]},
        "compiled_code": sql,
    }


def generic(name, about, column, **arguments):
    return {
        "attached_node": about,
        "depends_on": {"nodes": [about], "macros": [f"macro.dbt.test_{name}"]},
        "test_metadata": {"name": name, "kwargs": {"column_name": column, **arguments}},
        "config": {},
    }


def entries(middle='select id as order_id, status from "db"."main"."stg"', **config):
    values = {"values": ["a", "b"]}
    return {
        STG: model(STG, RAW, 'select id, status from "db"."raw"."orders"'),
        MIDDLE: model(MIDDLE, STG, middle, **config),
        ORDERS: model(ORDERS, MIDDLE, 'select m.order_id, m.status from "db"."main"."middle" m'),
        "stg_ids": generic("unique", STG, "id"),
        "stg_have_ids": generic("not_null", STG, "id"),
        "stg_status": generic("accepted_values", STG, "status", **values),
        "ids": generic("unique", ORDERS, "order_id"),
        "have_ids": generic("not_null", ORDERS, "order_id"),
        "status": generic("accepted_values", ORDERS, "status", **values),
    }


class Warehouse:
    def __init__(self):
        self.asked = []
        """The relations whose columns were asked for."""

    def columns(self, unique_id):
        self.asked.append(unique_id)
        return {
            ("order_id" if name == "id" and unique_id not in {RAW, STG} else name): kind
            for name, kind in COLUMNS.items()
        }

    def comparable(self, columns):
        return columns

    def compiled(self, unique_id):
        return entries()[unique_id]["compiled_code"]


def proofs(known, builds=(STG, MIDDLE, ORDERS), views=(), passed=("stg_ids", "stg_have_ids", "stg_status")):
    request = DataTestRequest(frozenset(builds), frozenset(views), premises=frozenset(known))
    found = TestProofs(request, "duckdb", known.get)
    for test in passed:
        found.passed(test)
    return found


def proven(known, **options):
    found = proofs(known, **options)
    return {test for test in ("ids", "have_ids", "status") if not isinstance(found.prove(test, Warehouse()), str)}


def test_tests_of_a_grandparent_prove_what_passes_through_a_model_without_tests():
    assert proven(entries()) == {"ids", "have_ids", "status"}
    proof = proofs(entries()).prove("ids", Warehouse())
    assert proof.text == "unique(order_id) holds: stg.id is unique (passed in this run)"
    assert proof.premises == {"stg_ids"}


def test_a_step_of_the_model_between_is_named_with_the_model():
    grouped = 'select id as order_id, max(status) as status from "db"."main"."stg" group by 1'
    proof = proofs(entries(grouped), passed=()).prove("ids", Warehouse())
    assert proof.text == "unique(order_id) holds: group by stg.id (in middle)"


def test_what_passes_later_is_known_then():
    found = proofs(entries(), passed=())
    assert isinstance(found.prove("ids", Warehouse()), str)
    found.passed("stg_ids")
    assert found.prove("ids", Warehouse()).premises == {"stg_ids"}


@pytest.mark.parametrize(
    ("config", "options", "is_proven"),
    [
        ({}, {}, True),
        ({"materialized": "view"}, {"builds": (ORDERS,), "views": (MIDDLE,)}, True),
        # Of other rows than those that its query gives now.
        ({}, {"builds": (STG, ORDERS)}, False),
        ({"materialized": "incremental"}, {}, False),
        ({"post-hook": ["delete from {{ this }}"]}, {}, False),
        ({"on_error": "continue"}, {}, False),
    ],
)
def test_only_rows_that_a_query_gave_in_this_invocation_have_its_properties(config, options, is_proven):
    assert proven(entries(**config), **options) == ({"ids", "have_ids", "status"} if is_proven else set())


@pytest.mark.parametrize(
    ("middle", "options", "asked"),
    [
        ('select id as order_id, status from "db"."main"."stg"', {}, [RAW]),
        ('select * from "db"."main"."stg"', {}, [RAW]),
        # A name, or the type of a column, that only the database knows.
        ('select id as order_id, status, id + 1 from "db"."main"."stg"', {}, [RAW, MIDDLE]),
        ('select id as order_id, sum(id) as status from "db"."main"."stg" group by 1', {}, [RAW, MIDDLE]),
        ("select 1.5 as order_id, 'a' as status", {}, [RAW, MIDDLE]),
        ("select 1 as order_id, null as status", {}, [RAW, MIDDLE]),
        # The view is from another day.
        (
            'select id as order_id, status from "db"."main"."stg"',
            {"builds": (ORDERS,), "views": (MIDDLE,)},
            [STG, MIDDLE],
        ),
    ],
)
def test_the_database_is_asked_only_for_columns_that_no_query_of_this_invocation_tells(middle, options, asked):
    known, warehouse = entries(middle), Warehouse()
    known[RAW] = {"name": "raw", "resource_type": "source", "relation_name": '"db"."raw"."orders"'}
    known[ORDERS]["compiled_code"] = 'select * from "db"."main"."middle"'
    proofs(known, **options).prove("ids", warehouse)
    assert sorted(warehouse.asked) == sorted(asked)


CONTRACT = {"contract": {"enforced": True}}


@pytest.mark.parametrize(("about", "name"), [(MIDDLE, "middle"), (ORDERS, "orders")])
def test_a_constraint_proves_a_test_of_its_table_and_of_what_reads_it(about, name):
    known = entries(middle="select 1 as order_id, 2 as status", **CONTRACT)
    known[MIDDLE]["columns"] = {"order_id": {"name": "order_id", "constraints": [{"type": "not_null"}]}}
    known["have_ids"] = generic("not_null", about, "order_id")
    proof = proofs(known).prove("have_ids", Warehouse())
    assert (proof.text, proof.premises) == (
        "not_null(order_id) holds: middle.order_id is not null (a constraint of the table)",
        frozenset(),
    ), name
    # The table is as an older contract left it.
    assert isinstance(proofs(known, builds=(STG, ORDERS)).prove("have_ids", Warehouse()), str)
