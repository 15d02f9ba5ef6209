"""Macros of dbt that a project replaces: which tests dbt must answer itself, and which relations may differ from their query."""

from __future__ import annotations

import pytest

from dbt_dagster_sao.data_tests.handover import DataTestRequest
from dbt_dagster_sao.data_tests.proofs import TestProofs
from dbt_dagster_sao.data_tests.replaced_macros import Macro, replaced_macros

INTERNAL = frozenset({"dbt", "dbt_postgres"})
DBTS = [
    Macro("statement", "dbt", "macros/etc/statement.sql"),
    Macro("get_test_sql", "dbt", "macros/materializations/tests/helpers.sql"),
    Macro("default__get_test_sql", "dbt", "macros/materializations/tests/helpers.sql"),
    Macro("materialization_test_default", "dbt", "macros/materializations/tests/test.sql"),
    Macro("materialization_table_default", "dbt", "macros/materializations/models/table.sql"),
    Macro("create_table_as", "dbt", "macros/relations/table/create.sql"),
    Macro("postgres__create_table_as", "dbt_postgres", "macros/adapters.sql"),
    Macro("generate_schema_name", "dbt", "macros/get_custom_name/get_custom_schema.sql"),
    Macro("date_spine", "dbt", "macros/utils/date_spine.sql"),
    Macro("collect_freshness", "dbt", "macros/adapters/freshness.sql"),
    Macro("default__test_unique", "dbt", "macros/generic_test_sql/unique.sql"),
    Macro("test_unique", "dbt", "tests/generic/builtin.sql"),
]
ANSWERS = "The project replaces dbt's macro {}, which turns a test's query into its answer."


def replaced_by(*names):
    return replaced_macros([*DBTS, *(Macro(name, "shop", "macros/own.sql") for name in names)], INTERNAL)


@pytest.mark.parametrize(
    ("name", "answers", "rows"),
    [
        ("cents_to_dollars", "", ""),
        ("statement", "statement", "statement"),
        ("get_test_sql", "get_test_sql", "get_test_sql"),
        ("postgres__get_test_sql", "get_test_sql", "get_test_sql"),
        ("materialization_test_default", "materialization_test", ""),
        # dbt's own has no version for this adapter, and calls this one all the same.
        ("materialization_test_postgres", "materialization_test", ""),
        ("materialization_table_postgres", "", "materialization_table"),
        ("materialization_insert_by_period_default", "", ""),
        ("create_table_as", "", "create_table_as"),
        ("postgres__create_table_as", "", "create_table_as"),
        ("generate_schema_name", "", ""),
        ("date_spine", "", ""),
        ("collect_freshness", "", ""),
        ("test_unique", "", ""),
    ],
)
def test_a_macro_in_place_of_dbts_leaves_tests_to_dbt_or_makes_rows_uncertain(name, answers, rows):
    found = replaced_by(name)
    assert found.why_dbt_answers == (ANSWERS.format(answers) if answers else "")
    assert found.why_rows_may_differ == (f"the project replaces dbt's macro {rows}" if rows else "")


def test_nothing_is_replaced_by_dbt_itself():
    assert replaced_by() == replaced_macros([], INTERNAL)


def test_no_test_is_proven_of_a_model_that_the_project_builds_its_own_way():
    model = {
        "name": "orders",
        "resource_type": "model",
        "config": {"materialized": "table"},
        "compiled_code": "select 1 as id",
    }
    test = {
        "attached_node": "model.shop.orders",
        "test_metadata": {"name": "not_null", "kwargs": {"column_name": "id"}},
    }
    entries = {"model.shop.orders": model, "t": test}
    request = DataTestRequest(builds=frozenset({"model.shop.orders"}), provable=frozenset({"t"}))
    proofs = TestProofs(request, "postgres", entries.get, replaced_by("create_table_as"))
    assert proofs.prove("t", None) == (
        "The rows of orders may differ from its query's: the project replaces dbt's macro create_table_as."
    )


def test_a_generic_test_that_two_packages_define_may_be_replaced():
    of_utils = Macro("default__test_recency", "dbt_utils", "macros/recency.sql")
    assert replaced_macros([of_utils], INTERNAL).names == frozenset()
    own = Macro("default__test_recency", "shop", "macros/own.sql")
    assert replaced_macros([of_utils, own], INTERNAL).names == {"test_recency"}
