"""What is modified between two manifests: what changes the rows, in whatever environment each was written."""

from __future__ import annotations

import pytest

from dagster_sao.core.code.context_values import Surroundings
from dagster_sao.core.code.fingerprinter import Fingerprinter
from dagster_sao.core.code.variables import Variables
from dagster_sao.core.errors import InvalidSelectionError
from dagster_sao.core.manifest_diff import compare, without_environment
from tests.core.manifests import macro, manifest, model, seed, source

RAW = "source.shop.raw.orders"
STG, PAID, ORDERS, COUNTRIES = "model.shop.stg", "model.shop.paid", "model.shop.orders", "seed.shop.countries"
EVERYTHING = {RAW, STG, ORDERS, COUNTRIES}


def shop(environment="prod", *, macros=("100",), raw=None, **changes):
    """Return raw.orders >> stg >> (paid) >> orders, with everything put into the schema of an environment.

    `changes` are those of one model's entry, by its name.
    """

    def placed(entry):
        return {
            **entry,
            "schema": environment,
            "relation_name": f'"db"."{environment}"."{entry["name"]}"',
            "unrendered_config": entry.get("unrendered_config", {}),
        }

    def one(name, *parents, **own):
        return placed(model(name, *parents, **{**own, **changes.get(name, {})}))

    source_entry = {
        **source("raw", "orders", relation_name=f'"db"."{environment}_raw"."orders"'),
        "schema": f"{environment}_raw",
        "unrendered_database": None,
        "unrendered_schema": "{{ target.name }}_raw",
        **(raw or {}),
    }
    cents = {"depends_on": {"nodes": [RAW], "macros": ["macro.shop.cents"]}}
    return manifest(
        [
            one("stg", RAW, **cents),
            one("paid", "stg", config={"materialized": "ephemeral"}),
            one("orders", "paid", "stg"),
            placed(seed("countries", **changes.get("countries", {}))),
        ],
        [source_entry],
        macros={f"macro.shop.{name}": entry for name, entry in (("cents", macro("cents", text)) for text in macros)},
    )


def code(world, **variables):
    return Fingerprinter(without_environment(world), Surroundings(Variables(command_line=variables)))


def compared(current, other=None):
    return compare(code(current), code(other or shop()))


def test_another_environment_is_no_modification():
    found = compared(shop("dev"), shop("prod"))
    assert (found.new, found.changed, found.unchanged) == (frozenset(), {}, EVERYTHING)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(
            {"stg": {"raw_code": "-- a comment\nSELECT  {{ ref('source.shop.raw.orders') }}.id"}}, id="comment"
        ),
        pytest.param({"paid": {"raw_code": "select {{ ref('stg') }}.id  -- paid"}}, id="comment in an ephemeral model"),
        pytest.param({"macros": ("{# in cents #}100",)}, id="comment in a macro"),
        pytest.param({"stg": {"description": "staged", "tags": ["nightly"]}}, id="description"),
    ],
)
def test_what_changes_no_row_is_no_modification(changes):
    assert compared(shop("dev", **changes)).changed == {}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"stg": {"raw_code": "select 1 as id"}}, {STG: ("sql",)}, id="sql"),
        pytest.param({"paid": {"raw_code": "select 1"}}, {ORDERS: ("ephemeral: paid",)}, id="an ephemeral model"),
        pytest.param({"macros": ("1000",)}, {STG: ("macro: cents",)}, id="a macro"),
        pytest.param(
            {"orders": {"config": {"materialized": "view"}}}, {ORDERS: ("config: materialized",)}, id="its config"
        ),
        pytest.param(
            {"countries": {"checksum": {"name": "sha256", "checksum": "other"}}},
            {COUNTRIES: ("file",)},
            id="a seed's file",
        ),
        pytest.param(
            {"orders": {"unrendered_config": {"alias": "all_orders"}}},
            {ORDERS: ("config: relation_name",)},
            id="its alias",
        ),
        pytest.param(
            {"orders": {"unrendered_config": {"schema": "marts"}}},
            {ORDERS: ("config: relation_name",)},
            id="its schema",
        ),
        pytest.param(
            {"raw": {"unrendered_schema": "landing"}},
            {RAW: ("config: relation_name",), STG: ("source: raw.orders",)},
            id="the schema of its source",
        ),
        pytest.param(
            {"raw": {"identifier": "all_orders"}},
            {RAW: ("config: relation_name",), STG: ("source: raw.orders",)},
            id="the table of its source",
        ),
    ],
)
def test_what_changes_the_rows_is_a_modification(changes, expected):
    assert compared(shop("dev", **changes)).changed == expected


def test_a_config_that_follows_the_target_is_no_modification():
    template = {"unrendered_config": {"materialized": "{{ 'view' if target.name == 'dev' else 'table' }}"}}
    dev, prod = ({"config": {"materialized": kind}, **template} for kind in ("view", "table"))
    assert compared(shop("dev", orders=dev), shop("prod", orders=prod)).changed == {}
    other = {**dev, "unrendered_config": {"materialized": "{{ 'view' if target.name == 'ci' else 'table' }}"}}
    found = compared(shop("dev", orders=other), shop("prod", orders=prod))
    assert found.changed == {ORDERS: ("config: materialized",)}


def test_hooks_with_templates_are_compared_by_their_text():
    def hooked(text):
        hook = [{"sql": text, "transaction": True}]
        config = {"materialized": "table", "pre-hook": hook}
        return shop("dev", orders={"config": config, "unrendered_config": {"pre-hook": text}})

    assert compared(hooked("select {{ 1 }}"), hooked("select {{ 1 }}")).changed == {}
    assert compared(hooked("select {{ 2 }}"), hooked("select {{ 1 }}")).changed == {ORDERS: ("config: pre-hook",)}


def test_a_variable_is_compared_by_its_value():
    world = shop(stg={"raw_code": "select {{ var('rate') }} as rate"})
    assert compare(code(world, rate=2), code(world, rate=1)).changed == {STG: ("var: rate",)}
    assert compare(code(world, rate=1), code(world, rate=1)).changed == {}


def test_a_node_that_the_other_does_not_have_is_new_and_one_that_is_gone_is_nothing():
    more = shop()
    more["nodes"]["model.shop.report"] = {**model("report", "orders"), "unrendered_config": {}}
    assert compared(more).new == {"model.shop.report"}
    assert compared(shop(), more).select("modified") == set()


def test_manifests_of_older_versions_are_compared_by_what_they_have():
    older = shop("prod")
    for entry in older["nodes"].values():
        del entry["unrendered_config"]
    del older["sources"][RAW]["unrendered_database"], older["sources"][RAW]["unrendered_schema"]
    assert compared(older, older).changed == {}


@pytest.mark.parametrize(
    ("criterion", "expected"),
    [
        ("new", {"model.shop.report"}),
        ("old", EVERYTHING),
        ("modified", {STG, ORDERS, COUNTRIES, "model.shop.report"}),
        ("unmodified", {RAW}),
        ("modified.body", {STG, COUNTRIES, "model.shop.report"}),
        ("modified.configs", {ORDERS, "model.shop.report"}),
        ("modified.relation", {"model.shop.report"}),
        ("modified.macros", {STG}),
        ("modified.contract", {"model.shop.report"}),
        ("modified.persisted_descriptions", {"model.shop.report"}),
    ],
)
def test_each_criterion_of_dbt_has_a_meaning(criterion, expected):
    now = shop(
        "dev",
        macros=("1000",),
        stg={"raw_code": "select 1 as id"},
        orders={"config": {"materialized": "view"}},
        countries={"checksum": {"name": "sha256", "checksum": "other"}},
    )
    now["nodes"]["model.shop.report"] = {**model("report", "orders"), "unrendered_config": {}}
    assert compared(now).select(criterion) == expected


def test_other_criteria_are_refused():
    with pytest.raises(InvalidSelectionError, match=r"^Unknown criterion 'state:changed': use one of new, old,"):
        compared(shop()).select("changed")
