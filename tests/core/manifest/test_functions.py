"""User-defined functions: their code is code of whatever calls them, directly or not."""

from __future__ import annotations

import copy

import pytest

from dagster_sao.core.code.context_values import Surroundings
from dagster_sao.core.code.fingerprinter import Fingerprinter
from dagster_sao.core.code.variables import Variables
from dagster_sao.core.errors import InvalidProjectError
from dagster_sao.core.manifest.graph import NodeKind
from dagster_sao.core.manifest.read_graph import build_graph
from dagster_sao.core.manifest_diff import compare, without_environment
from tests.core.manifests import data_test, function, macro, manifest, model, source, with_functions

OUTER, INNER = "function.shop.outer", "function.shop.inner"
EPHEMERAL = {"materialized": "ephemeral"}


def world():
    """A function that calls another one, and all that can call it."""
    return manifest(
        [
            model("direct", OUTER),
            model("inlined", OUTER, config=EPHEMERAL),
            model("through_ephemeral", "inlined"),
            model("view", OUTER, config={"materialized": "view"}),
            model("other"),
            data_test("calls_it", "other", OUTER),
            data_test("other_test", "other"),
        ],
        [source("raw", "rates")],
        adapter="postgres",
        macros={
            entry["unique_id"]: entry
            for entry in (
                macro("rate", "{% macro rate() %}{{ var('rate') }}{{ env_var('RATE') }}{% endmacro %}"),
                macro("default__scalar_function_sql", "{% macro default__scalar_function_sql(t) %}1{% endmacro %}"),
                macro("unrelated", "{% macro unrelated() %}1{% endmacro %}"),
                {
                    **macro("scalar_function_sql", "{% macro scalar_function_sql(t) %}{% endmacro %}", package="dbt"),
                    "original_file_path": "macros/materializations/functions/scalar.sql",
                },
                {
                    **macro("statement", "{% macro statement() %}{% endmacro %}", package="dbt"),
                    "original_file_path": "macros/etc/statement.sql",
                },
            )
        },
        **with_functions(
            function("outer", "inner", raw_code="select {{ function('inner') }}(x)"),
            function(
                "inner",
                "helper",
                "source.shop.raw.rates",
                raw_code="select x * {{ rate() }}",
                macros=["macro.shop.rate"],
            ),
            function("helper", raw_code="select {{ var('scale') }}", returns={"data_type": "integer"}),
        ),
    )


CALLERS = {"direct", "through_ephemeral", "view", "calls_it"}
# What is edited -> the function that the message names beside those that call it.
EDITS = {
    "the body": ("inner", ("functions", INNER, "raw_code"), "select x + {{ rate() }}"),
    "the body of a nested one": ("helper", ("functions", "function.shop.helper", "raw_code"), "select 2"),
    "its volatility": ("inner", ("functions", INNER, "config", "volatility"), "deterministic"),
    "its type": ("inner", ("functions", INNER, "config", "type"), "aggregate"),
    "its runtime": ("inner", ("functions", INNER, "config", "runtime_version"), "3.12"),
    "its entry point": ("inner", ("functions", INNER, "config", "entry_point"), "main"),
    "a setting of an adapter": ("inner", ("functions", INNER, "config", "secure"), True),
    "its hook": ("inner", ("functions", INNER, "config", "post-hook"), [{"sql": "select 1"}]),
    "the type that it returns": ("inner", ("functions", INNER, "returns", "data_type"), "bigint"),
    "the name of an argument": ("inner", ("functions", INNER, "arguments", 0, "name"), "y"),
    "the type of an argument": ("inner", ("functions", INNER, "arguments", 0, "data_type"), "bigint"),
    "the default of an argument": ("inner", ("functions", INNER, "arguments", 0, "default_value"), 1),
    "its language": ("inner", ("functions", INNER, "language"), "python"),
    "where it is created": ("inner", ("functions", INNER, "schema"), "elsewhere"),
    "its name in the warehouse": ("inner", ("functions", INNER, "alias"), "renamed"),
    "what a later dbt knows of it": ("inner", ("functions", INNER, "overloads"), [{"arguments": []}]),
    "a macro": ("inner", ("macros", "macro.shop.rate", "macro_sql"), "{% macro rate() %}2{% endmacro %}"),
    "the relation of a source": ("inner", ("sources", "source.shop.raw.rates", "relation_name"), "moved"),
}
WITHOUT_EFFECT = {
    "its description": (("functions", INNER, "description"), "What it does."),
    "the description of an argument": (("functions", INNER, "arguments", 0, "description"), "What it takes."),
    "its tags": (("functions", INNER, "config", "tags"), ["late"]),
    "a comment": (("functions", INNER, "raw_code"), "select x * {{ rate() }} -- why"),
    "when it was parsed": (("functions", INNER, "created_at"), 2.0),
    "what dbt compiled": (("functions", INNER, "compiled_code"), "select x * 1"),
    "a macro that nothing calls": (("macros", "macro.shop.unrelated", "macro_sql"), "{% macro unrelated() %}2{% endmacro %}"),
    # Once it has created a function, dbt lists its own macros with those that the body calls.
    "macros that dbt lists after a build": (
        ("functions", INNER, "depends_on", "macros"), ["macro.shop.rate", "macro.dbt.scalar_function_sql"],
    ),
}  # fmt: skip


def edited(before, path, value):
    after = copy.deepcopy(before)
    inner = after
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return after


def codes(manifest_, **values):
    found = Fingerprinter(manifest_, Surroundings(**values)).fingerprints()
    return {uid.split(".")[2]: code for uid, code in found.items() if not uid.startswith("function.")}


def changes(before, after):
    return {name: after[name].changes_since(before[name]) for name in before if after[name].changes_since(before[name])}


@pytest.mark.parametrize("what", EDITS)
def test_an_edit_of_a_function_is_an_edit_of_all_that_calls_it(what):
    name, path, value = EDITS[what]
    found = changes(codes(world()), codes(edited(world(), path, value)))
    assert found.keys() == CALLERS
    for parts in found.values():
        assert (
            {f"function: {name}", "function: outer"}
            <= set(parts)
            <= {f"function: {n}" for n in ("helper", "inner", "outer")} | {"source: raw.rates"}
        )


@pytest.mark.parametrize("what", WITHOUT_EFFECT)
def test_nothing_else_of_a_function_counts(what):
    assert changes(codes(world()), codes(edited(world(), *WITHOUT_EFFECT[what]))) == {}


def test_an_edit_of_a_function_counts_also_where_the_compiled_sql_of_its_caller_is_the_same():
    before = edited(world(), ("nodes", "model.shop.direct", "compiled_code"), 'select "db"."main"."outer"(1)')
    after = edited(before, ("functions", OUTER, "raw_code"), "select 1")
    assert changes(codes(before), codes(after))["direct"] == ("function: outer",)


@pytest.mark.parametrize(
    "values",
    [
        {"variables": Variables(project={"rate": 1})},
        {"variables": Variables(project={"scale": 1})},
        {"environ": {"RATE": "1"}},
    ],
    ids=str,
)
def test_a_value_that_a_function_or_its_macro_reads_counts(values):
    assert changes(codes(world()), codes(world(), **values)).keys() == CALLERS


def test_a_macro_of_the_project_that_dbt_creates_functions_with_counts():
    path = ("macros", "macro.shop.default__scalar_function_sql", "macro_sql")
    after = edited(world(), path, "{% macro default__scalar_function_sql(t) %}2{% endmacro %}")
    assert changes(codes(world()), codes(after)).keys() == CALLERS


def test_a_function_that_inlines_an_ephemeral_model_has_its_code():
    def inlining(code):
        nodes = [
            model("inlined", INNER, config=EPHEMERAL, raw_code=code),
            model("m", OUTER, compiled_code="select f()"),
        ]
        functions = with_functions(function("outer", "model.shop.inlined"), function("inner"))
        return manifest(nodes, **functions)

    graph = build_graph(inlining("select 1"))
    assert graph.nodes["model.shop.m"].functions == (INNER, OUTER)
    assert changes(codes(inlining("select 1")), codes(inlining("select 2"))) == {"m": ("function: outer",)}


# The graph


def test_what_a_function_reads_its_callers_read_and_functions_come_in_the_order_of_creation():
    graph = build_graph(world())
    assert [function_.name for function_ in graph.functions.values()] == ["helper", "inner", "outer"]
    order = ("function.shop.helper", INNER, OUTER)
    for name in ("direct", "through_ephemeral", "view"):
        node = graph.nodes[f"model.shop.{name}"]
        assert (node.parents, node.functions) == (("source.shop.raw.rates",), order)
    test = graph.tests["test.shop.calls_it.1"]
    assert (set(test.reads), test.functions) == ({"model.shop.other", "source.shop.raw.rates"}, order)
    assert graph.nodes["model.shop.other"].functions == graph.tests["test.shop.other_test.1"].functions == ()


def test_a_unit_test_calls_what_its_model_calls():
    unit_test = {
        "unique_id": "unit_test.shop.m.u", "name": "u", "fqn": ["shop", "m", "u"], "resource_type": "unit_test",
        "package_name": "shop", "depends_on": {"nodes": ["model.shop.m"], "macros": []},
    }  # fmt: skip
    graph = build_graph(
        manifest([model("m", INNER)], unit_tests={"unit_test.shop.m.u": unit_test}, **with_functions(function("inner")))
    )
    assert graph.tests["unit_test.shop.m.u"].functions == (INNER,)


def test_a_function_that_is_not_there_is_named_with_its_caller():
    with pytest.raises(InvalidProjectError) as error:
        build_graph(manifest([model("m", "function.shop.gone")]))
    assert str(error.value) == (
        "m (models/m.sql) depends on function.shop.gone, which the manifest does not contain."
        " Parse the project again, or correct the function()."
    )


def test_functions_in_a_circle_are_named():
    with pytest.raises(InvalidProjectError, match=r"call each other in a circle: .*inner.*outer.* Remove one"):
        build_graph(manifest([], **with_functions(function("outer", "inner"), function("inner", "outer"))))


# Volatility


@pytest.mark.parametrize(
    ("changed", "is_volatile"),
    [
        ({}, False),
        ({"raw_code": "select random()"}, True),
        ({"raw_code": "select random()", "config": {"volatility": "deterministic"}}, True),
        ({"config": {"volatility": "non-deterministic"}}, True),
        ({"config": {"volatility": "stable"}}, False),
        ({"language": "python"}, True),
        ({"language": "python", "config": {"volatility": "stable"}}, True),
        ({"language": "python", "config": {"volatility": "deterministic"}}, False),
        ({"language": "javascript"}, True),
        ({"macros": ["macro.shop.clock"]}, True),
    ],
    ids=str,
)
def test_what_is_not_known_to_be_deterministic_makes_its_callers_volatile(changed, is_volatile):
    nodes = [model("m", OUTER), model("plain"), data_test("t", "plain", OUTER)]
    functions = with_functions(function("outer", "inner"), function("inner", **changed))
    clock = macro("clock", "{% macro clock() %}now(){% endmacro %}")
    graph = Fingerprinter(manifest(nodes, macros={clock["unique_id"]: clock}, **functions)).graph
    kinds = {node.name: node.kind is NodeKind.HISTORY_DEPENDENT for node in graph.nodes.values()}
    assert kinds == {"m": is_volatile, "plain": False}
    assert graph.tests["test.shop.t.1"].is_volatile is is_volatile


# Two environments


def test_a_function_in_the_schema_of_another_environment_is_the_same():
    def environment(schema):
        entries = with_functions(function("inner", schema=schema, database=schema))
        return Fingerprinter(without_environment(manifest([model("m", INNER)], **entries)))

    assert compare(environment("prod"), environment("dev")).unchanged == {"model.shop.m"}


@pytest.mark.parametrize(
    ("packages", "expected"), [(["other", "lib", "shop"], "shop"), (["other", "lib"], "lib"), (["other"], "other")]
)
def test_the_sources_of_a_body_are_found_by_name_as_dbt_lists_them(packages, expected):
    """dbt resolves the sources of nodes alone; those of a function are in its entry by their names."""
    sources = [
        {**source("raw", "rates"), "unique_id": f"source.{package}.raw.rates", "package_name": package}
        for package in packages
    ]
    entry = function("f", sources=[["raw", "rates"], ["raw", "gone"]], package_name="lib")
    graph = build_graph(manifest([model("m", "function.shop.f")], sources, **with_functions(entry)))
    assert graph.functions["function.shop.f"].parents == (f"source.{expected}.raw.rates",)
    assert graph.nodes["model.shop.m"].parents == (f"source.{expected}.raw.rates",)
