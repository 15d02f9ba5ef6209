"""What counts as a change of a test, and what does not: one edit per test of a real project, and its message."""

from __future__ import annotations

import pytest

from dagster_sao.core.code.context_values import Surroundings
from dagster_sao.core.code.fingerprinter import Fingerprinter
from dagster_sao.core.code.variables import Variables
from tests.conftest import run_dbt
from tests.core.manifests import data_test, macro, manifest, model

PROJECT = {
    "dbt_project.yml": "{name: shop, version: 1.0.0, profile: shop, vars: {limit: LIMIT, unread: UNREAD}}",
    "profiles.yml": "shop: {target: dev, outputs: {dev: {type: duckdb, path: ':memory:'}}}",
    "models/sources.yml": """
sources:
  - name: raw
    tables:
      - {name: orders, identifier: IDENTIFIER, columns: [{name: id, data_tests: [{unique: {name: on_moved_source}}]}]}
""",
    "models/eph.sql": "{{ config(materialized='ephemeral') }} select EPH as id from {{ source('raw', 'orders') }}",
    "models/m.sql": "{{ config(materialized='table') }} select id, id as other from {{ source('raw', 'orders') }}",
    "models/edited.sql": "{{ config(materialized='table') }} select EDITED as id from {{ source('raw', 'orders') }}",
    "macros/tests.sql": """
{% test own(model, column_name) %}select * from {{ model }} where {{ column_name }} > {{ helper() }}{% endtest %}
{% macro helper() %}HELPER{% endmacro %}
{% macro unread() %}UNREAD{% endmacro %}
{% macro in_where() %}IN_WHERE{% endmacro %}
""",
    "tests/singular_edit.sql": "select * from {{ ref('m') }} where id < SINGULAR",
    "tests/comment_edit.sql": "select * from {{ ref('m') }} -- COMMENT",
    "tests/var_edit.sql": "select * from {{ ref('m') }} where id > {{ var('limit') }}",
    "tests/env_var_edit.sql": "select * from {{ ref('m') }} where id > {{ env_var('SHOP_MAX', 1) }}",
    "tests/through_ephemeral.sql": "select * from {{ ref('eph') }}",
    "models/properties.yml": """
models:
  - name: m
    columns:
      - name: id
        data_tests:
          - {not_null: {name: plain}}
          - {accepted_values: {name: arguments_edit, arguments: {values: [1, VALUE]}}}
          - {not_null: {name: where_edit, config: {where: "id > WHERE"}}}
          - {not_null: {name: limit_edit, config: {limit: LIMITED}}}
          - {not_null: {name: severity_edit, config: {severity: SEVERITY}}}
          - {not_null: {name: error_if_edit, config: {error_if: ">ERROR_IF"}}}
          - {not_null: {name: warn_if_edit, config: {warn_if: ">WARN_IF"}}}
          - {not_null: {name: fail_calc_edit, config: {fail_calc: "FAIL_CALC"}}}
          - {not_null: {name: store_failures_edit, config: {store_failures: STORE}}}
          - {not_null: {name: tags_edit, config: {tags: [TAG], meta: {owner: TAG}}}}
          - {own: {name: own_macro_edit}}
  - name: edited
    columns: [{name: id, data_tests: [{not_null: {name: of_an_edited_model}}]}]
unit_tests:
  - name: unit_edit
    model: m
    given: [{input: "source('raw', 'orders')", rows: [{id: ROW}]}]
    expect: {rows: [{id: ROW, other: ROW}]}
  - name: unit_of_an_edited_model
    model: edited
    given: [{input: "source('raw', 'orders')", rows: [{id: 1}]}]
    expect: {rows: [{id: 1}]}
""",
}
BEFORE = {
    "LIMITED": "5", "LIMIT": "1", "UNREAD": "1", "IDENTIFIER": "orders", "EPH": "1", "EDITED": "1", "HELPER": "1",
    "IN_WHERE": "1", "SINGULAR": "1", "COMMENT": "a", "VALUE": "2", "WHERE": "1", "SEVERITY": "error", "ERROR_IF": "1",
    "WARN_IF": "1", "FAIL_CALC": "count(*)", "STORE": "false", "TAG": "a", "ROW": "1",
}  # fmt: skip
AFTER = {
    **dict.fromkeys(BEFORE, "7"),
    "IDENTIFIER": "moved", "SEVERITY": "warn", "FAIL_CALC": "sum(1)", "STORE": "true", "COMMENT": "b", "TAG": "b",
}  # fmt: skip

# What the message names; what is not listed has the same code as before.
CHANGED = {
    "arguments_edit": {"arguments"},
    "where_edit": {"config: where"},
    "limit_edit": {"config: limit"},
    "severity_edit": {"config: severity"},
    "error_if_edit": {"config: error_if"},
    "warn_if_edit": {"config: warn_if"},
    "fail_calc_edit": {"config: fail_calc"},
    "store_failures_edit": {"config: relation_name", "config: store_failures", "config: store_failures_as"},
    "own_macro_edit": {"macro: helper"},
    "singular_edit": {"sql"},
    "var_edit": {"var: limit"},
    "env_var_edit": {"env_var: SHOP_MAX"},
    "through_ephemeral": {"ephemeral: eph", "source: raw.orders"},
    "on_moved_source": {"source: raw.orders"},
    "unit_edit": {"definition", "model"},
    "unit_of_an_edited_model": {"model"},
}


def fingerprints(world, **surroundings):
    fingerprinter = Fingerprinter(world, Surroundings(**surroundings))
    found = fingerprinter.fingerprints()
    return {test.name: found[uid] for uid, test in fingerprinter.graph.tests.items()}


def parsed(folder, words, environ):
    for name, text in PROJECT.items():
        for word, value in words.items():
            text = text.replace(word, value)  # noqa: PLW2901
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    variables = Variables(project={"limit": int(words["LIMIT"]), "unread": int(words["UNREAD"])})
    return fingerprints(run_dbt(folder, "parse"), variables=variables, environ=environ)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tests")
    return parsed(folder / "before", BEFORE, {"SHOP_MAX": "1"}), parsed(folder / "after", AFTER, {"SHOP_MAX": "2"})


@pytest.mark.parametrize("name", CHANGED)
def test_an_edit_that_can_change_the_answer_is_named(both, name):
    before, after = both
    assert set(after[name].changes_since(before[name])) == CHANGED[name]


def test_nothing_else_counts(both):
    """Comments, tags, meta, unread macros and variables, and the code of the model: that is in the model's version."""
    before, after = both
    assert {name for name in after if after[name].changes_since(before[name])} == set(CHANGED)


# Macros that dbt calls without listing them


@pytest.mark.parametrize("name", ["get_where_subquery", "default__get_test_sql", "duckdb__get_test_sql"])
def test_a_macro_of_the_project_in_the_place_of_dbts_own_counts(name):
    def world(body):
        own = macro(name, body)
        return manifest([model("m"), data_test("t", "m")], macros={own["unique_id"]: own})

    old, new = (fingerprints(world(body))["t"] for body in ("{{ 1 }}", "{{ 2 }}"))
    assert new.changes_since(old) == (f"macro: {name}",)


def test_a_macro_that_only_an_argument_calls_counts():
    def world(body):
        own = macro("threshold", body)
        kwargs = {"column_name": "id", "model": "{{ get_where_subquery(ref('m')) }}", "expression": "{{ threshold() }}"}
        test = data_test("t", "m", test_metadata={"name": "own", "kwargs": kwargs, "namespace": None})
        return manifest([model("m"), test], macros={own["unique_id"]: own})

    old, new = (fingerprints(world(body))["t"] for body in ("{{ 1 }}", "{{ 2 }}"))
    assert new.changes_since(old) == ("macro: threshold",)


def test_a_materialization_of_tests_counts():
    def world(body):
        own = {**macro("materialization_test_default", body), "macro_sql": body}
        return manifest([model("m"), data_test("t", "m")], macros={own["unique_id"]: own})

    old, new = (fingerprints(world(body))["t"] for body in ("{{ 1 }}", "{{ 2 }}"))
    assert new.changes_since(old) == ("macro: materialization_test_default",)


@pytest.mark.parametrize(
    "on",
    [
        {"flags": {"warn_error": True}},
        {"environ": {"DBT_WARN_ERROR": "1"}},
        {"environ": {"DBT_ENGINE_WARN_ERROR": "true"}, "flags": {"warn_error": False}},
        {"arguments": {"warn_error": True}, "environ": {"DBT_WARN_ERROR": "false"}},
    ],
)
def test_a_setting_that_makes_failures_of_warnings_counts_for_data_tests_alone(on):
    world = manifest([model("m"), data_test("t", "m")])
    before, after = (Fingerprinter(world, Surroundings(**given)).fingerprints() for given in ({}, on))
    assert after["test.shop.t.1"].changes_since(before["test.shop.t.1"]) == ("dbt flag: warn_error",)
    assert not after["model.shop.m"].changes_since(before["model.shop.m"])


@pytest.mark.parametrize(
    "off", [{"flags": {"warn_error": False}}, {"environ": {"DBT_WARN_ERROR": "0"}, "flags": {"warn_error": True}}]
)
def test_such_a_setting_that_is_off_is_none(off):
    world = manifest([model("m"), data_test("t", "m")])
    assert not fingerprints(world, **off)["t"].changes_since(fingerprints(world)["t"])


# Volatile tests


@pytest.mark.parametrize(
    ("changes", "is_volatile"),
    [
        ({"raw_code": "select * from t where day > current_date"}, True),
        ({"config": {"where": "day > now()"}}, True),
        ({"test_metadata": {"name": "x", "kwargs": {"expression": "ts < current_timestamp"}, "namespace": None}}, True),
        ({"config": {"meta": {"note": "now()"}}}, False),
        ({"raw_code": "select now from t -- current_date"}, False),
    ],
)
def test_a_test_knows_whether_its_answer_depends_on_the_time(changes, is_volatile):
    graph = Fingerprinter(manifest([model("m"), data_test("t", "m", **changes)])).graph
    assert graph.tests["test.shop.t.1"].is_volatile is is_volatile


def test_a_test_is_volatile_through_a_macro_and_through_an_ephemeral_model():
    clock = macro("today", "{% macro today() %}current_date{% endmacro %}")
    through_macro = data_test("a", "m", depends_on={"nodes": ["model.shop.m"], "macros": [clock["unique_id"]]})
    ephemeral = model("eph", "m", config={"materialized": "ephemeral"}, raw_code="select current_date")
    world = manifest([model("m"), ephemeral, through_macro, data_test("b", "eph")], macros={clock["unique_id"]: clock})
    tests = Fingerprinter(world).graph.tests.values()
    assert all(test.is_volatile for test in tests)


def test_a_test_is_volatile_through_views_alone():
    views = [
        model("clock", raw_code="select now() as at", config={"materialized": "view"}),
        model("above", "clock", config={"materialized": "view"}),
        model("stored", "above"),
        model("plain", config={"materialized": "view"}),
    ]
    tests = [data_test(f"of_{name}", name) for name in ("clock", "above", "stored", "plain")]
    graph = Fingerprinter(manifest([*views, *tests])).graph
    assert {test.name for test in graph.tests.values() if test.is_volatile} == {"of_clock", "of_above"}


def test_a_data_test_that_reads_nothing_known_is_volatile():
    graph = Fingerprinter(
        manifest([model("m"), data_test("t", raw_code="select * from main.m where id is null")])
    ).graph
    assert graph.tests["test.shop.t.1"].is_volatile
