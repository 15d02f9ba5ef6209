"""Constraints prove only what the database enforces: dbt builds models by contracts, and rows that break them are tried."""

from __future__ import annotations

import pytest

from dagster_sao.sql.proofs import Known, NotNull, Unique, contract_types, enforced_properties


def model(*constraints, column=(), materialized="table", enforced=True, **config):
    return {
        "resource_type": "model",
        "config": {"materialized": materialized, "contract": {"enforced": enforced}, **config},
        "columns": {
            "id": {"name": "id", "data_type": "bigint", "constraints": list(column)},
            "Day": {"name": "Day", "data_type": "date", "quote": True},
            "pair": {"name": "pair", "data_type": "two_numbers", "constraints": list(column)},
        },
        "constraints": list(constraints),
    }


NOT_NULL, UNIQUE, KEY = ({"type": kind} for kind in ("not_null", "unique", "primary_key"))


def enforced(found, adapter="postgres"):
    return [known.property for known in enforced_properties(found, adapter)]


@pytest.mark.parametrize(
    ("constraints", "column", "expected"),
    [
        ((), [NOT_NULL], [NotNull("id")]),
        ((), [UNIQUE], [Unique(("id",))]),
        ((), [KEY], [Unique(("id",)), Unique(("id",), nulls_equal=True), NotNull("id")]),
        (({**UNIQUE, "columns": ["id", "Day"]},), [], [Unique(("id", '"Day"'))]),
        (({**KEY, "columns": ["id"]},), [], [Unique(("id",)), Unique(("id",), nulls_equal=True), NotNull("id")]),
        # dbt leaves these out.
        (({**NOT_NULL, "columns": ["id"]}, {"type": "custom", "columns": ["id"]}), [], []),
        ((), [{"type": "check", "expression": "id > 0"}], []),
        ((), [{**NOT_NULL, "expression": "not valid"}], []),
        ((), [{"type": "foreign_key"}], []),
    ],
)
def test_a_constraint_says_what_the_database_enforces(constraints, column, expected):
    assert enforced(model(*constraints, column=column)) == expected


def test_a_row_of_nulls_is_a_value_to_a_constraint_and_none_to_a_test():
    assert enforced(model({**UNIQUE, "columns": ["id", "pair"]}, column=[NOT_NULL])) == [NotNull("id")]
    assert enforced(model(column=[NOT_NULL]), "duckdb") == [NotNull("id"), NotNull("pair")]


def test_the_types_of_a_contract_are_known_by_the_names_of_the_catalog():
    assert contract_types(model(), "postgres") == {"id": "bigint", "Day": "date", "pair": "two_numbers"}
    assert contract_types(model(), "snowflake") == {"ID": "bigint", "Day": "date", "PAIR": "two_numbers"}
    assert contract_types(model(), "unheard_of") == {}


def test_only_some_constraints_of_duckdb_mean_what_tests_do():
    # Its indexes ignore collations, which GROUP BY does not.
    assert enforced(model(column=[NOT_NULL, UNIQUE, KEY]), "duckdb") == [NotNull("id"), NotNull("pair")]


@pytest.mark.parametrize("adapter", ["snowflake", "bigquery", "spark", "unheard_of"])
def test_nothing_is_known_of_constraints_elsewhere(adapter):
    assert enforced_properties(model(column=[NOT_NULL]), adapter) == ()


@pytest.mark.parametrize(
    "other",
    [
        {"enforced": False},
        {"materialized": "incremental"},
        {"materialized": "view"},
        {"post-hook": ["alter table {{ this }} alter id drop not null"]},
        {"keep_only": "paid"},
    ],
)
def test_only_a_table_that_dbt_creates_by_an_enforced_contract_has_its_constraints(other):
    assert enforced_properties(model(column=[NOT_NULL], **other), "postgres") == ()


def test_a_proof_names_the_constraint_and_no_test():
    assert enforced_properties(model(column=[NOT_NULL]), "postgres") == (
        Known(NotNull("id"), "", "a constraint of the table"),
    )
