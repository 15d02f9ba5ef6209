"""Queries as they are written in benchmarks are read without an error, in little time, and what holds of them is proven."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from dagster_sao.sql.proofs import Known, NotNull, NotProvable, Proof, QueryProofs, Relation, Unique

_TEXT = (Path(__file__).parent / "cases" / "tpc.sql").read_text(encoding="utf-8")
QUERIES = dict(re.findall(r"^-- (\w+)\n(.*?)(?=\n-- |\Z)", _TEXT, re.MULTILINE | re.DOTALL))
KEYS = {
    "part": "p_partkey", "supplier": "s_suppkey", "nation": "n_nationkey", "region": "r_regionkey", "customer": "c_custkey",
    "orders": "o_orderkey", "item": "i_item_sk", "date_dim": "d_date_sk", "store": "s_store_sk",
}  # fmt: skip
OTHERS = {
    "customer": ["c_name", "c_mktsegment", "c_nationkey", "c_phone", "c_acctbal", "c_customer_sk", "c_customer_id", "c_last_name", "c_first_name"],
    "orders": ["o_custkey", "o_orderdate", "o_orderpriority", "o_shippriority", "o_totalprice", "o_comment"],
    "lineitem": ["l_orderkey", "l_suppkey", "l_quantity", "l_extendedprice", "l_discount", "l_returnflag", "l_linestatus", "l_shipdate", "l_commitdate", "l_receiptdate"],
    "supplier": ["s_name", "s_acctbal", "s_nationkey", "s_comment"],
}  # fmt: skip
TABLES = sorted({*KEYS, *OTHERS})
PROVEN = {
    "h1": [Unique(("l_returnflag", "l_linestatus"), nulls_equal=True), NotNull("count_order")],
    "h3": [Unique(("l_orderkey", "o_orderdate", "o_shippriority"), nulls_equal=True), NotNull("l_orderkey")],
    "h4": [Unique(("o_orderpriority",)), NotNull("order_count")],
    "h13": [Unique(("c_count",)), NotNull("c_count")],
    "h15": [Unique(("s_suppkey",)), NotNull("s_suppkey")],
    "h18": [
        NotNull("c_custkey"),
        Unique(("o_orderkey", "c_name", "c_custkey", "o_orderdate", "o_totalprice"), nulls_equal=True),
    ],
    "ds75": [Unique(("d_year", "i_brand_id", "sales_cnt"), nulls_equal=True)],
    "ds44": [NotNull("rnk")],
}


def relation(table):
    key = KEYS.get(table)
    columns = ([key] if key else []) + OTHERS.get(table, [])
    known = (
        (Known(Unique((key,)), f"{table}.unique", "passed"), Known(NotNull(key), f"{table}.not_null", "passed"))
        if key
        else ()
    )
    is_closed = table in OTHERS
    return Relation(table, tuple(columns) if is_closed else None, known, dict.fromkeys(columns, "integer"))


RELATIONS = {table: relation(table) for table in TABLES}


@pytest.mark.parametrize("adapter", ["duckdb", "postgres", "snowflake", "bigquery"])
@pytest.mark.parametrize("name", QUERIES)
def test_each_query_is_answered(name, adapter):
    proofs = QueryProofs(QUERIES[name], adapter, RELATIONS)
    for column in re.findall(r"\w+", QUERIES[name]):
        for wanted in (Unique((column,)), NotNull(column), Unique((column,), nulls_equal=True)):
            assert isinstance(proofs.prove(wanted), Proof | NotProvable)


@pytest.mark.parametrize("name", PROVEN)
def test_what_holds_of_a_query_is_proven(name):
    proofs = QueryProofs(QUERIES[name], "postgres", RELATIONS)
    for wanted in PROVEN[name]:
        assert isinstance(proofs.prove(wanted), Proof), f"{wanted}: {proofs.prove(wanted)}"


def test_a_thousand_models_take_less_than_a_minute():
    before = time.process_time()
    for sql in QUERIES.values():
        QueryProofs(sql, "postgres", RELATIONS).prove(Unique(("id",)))
    assert (time.process_time() - before) / len(QUERIES) < 0.06
