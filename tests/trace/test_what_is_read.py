"""What a trace holds, case by case: each model of the project in `conftest.py` reads something in a way of its own."""

from __future__ import annotations

import pytest

from dbt_dagster_sao import stage
from dbt_dagster_sao.digests import (
    ABSENT,
    UNKNOWN,
    config_digest,
    digest,
    env_digest,
    graph_digest,
    meta_digest,
    model_digest,
)
from dbt_dagster_sao.private_points.points import POINTS
from dbt_dagster_sao.trace import Trace, split_read
from tests.trace.conftest import FILES, KEY, invoke, write

EVERY_KIND = stage.KINDS.union(*(point.kinds for point in POINTS))
ENV_1 = env_digest("1", KEY.encode())
SHARED = "model.shop.shared"
READS = {
    "computed": {"var: a_1": digest(5)},
    "wrapped": {"env_var: A_X": ENV_1, "env_var: NOT_SET": ABSENT},
    "configured": {
        "config: meta": digest({"k": 1}),
        "config: absent": ABSENT,
        "config: flavour": digest("mint"),
        "config: persist_docs": digest({}),
    },
    "has": {"has_var: zz": digest(False), "has_var: a_1": digest(True)},
    "templated": {"var: templated": digest("{{ env_var('IN_A_VARIABLE', 'no') }}"), "env_var: IN_A_VARIABLE": ABSENT},
    "place": {"target: name": digest("warehouse")},
    "attributes": {
        "model: tags": digest(["a"]),
        "model: columns": digest({}),
        "model: config.materialized": digest("view"),
        "model: no_such_thing": ABSENT,
    },
    "flagged": {"flags: WHICH": digest("build"), "invocation_args_dict: which": digest("build")},
    "clocked": {"clock": UNKNOWN, "this: *": digest('"warehouse"."main"."clocked"')},
    "through_context": {"target: name": digest("warehouse"), "var: a_1": digest(5)},
    "all_context": {"context: *": UNKNOWN},
    "asked": {"var: in_adapter of macro.dbt.get_columns_in_relation": ABSENT},
    "given": {"var: passed": ABSENT},
    "called": {"var: in_block": ABSENT},
    "sharing": {"shared: graph.limit": ABSENT},
    "plain": {},
    "shop-on-run-start-0": {"var: a_1": digest(5)},
    "shop-on-run-start-1": {"shared: graph.made": ABSENT},
    "shop-on-run-start-2": {},
    "colours": {},
    "hooked": {"target: name": digest("warehouse")},
    "second": {
        "var: in_shared": ABSENT,
        "env_var: IN_SHARED": env_digest("s", KEY.encode()),
        f"config: meta of {SHARED}": digest({"of": "shared"}),
        f"this: * of {SHARED}": digest('"warehouse"."main"."shared"'),
    },
    "mine": {
        "config: flavour": ABSENT,
        "model: unique_id": digest("model.shop.mine"),
        "this: *": digest('"warehouse"."main"."mine"'),
    },
    "broken": {"var: before_it_broke": ABSENT},
    "singular": {"var: limit": ABSENT},
}


@pytest.mark.parametrize("name", READS)
def test_the_trace_holds_what_the_node_read_and_nothing_else(first_build, name):
    assert first_build.traces[name].reads == READS[name]


@pytest.mark.parametrize(
    ("name", "macros"),
    {
        "computed": [],
        "wrapped": ["wrapped"],
        "given": ["apply", "reader"],
        "called": ["around"],
        "second": ["wrapped"],
        "mine": ["materialization_mine_default"],
        "kept": ["duckdb__create_table_as"],
        "asked": ["duckdb__get_columns_in_relation"],
    }.items(),
)
def test_the_trace_names_own_macros_also_those_that_dbt_calls(first_build, name, macros):
    assert list(first_build.traces[name].macros) == [f"macro.shop.{macro}" for macro in macros]


def test_a_whole_object_counts_as_a_whole(first_build):
    assert {"target: *", "target: schema"} == set(first_build.traces["whole_place"].reads)
    assert set(first_build.traces["whole_graph"].reads) == {"graph: *"}


def test_a_model_that_inlines_another_has_its_own_reads_too(first_build):
    own = {"config: meta": digest({"of": "first"})}
    assert first_build.traces["first"].reads == READS["second"] | own


def test_every_node_has_a_line_when_dbt_logs_that_it_ended(first_build):
    assert first_build.missing_when_logged == []
    nodes = {**first_build.manifest["nodes"], **first_build.manifest["unit_tests"]}
    built = {
        node["name"]
        for node in nodes.values()
        if "on-run-end" not in node.get("tags", ()) and node.get("config", {}).get("materialized") != "ephemeral"
    }
    assert set(first_build.traces) == built
    assert all(trace.kinds == EVERY_KIND for trace in first_build.traces.values())


def test_the_second_build_takes_another_path_and_its_trace_shows_it(first_build, second_build):
    first, second = first_build.traces["added"], second_build.traces["added"]
    assert (first.state, first.existed) == (("is_incremental() = false",), False)
    assert "var: later" not in first.reads
    assert (second.state, second.existed) == (("is_incremental() = true",), True)
    assert second.reads["var: later"] == digest(3)


def test_an_own_incremental_strategy_counts_when_it_is_used(first_build, second_build):
    assert "macro.shop.get_incremental_mine_sql" not in first_build.traces["strategy"].macros
    assert "macro.shop.get_incremental_mine_sql" in second_build.traces["strategy"].macros
    assert second_build.traces["strategy"].reads["target: schema"] == digest("main")


def test_state_tells_what_own_code_was_told_of_relations(first_build, second_build):
    assert first_build.traces["asked"].state == ("get_relation(warehouse.main.place) = view",)
    assert first_build.traces["mine"].state == ("get_relation(warehouse.main.mine) = -",)
    assert second_build.traces["mine"].state == ("get_relation(warehouse.main.mine) = table",)
    # How the adapter finds the answer is not the model's code.
    asked = first_build.traces["schema_asked"]
    assert (asked.state, asked.queries) == (("check_schema_exists(warehouse, main) = true",), ())
    # dbt's own materializations look as well: that is not the model's code.
    assert second_build.traces["plain"].state == ()


def test_questions_to_the_warehouse_are_kept_with_a_digest_of_the_answer(first_build, second_build):
    query, _, columns = first_build.traces["asked"].queries
    assert (query.method, query.arguments) == ("sql", ("select 42 as n",))
    assert (columns.method, columns.arguments) == ("get_columns_in_relation", (("warehouse", "main", "place"),))
    assert first_build.traces["asked"].queries == second_build.traces["asked"].queries
    assert len({query.answer, columns.answer}) == 2


def test_a_hook_at_the_start_keeps_what_is_answered_otherwise_after_it(first_build, second_build):
    missing, late = "shop-on-run-start-1", "shop-on-run-start-2"
    assert (first_build.traces[missing].state, second_build.traces[missing].state) == ((), ())
    assert first_build.traces[late].state == ("check_schema_exists(warehouse, late) = false",)
    assert second_build.traces[late].state == ()


def test_statements_that_ask_for_nothing_are_kept_too(first_build):
    statements = first_build.traces["filled"].statements
    assert statements[0].startswith("create")
    assert 'insert into "warehouse"."main"."filled" select 2 -- from raw.extra' in statements
    assert [" ".join(text.split(" --")[0].split()) for text in first_build.traces["mine"].statements] == [
        'create or replace table "warehouse"."main"."mine" as select 1 as x'
    ]


def test_another_answer_has_another_digest(folder, first_build):
    query = first_build.traces["asked"].queries[0]
    write(folder, {"models/asked.sql": FILES["models/asked.sql"].replace("42 as n", "42.5 as n")})
    other = invoke(folder, "run", "--select", "asked").traces["asked"].queries[0]
    write(folder, {"models/asked.sql": FILES["models/asked.sql"]})
    assert other.answer != query.answer


def test_what_is_recorded_can_be_computed_again_from_the_manifest(first_build):
    manifest = first_build.manifest
    again = {"config": config_digest, "meta": meta_digest, "model": model_digest}
    compared = 0
    for trace in first_build.traces.values():
        for name, found in trace.reads.items():
            kind, key, of = split_read(name)
            node = manifest["nodes"].get(of or trace.node)
            if kind in again and node:
                held = node if kind == "model" else node["config"]
                assert again[kind](held, key) == found, name
                compared += 1
    assert compared > 10


def test_what_a_template_puts_into_the_graph_is_there_for_hooks(first_build):
    assert first_build.manifest["nodes"]["operation.shop.shop-on-run-end-0"]["compiled_code"] == "select 3"


def test_the_graph_has_one_digest_whether_or_not_dbt_has_run_hooks(tmp_path, first_build):
    write(tmp_path, FILES)
    parsed = invoke(tmp_path, "parse", A_X="1", IN_SHARED="s").manifest
    found = {graph_digest(parsed), graph_digest(first_build.manifest)}
    assert found == {first_build.traces["whole_graph"].reads["graph: *"]}


def test_every_attribute_and_setting_of_a_node_has_the_same_digest_on_both_sides(folder, first_build):
    node = first_build.manifest["nodes"]["model.shop.attributes"]
    reads = [f"{{{{ model['{key}'] is none }}}}" for key in [*node, "no_such_key"]]
    reads += [f"{{{{ config.get('{key}') is none }}}}" for key in [*node["config"], "pre_hook", "no_such_key"]]
    reads += [f"{{{{ model.config['{key}'] is none }}}}" for key in node["config"]]
    text = (
        """{{ config(tags=['b', 'a'], meta={'x': None, 'since': 1}, pre_hook="select 1") }}
    select 1 as x -- """
        + " ".join(reads)
        + " {{ model | length }} {{ model.config | length }}"
    )
    write(folder, {"models/attributes.sql": text})
    built = invoke(folder, "run", "--select", "attributes")
    write(folder, {"models/attributes.sql": FILES["models/attributes.sql"]})
    node, trace = built.manifest["nodes"]["model.shop.attributes"], built.traces["attributes"]
    differ = {}
    for name, found in trace.reads.items():
        kind, key, _ = split_read(name)
        if found != (config_digest(node["config"], key) if kind == "config" else model_digest(node, key)):
            differ[name] = found
    assert len(trace.reads) > 80
    assert differ == {}


def test_a_value_of_the_environment_can_only_be_compared_with_the_key(first_build):
    assert first_build.traces["wrapped"].reads["env_var: A_X"] == ENV_1
    assert env_digest("1", b"another key") != ENV_1


def test_lines_are_short_and_hold_no_values(first_build):
    assert sum(map(len, first_build.lines)) / len(first_build.lines) < 600
    # SQL is kept as it was run, which dbt keeps in its target folder too.
    assert not any("mint" in line.partition('"statements":')[0] for line in first_build.lines)


def test_a_line_says_what_the_trace_holds(first_build):
    for trace in first_build.traces.values():
        assert Trace.from_json(trace.to_json()) == trace
    assert Trace.from_json('{"layout":0}') is None
    with pytest.raises(ValueError, match="not a trace"):
        Trace.from_json("[]")
