"""Order and identity count: of keys that a template iterates over, of hooks, and of two things that have one name."""

from __future__ import annotations

import pytest

from dagster_sao.core.code.context_values import Surroundings
from dagster_sao.core.code.fingerprinter import Fingerprinter
from dagster_sao.core.code.variables import Variables
from tests.core.manifests import data_test, macro, manifest, model, seed

ORDERS = ({"a": 1, "b": 2}, {"b": 2, "a": 1})


def parts(world, name="m", **surroundings):
    code = Fingerprinter(world, Surroundings(**surroundings))
    (uid,) = (uid for uid in (*code.graph.nodes, *code.graph.tests) if uid.split(".")[2] == name)
    return code.fingerprints()[uid]


def changed(old, new, name="m"):
    return parts(new, name).changes_since(parts(old, name))


def test_the_order_of_keys_counts_where_a_template_may_iterate_over_them():
    for config, raw, expected in (
        (lambda order: {"spans": order}, "select 1", ("config: spans",)),
        (lambda order: {"meta": order}, "{{ config.get('meta') }}", ("config: meta",)),
    ):
        old, new = (manifest([model("m", raw_code=raw, config=config(order))]) for order in ORDERS)
        assert changed(old, new) == expected
    world = manifest([model("m", raw_code="{{ var('v') }}")])
    old, new = (parts(world, variables=Variables(project={"v": order})) for order in ORDERS)
    assert new.changes_since(old) == ("var: v",)


def test_the_order_of_variables_does_not_count():
    world = manifest([model("m", raw_code="{{ var(name) }}")])
    old, new = (parts(world, variables=Variables(project=order)) for order in ORDERS)
    assert new.changes_since(old) == ()


def test_two_macros_of_one_name_that_trade_their_bodies_count():
    def world(of_shop, of_package):
        macros = [
            macro("rate", f"{{% macro rate() %}}{body}{{% endmacro %}}", package=package)
            for package, body in (("shop", of_shop), ("pack", of_package))
        ]
        return manifest([model("m", raw_code="{{ rate() }}")], macros={entry["unique_id"]: entry for entry in macros})

    assert changed(world(1, 2), world(2, 1)) == ("macro: rate",)
    assert changed(world(1, 1), world(1, 1)) == ()


def test_two_ephemeral_models_of_one_name_that_trade_their_code_count():
    def world(of_shop, of_package):
        inlined = [
            model("e", raw_code=f"select {body}", package_name=package, config={"materialized": "ephemeral"})
            for package, body in (("shop", of_shop), ("pack", of_package))
        ]
        return manifest([*inlined, model("m", "model.shop.e", "model.pack.e", raw_code="select 1")])

    assert changed(world(1, 2), world(2, 1)) == ("ephemeral: e",)


def test_two_parents_of_one_name_that_trade_their_relations_count_for_a_view():
    def world(of_shop, of_package):
        parents = [
            model("p", package_name=package, relation_name=f'"db"."main"."{alias}"')
            for package, alias in (("shop", of_shop), ("pack", of_package))
        ]
        view = model("m", "model.shop.p", "model.pack.p", raw_code="select 1", config={"materialized": "view"})
        return manifest([*parents, view])

    assert changed(world("one", "two"), world("two", "one")) == ("relation: p",)


def test_the_version_that_a_ref_without_one_resolves_to_counts():
    def world(latest):
        versions = [
            model("v", version=number, latest_version=latest, unique_id=f"model.shop.v.v{number}") for number in (1, 2)
        ]
        refs = [{"name": "v", "package": None, "version": version} for version in (None, 1, 2)]
        read = [entry["unique_id"] for entry in versions]
        test = {**data_test("t", *read, raw_code="select 1"), "refs": refs}
        return manifest([*versions, model("m", *read, raw_code="select 1", refs=refs), test])

    assert changed(world(1), world(2)) == ("ref: v",)
    assert changed(world(1), world(2), "t") == ("ref: v",)


@pytest.mark.parametrize("of", [model, seed])
def test_whether_a_hook_runs_in_the_transaction_counts(of):
    def world(transaction):
        hooks = [{"sql": "select 1", "transaction": True}, {"sql": "select 2", "transaction": transaction}]
        return manifest([of("m", config={"materialized": "seed" if of is seed else "table", "post-hook": hooks})])

    assert changed(world(True), world(False)) == ("config: post-hook",)
    assert changed(world(True), world(None)) == ()


def test_the_order_of_what_runs_at_the_start_counts():
    def world(*bodies):
        hooks = [
            {
                **model("start", raw_code=body),
                "unique_id": f"operation.shop.start-{index}",
                "resource_type": "operation",
                "tags": ["on-run-start"],
                "index": index,
            }
            for index, body in enumerate(bodies)
        ]
        return manifest([model("m", raw_code="select 1"), *hooks])

    assert changed(world("a", "b"), world("b", "a")) == ("on-run-start",)
    assert changed(world("a", "b"), world("a", "b", "a")) == ("on-run-start",)


def test_settings_of_dbt_itself_count_for_models_and_tests():
    world = manifest([model("m", raw_code="select 1"), data_test("t", "m")])
    flag = {"enable_truthy_nulls_equals_macro": True, "use_colors": False}
    for name in ("m", "t"):
        before = parts(world, name)
        assert parts(world, name, flags=flag).changes_since(before) == ("dbt flag: enable_truthy_nulls_equals_macro",)
        assert parts(world, name, dispatch=[{"macro_namespace": "dbt"}]).changes_since(before) == ("dispatch",)


def test_the_config_of_an_ephemeral_model_counts_where_it_reads_it():
    def world(rate):
        inlined = model("e", raw_code="{{ config.get('rate') }}", config={"materialized": "ephemeral", "rate": rate})
        return manifest([inlined, model("m", "e", raw_code="select 1")])

    assert changed(world(1), world(2)) == ("config: rate",)


def test_an_empty_setting_counts_where_a_template_reads_it():
    def world(**config):
        return manifest([model("m", raw_code="{{ config.get('suffix', 'x') }}", config=config)])

    assert changed(world(suffix=""), world()) == ("config: suffix",)


def test_comments_count_where_own_code_gets_the_sql():
    create = macro("create_table_as", "{% macro create_table_as() %}{{ sql }}{% endmacro %}")
    built_in = {**create, "unique_id": "macro.dbt.create_table_as", "package_name": "dbt"}

    def world(comment, *macros):
        return manifest([model("m", raw_code=f"select 1 -- {comment}")], macros={e["unique_id"]: e for e in macros})

    assert changed(world("a", built_in), world("b", built_in)) == ()
    assert changed(world("a", built_in, create), world("b", built_in, create)) == ("sql",)


def test_compiled_sql_does_not_show_what_a_query_changes():
    def world(body):
        raw = f"{{% do run_query('create macro f() as {body}') %}}select f()"
        return manifest([model("m", raw_code=raw, compiled_code="select f()")])

    assert changed(world(1), world(2)) == ("sql",)


def test_a_flag_counts_although_the_compiled_sql_is_the_same():
    world = manifest([model("m", raw_code="select 1", compiled_code="select 1")])
    flag = {"require_explicit_package_overrides_for_builtin_materializations": False}
    (changed_part,) = parts(world, flags=flag).changes_since(parts(world))
    assert changed_part == "dbt flag: require_explicit_package_overrides_for_builtin_materializations"
