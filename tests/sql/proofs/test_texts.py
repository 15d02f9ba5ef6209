"""A proof reads in the order of the query and names every test that it rests on; a refusal says why in one sentence."""

from __future__ import annotations

import pytest

from dagster_sao.sql.proofs import Known, NotNull, NotProvable, Proof, QueryProofs, Relation, Unique
from tests.sql.proofs.case_files import parse_property

ORDERS, CUSTOMERS = '"shop"."main"."stg_orders"', '"shop"."main"."customers"'
RELATIONS = {
    "shop.main.stg_orders": Relation(
        "stg_orders",
        ("order_id", "customer_id", "status", "amount"),
        (
            Known(Unique(("order_id",)), "test.orders", "passed 12:03, run 4f2a"),
            Known(NotNull("order_id"), "test.nn", "passed 12:03"),
        ),
        {"order_id": "integer", "customer_id": "integer", "status": "varchar", "amount": "decimal(10,2)"},
    ),
    "shop.main.customers": Relation(
        "customers",
        ("customer_id", "name"),
        (Known(Unique(("customer_id",)), "test.customers", "passed 12:04"),),
        {"customer_id": "bigint", "name": "varchar"},
    ),
}
JOINED = f"""
with orders as (select * from {ORDERS}), customers as (select * from {CUSTOMERS})
select orders.order_id, customers.customer_id, customers.name
from orders left join customers on orders.customer_id = customers.customer_id
"""


@pytest.mark.parametrize("adapter", ["duckdb", "postgres"])
def test_the_documented_example_of_dbt(adapter):
    proofs = QueryProofs(JOINED, adapter, RELATIONS)
    assert proofs.prove(Unique(("order_id",))) == Proof(
        "unique(order_id) holds: stg_orders.order_id is unique (passed 12:03, run 4f2a); left join on customers.customer_id, "
        "which is unique (passed 12:04)",
        frozenset({"test.orders", "test.customers"}),
    )
    assert proofs.prove(NotNull("customer_id")) == NotProvable(
        "customers.customer_id is on the optional side of a left join"
    )


@pytest.mark.parametrize(
    ("sql", "line", "text"),
    [
        (
            f"select * from {ORDERS}",
            "not_null(order_id)",
            "not_null(order_id) holds: stg_orders.order_id is not null (passed 12:03)",
        ),
        (
            f"select customer_id, count(*) as n from {ORDERS} group by 1",
            "unique(customer_id)",
            "unique(customer_id) holds: group by stg_orders.customer_id",
        ),
        (
            f"select * from (select *, row_number() over (partition by name order by customer_id) as r from {CUSTOMERS}) c where r = 1",
            "unique(name)",
            "unique(name) holds: ROW_NUMBER() OVER (PARTITION BY name ORDER BY customer_id); where r = 1",
        ),
        (
            f"select coalesce(name, '?') as name from {CUSTOMERS}",
            "not_null(name)",
            "not_null(name) holds: by the expression of the column alone",
        ),
        (
            f"select customer_id from {ORDERS} where customer_id is not null",
            "not_null(customer_id)",
            "not_null(customer_id) holds: where NOT customer_id IS NULL",
        ),
    ],
)
def test_proofs_are_readable(sql, line, text):
    assert QueryProofs(sql, "duckdb", RELATIONS).prove(parse_property(f"yes {line}")).text == text


@pytest.mark.parametrize(
    ("sql", "line", "reason"),
    [
        ("select * from", "unique(id)", "the SQL cannot be parsed"),
        ("drop table a", "unique(id)", "the SQL is not one query"),
        ("select 1 as a; select 2 as a", "unique(a)", "the SQL is not one query"),
        (f"select * from {ORDERS}", "unique(missing)", "it is not known where missing comes from"),
        (
            f"select * from {ORDERS}",
            "not_null(customer_id)",
            "no passed test says that stg_orders.customer_id is not null",
        ),
        (f"select * from {ORDERS}", "unique(status)", "nothing says that stg_orders.status is unique"),
        (
            f"select c.customer_id from {CUSTOMERS} c join {ORDERS} o on o.customer_id = c.customer_id",
            "unique(customer_id)",
            "the inner join with o may repeat rows: nothing says that stg_orders.customer_id is unique",
        ),
        (
            f"select c.customer_id from {CUSTOMERS} c join {ORDERS} o on o.status = c.customer_id",
            "unique(customer_id)",
            "the inner join with o may repeat rows: the types of customers.customer_id and stg_orders.status are not known to be the same",
        ),
        (
            f"select order_id from {ORDERS} union all select order_id from {ORDERS}",
            "unique(order_id)",
            "union all may repeat rows",
        ),
        (
            f"select try_cast(status as int) as n from {ORDERS}",
            "not_null(n)",
            "TRY_CAST(status AS INT) is NULL where the cast fails",
        ),
        (f"select max(order_id) as n from {ORDERS}", "not_null(n)", "MAX(order_id) is NULL where there are no rows"),
        (f"select order_id, f(status) as n from {ORDERS}", "unique(order_id)", "f(…) may repeat rows"),
        (
            f"select order_id from {ORDERS}",
            "strict(order_id customer_id)",
            "it is not known where customer_id comes from",
        ),
        (f"select status from {ORDERS}", "values(status a/b)", "the values of status are not known"),
        (f"select 'c' as status from {ORDERS}", "values(status a/b)", "status could be 'c'"),
        (
            f"select customer_id from {ORDERS}",
            "parent(customer_id -> shop.main)",
            "nothing says that the values of customer_id are in the parent",
        ),
    ],
)
def test_refusals_say_why(sql, line, reason):
    assert QueryProofs(sql, "duckdb", RELATIONS).prove(parse_property(f"no {line}")) == NotProvable(reason)


def test_an_adapter_that_is_not_known_has_no_proofs():
    answer = QueryProofs(JOINED, "unheard_of", RELATIONS).prove(Unique(("order_id",)))
    assert answer == NotProvable("the SQL of unheard_of is not known well enough")


def test_an_adapter_that_is_known_less_has_fewer_proofs():
    proofs = QueryProofs(f"select order_id, cast(order_id as int) as n from {ORDERS}", "bigquery", RELATIONS)
    assert isinstance(proofs.prove(NotNull("order_id")), Proof)
    assert isinstance(proofs.prove(NotNull("n")), NotProvable)


@pytest.mark.parametrize(
    ("adapter", "column", "is_proven"),
    [
        ("duckdb", "ORDER_ID", True), ("postgres", "ORDER_ID", True), ("postgres", '"order_id"', True), ("postgres", '"ORDER_ID"', False),
        ("duckdb", '"Order_Id"', True), ("postgres", "order_id || 'x'", False), ("snowflake", "order_id", False),
    ],
)  # fmt: skip
def test_names_are_compared_as_the_database_compares_them(adapter, column, is_proven):
    # In Snowflake, the lower-case names of this catalog are others than the names without quotes.
    answer = QueryProofs(f"select * from {ORDERS}", adapter, RELATIONS).prove(Unique((column,)))
    assert isinstance(answer, Proof if is_proven else NotProvable)


def test_two_relations_whose_names_differ_in_case_are_not_mixed_up():
    answer = QueryProofs('select order_id from "shop"."main"."STG_orders"', "postgres", RELATIONS).prove(
        Unique(("order_id",))
    )
    assert isinstance(answer, NotProvable)
