"""A test with `where` is proven only if its `where` certainly runs: what is understood is run on real databases."""

from __future__ import annotations

import pytest

from dagster_sao.sql.proofs import AcceptedValues, Known, NotNull, NotProvable, Proof, QueryProofs, Relation
from tests.sql.proofs.hunting.databases import DuckDB, Postgres

DATABASES = DuckDB, Postgres
TYPES = {
    "id": "integer",
    "name": "text",
    "day": "date",
    "made": "timestamp",
    "paid": "boolean",
    "size": "double precision",
    "odd": "numeric(3,1)",
    "other": "json",
}
UNDERSTOOD = [
    "id > 1", "id in (1, 2)", "id between -1 and 1", "1 < id and (id is not null or id = 2)", "not id = 1", "id = id",
    "name = 'paid'", "name <> 'x' or name in ('a', '')", "name >= '2024-01-01'", "day >= '2024-02-29'", "day > date '2024-02-29'",
    "cast('2024-01-01' as date) < made", "made >= '2024-01-01'", "made > day", "paid", "not paid", "paid is not true", "paid = false", "size > 1",
    "other is null", "ID = 1 and Name = 'x'",
]  # fmt: skip
NOT_UNDERSTOOD = [
    "missing > 1", "t.id > 1", "id", "id > 'x'", "id = '1'", "name = 1", "name = name || id", "cast(name as int) = 1", "1 / id = 1", "odd > 1000000",
    "day > '2023-02-29'", "day > 'today'", "day > name", "made > '10:00'", "other = 'x'", "odd = id", "size = name", "paid is null = true",
    "id is 1", "id in (select 1)", "id = 12345678901234567890", "id > 1 -- x", "id > 1 /* x", "id > 1;", "id > 1 limit 1", "id > 1) or (id < 1",
    "{{ var('x') }}", "my_function(id)", "exists (select 1)", "day > cast('x' as date)", "id > 1 order by id", "(select true)", "",
]  # fmt: skip


def proofs(adapter, types=TYPES, known=(), sql="select * from a"):
    holds = (NotNull("id"), *known)
    relation = Relation("a", tuple(TYPES), tuple(Known(one, "a.test", "passed 12:00") for one in holds), types)
    return QueryProofs(sql, adapter, {"a": relation})


@pytest.mark.parametrize("adapter", ["duckdb", "postgres"])
@pytest.mark.parametrize("where", UNDERSTOOD)
def test_a_test_with_a_plain_where_is_proven(adapter, where):
    assert isinstance(proofs(adapter).prove(NotNull("id"), where), Proof)


@pytest.mark.parametrize("adapter", ["duckdb", "postgres"])
@pytest.mark.parametrize("where", NOT_UNDERSTOOD[:-1])
def test_a_where_that_could_be_an_error_proves_nothing(adapter, where):
    answer = proofs(adapter).prove(NotNull("id"), where)
    assert answer == NotProvable("the test's where is not known to run without an error")


def test_a_where_is_run_without_an_error(database):
    database.run("drop table if exists conditions")
    columns = ", ".join(f"{name} {kind}" for name, kind in TYPES.items())
    database.run(f"create table conditions ({columns})")
    database.run(
        "insert into conditions (id, name, day, size, odd) values (1, 'x', '2024-01-01', 'nan', 99.9), (null, null, null, null, null)"
    )
    for where in UNDERSTOOD:
        database.run(f"select * from (select * from conditions where {where}) q")
    database.run("drop table conditions")


@pytest.mark.parametrize(
    ("where", "is_proven"),
    [
        ("name = 'a'", True),
        ("name not in ('a', 'b')", True),
        ("name = 'c'", False),
        ("name > 'a'", False),
        ("name between 'a' and 'b'", False),
    ],
)
def test_a_column_was_compared_with_the_values_that_a_test_accepts(where, is_proven):
    found = proofs("postgres", None, [AcceptedValues("name", frozenset({"a", "b"}), quoted=True)])
    assert isinstance(found.prove(NotNull("id"), where), Proof) == is_proven


def test_the_types_of_a_table_are_those_of_its_query_on_some_databases_only():
    assert isinstance(
        proofs("snowflake", {"ID": "integer"}, sql="select id from a").prove(NotNull("id"), "id > 1"), NotProvable
    )
    assert isinstance(proofs("bigquery").prove(NotNull("id"), "id > 1"), Proof)
    assert isinstance(proofs("spark").prove(NotNull("id"), "id > 1"), NotProvable)
