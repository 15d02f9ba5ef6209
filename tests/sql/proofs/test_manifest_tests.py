"""The property of a generic test is read from the manifest, and a test that claims less is not taken for it."""

from __future__ import annotations

import pytest

from dagster_sao.sql.proofs import (
    AcceptedValues,
    NotNull,
    NotProvable,
    Relationship,
    Unique,
    known_property,
    wanted_property,
)

RELATIONS = {"model.shop.orders": "db.main.orders", "model.shop.customers": "db.main.customers"}


def entry(name, namespace=None, config=None, macros=None, nodes=("model.shop.orders",), **arguments):
    own = f"macro.{namespace or 'dbt'}.test_{name}"
    return {
        "test_metadata": {
            "name": name,
            "namespace": namespace,
            "kwargs": {"model": "{{ ref('orders') }}", **arguments},
        },
        "config": {
            "severity": "ERROR",
            "fail_calc": "count(*)",
            "warn_if": "!= 0",
            "error_if": "!= 0",
            **(config or {}),
        },
        "depends_on": {
            "macros": [own, "macro.dbt.get_where_subquery"] if macros is None else macros,
            "nodes": list(nodes),
        },
        "attached_node": "model.shop.orders",
        "column_name": arguments.get("column_name"),
    }


BOTH = ("model.shop.customers", "model.shop.orders")
PROPERTIES = [
    (entry("unique", column_name="id"), Unique(("id",))),
    (entry("not_null", column_name='"Id"'), NotNull('"Id"')),
    (
        entry("accepted_values", column_name="s", values=["a", 1, True]),
        AcceptedValues("s", frozenset({"a", "1", "True"}), quoted=True),
    ),
    (
        entry("accepted_values", column_name="s", values=[1, True], quote=False),
        AcceptedValues("s", frozenset({"1", "true"}), quoted=False),
    ),
    (
        entry("relationships", column_name="k", to="ref('customers')", field="id", nodes=BOTH),
        Relationship("k", "db.main.customers", "id"),
    ),
    (
        entry("relationships", column_name="k", to="{{ ref('orders') }}", field="id"),
        Relationship("k", "db.main.orders", "id"),
    ),
    (
        entry("unique_combination_of_columns", "dbt_utils", combination_of_columns=["id", "k"]),
        Unique(("id", "k"), nulls_equal=True),
    ),
    (entry("unique", column_name="id", config={"severity": "warn", "error_if": ">= 1"}), Unique(("id",))),
]
NO_PROPERTIES = [
    (entry("equality", "dbt_utils"), "nothing is known of the test equality"),
    (entry("unique", "other", column_name="id"), "nothing is known of the test unique"),
    (
        entry("unique", column_name="id", macros=["macro.shop.test_unique"]),
        "the test runs macro.shop.test_unique, which is not dbt's own",
    ),
    (
        entry("unique", column_name="id", macros=["macro.dbt.test_unique", "macro.shop.get_where_subquery"]),
        "the test runs macro.shop.get_where_subquery, which is not dbt's own",
    ),
    (
        entry("unique", column_name="id", macros=[]),
        "the test runs no macro macro.dbt.test_unique, which is not dbt's own",
    ),
    (
        entry("unique", column_name="id", config={"fail_calc": "sum(n_records)"}),
        "the test counts its failures in its own way",
    ),
    (entry("unique"), "the test's column is not spelled out"),
    (entry("unique", column_name="{{ var('key') }}"), "the test's column is not spelled out"),
    (entry("accepted_values", column_name="s", values=["it's"]), "the test's values are not plain literals"),
    (
        entry("accepted_values", column_name="s", values=["a || b"], quote=False),
        "the test's values are not plain literals",
    ),
    (entry("accepted_values", column_name="s", values=[None], quote=False), "the test's values are not plain literals"),
    (entry("accepted_values", column_name="s", values="{{ var('values') }}"), "the test's values are not spelled out"),
    (
        entry("relationships", column_name="k", to="parent_of(k)", field="id", nodes=BOTH),
        "the test's parent is not spelled out",
    ),
    (
        entry("relationships", column_name="k", to="ref('customers')", field="id", nodes=(*BOTH, "model.shop.x")),
        "the test reads more than its parent",
    ),
    (
        entry("relationships", column_name="k", to="ref('x')", field="id", nodes=("model.shop.x",)),
        "the test's parent has no relation",
    ),
    (
        entry("unique_combination_of_columns", "dbt_utils", combination_of_columns=["id"], quote_columns=True),
        "the test's columns are not spelled out",
    ),
]
NOT_OF_ALL_ROWS = [
    ({"where": "id > 1"}, "the test has a where, so that it says nothing about the other rows"),
    ({"limit": 10}, "the test has a limit"),
    ({"error_if": "> 10"}, "the test has its own error_if, so that it may pass with failures"),
    ({"warn_if": ">= 1"}, "the test has its own warn_if, so that it may pass with failures"),
]


@pytest.mark.parametrize(("test", "holds"), PROPERTIES)
def test_a_generic_test_states_a_property(test, holds):
    assert wanted_property(test, RELATIONS.get) == holds


@pytest.mark.parametrize(("test", "reason"), NO_PROPERTIES)
def test_what_is_not_understood_states_nothing(test, reason):
    assert wanted_property(test, RELATIONS.get) == NotProvable(reason)
    assert known_property(test, RELATIONS.get) == NotProvable(reason)


@pytest.mark.parametrize(("config", "reason"), NOT_OF_ALL_ROWS)
def test_a_pass_that_does_not_mean_no_failures_is_no_premise(config, reason):
    test = entry("unique", column_name="id", config=config)
    assert known_property(test, RELATIONS.get) == NotProvable(reason)
    assert wanted_property(test, RELATIONS.get) == Unique(("id",))


def test_a_plain_test_is_a_premise():
    assert known_property(entry("unique", column_name="id"), RELATIONS.get) == Unique(("id",))
