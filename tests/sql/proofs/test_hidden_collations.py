"""Types of text are trusted only where no collation can hide behind them."""

from __future__ import annotations

from contextlib import closing

import pytest

from dagster_sao.sql.proofs.column_types import COLLATED
from dbt_dagster_sao.data_tests.columns import comparable_types
from tests.sql.proofs.hunting.databases import DuckDB, Postgres

DATABASES = DuckDB, Postgres
COLUMNS = {"id": "integer", "name": "varchar"}


def types(database):
    adapter = "duckdb" if database.is_duckdb else "postgres"
    return comparable_types(COLUMNS, adapter, lambda sql: database.run(sql)[0])


def test_a_plain_duckdb_hides_no_collation():
    with closing(DuckDB()) as database:
        database.run("create table plain as select 1 as id, 'a' as name")
        assert types(database) == COLUMNS


@pytest.mark.parametrize(
    "statements",
    [
        ["create table a (name varchar collate nocase)", "create table b as select * from a"],
        ["create view a as select 'a'COLLATE nocase as name"],
        ["set default_collation = 'nocase'"],
    ],
)
def test_any_collation_of_a_duckdb_hides_the_types_of_texts(statements):
    with closing(DuckDB()) as database:
        for statement in statements:
            database.run(statement)
        assert types(database) == {"id": "integer", "name": COLLATED}


def test_only_a_collation_by_which_different_texts_are_equal_hides_the_types_of_a_postgres(on_postgres):
    on_postgres.run("drop schema if exists hidden cascade; create schema hidden")
    on_postgres.run('create table hidden.a (name text collate "C")')
    assert types(on_postgres) == COLUMNS
    on_postgres.run("create table hidden.b (name text collate public.any_case)")
    assert types(on_postgres) == {"id": "integer", "name": COLLATED}
    on_postgres.run("drop schema hidden cascade")
