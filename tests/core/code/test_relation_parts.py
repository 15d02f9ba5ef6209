"""What of the relations around a node is part of its code, and values that are templates themselves."""

from __future__ import annotations

import pytest

from dagster_sao.core.code.context_values import Surroundings
from dagster_sao.core.code.fingerprinter import Fingerprinter
from dagster_sao.core.code.variables import Variables
from tests.core.manifests import data_test, function, macro, manifest, model, source


def changes(before, after, name="model.shop.m", **surroundings):
    """Return what differs in the code of a node between two manifests."""
    found = [
        Fingerprinter(each, Surroundings(**{**surroundings, **more})).fingerprints() for each, more in (before, after)
    ]
    return found[1][name].changes_since(found[0][name])


def above(materialized, relation, *between):
    parent = model("a", relation_name=f'"db"."main"."{relation}"')
    return manifest([parent, model("m", *(between or ("a",)), config={"materialized": materialized})])


@pytest.mark.parametrize(
    ("materialized", "counts"),
    [
        ("view", True), ("materialized_view", True), ("dynamic_table", True), ("own", True),
        ("table", False), ("incremental", False),
    ],
)  # fmt: skip
def test_sql_that_the_warehouse_keeps_names_the_relations_of_its_parents(materialized, counts):
    found = changes((above(materialized, "a"), {}), (above(materialized, "b"), {}))
    assert found == (("relation: a",) if counts else ())


def test_so_does_the_body_of_a_function():
    def world(relation):
        parent = model("a", relation_name=relation)
        return manifest(
            [parent, model("m", "function.shop.f")], functions={"function.shop.f": function("f", "model.shop.a")}
        )

    assert changes((world("a"), {}), (world("b"), {}), "function.shop.f") == ("relation: a",)
    assert changes((world("a"), {}), (world("b"), {})) == ("function: f",)


@pytest.mark.parametrize(("strategy", "expected"), [("microbatch", ("source: raw.orders",)), ("append", ())])
def test_batches_depend_on_the_event_time_of_sources(strategy, expected):
    def world(**config):
        node = model(
            "m", "source.shop.raw.orders", config={"materialized": "incremental", "incremental_strategy": strategy}
        )
        return manifest([node], [source("raw", "orders", config=config)])

    assert changes((world(), {}), (world(event_time="at"), {})) == expected


@pytest.mark.parametrize(("strategy", "expected"), [("microbatch", ("ephemeral: a",)), ("append", ())])
def test_and_of_ephemeral_models(strategy, expected):
    def world(**config):
        node = model("m", "a", config={"materialized": "incremental", "incremental_strategy": strategy})
        return manifest([model("a", config={"materialized": "ephemeral", **config}), node])

    assert changes((world(), {}), (world(event_time="at"), {})) == expected


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"name": "a", "data_type": "int"}, {"name": "a", "data_type": "int", "quote": True}),
        ({"name": "a", "data_type": "int"}, {"name": "a", "data_type": "text"}),
    ],
)
def test_an_enforced_contract_says_how_columns_are_named_and_typed(before, after):
    def world(column):
        return manifest([model("m", columns={"a": column}, config={"contract": {"enforced": True}})])

    assert changes((world(before), {}), (world(after), {})) == ("config: contract",)


def test_an_enforced_contract_says_whether_types_are_translated():
    def world(alias_types):
        contract = {"enforced": True, "alias_types": alias_types}
        return manifest([model("m", columns={"a": {"name": "a", "data_type": "int"}}, config={"contract": contract})])

    assert changes((world(True), {}), (world(False), {})) == ("config: contract",)


TEMPLATES = {
    "a variable of the environment": (
        "{{ env_var('A', 'x') }}",
        {"environ": {"A": "1"}},
        {"environ": {"A": "2"}},
        "env_var: A",
    ),
    "the target": (
        "{{ target.name }}",
        {"target": lambda: {"name": "dev"}},
        {"target": lambda: {"name": "prod"}},
        "target: name",
    ),
}


@pytest.mark.parametrize(("template", "before", "after", "name"), TEMPLATES.values(), ids=TEMPLATES)
def test_a_variable_with_jinja_reads_what_its_jinja_reads(template, before, after, name):
    world = manifest([model("m", raw_code="select '{{ var('v') }}'")])
    variables = Variables(project={"v": template})
    assert changes((world, before), (world, after), variables=variables) == (name,)


def test_a_variable_with_jinja_calls_what_its_jinja_calls():
    def world(body):
        macros = {"macro.shop.five": macro("five", f"{{% macro five() %}}{body}{{% endmacro %}}")}
        return manifest([model("m", raw_code="select {{ var(name) }}")], macros=macros)

    variables = Variables(project={"v": "{{ five() }} {{ var('v') }}"})
    assert changes((world("5"), {}), (world("6"), {}), variables=variables) == ("macro: five",)


def test_the_version_of_dbt_counts_where_it_is_read():
    def world(version, raw):
        made = manifest([model("m", raw_code=raw)])
        return {**made, "metadata": {**made["metadata"], "dbt_version": version}}

    read, unread = "select '{{ dbt_version }}'", "select 1"
    assert changes((world("1.11.1", read), {}), (world("1.11.2", read), {})) == ("dbt_version: *",)
    assert changes((world("1.11.1", unread), {}), (world("1.11.2", unread), {})) == ()


def test_settings_of_the_session_count_for_models_and_tests():
    world = manifest([model("m"), data_test("t", "m")])
    before, after = ({"session": {"settings.TimeZone": zone}} for zone in ("UTC", "Asia/Tokyo"))
    for name in ("model.shop.m", "test.shop.t.1"):
        assert changes((world, before), (world, after), name) == ("profile: settings.TimeZone",)
