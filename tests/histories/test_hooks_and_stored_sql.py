"""SQL beside a model's own, and SQL that the warehouse keeps, with a real dbt: all that they read counts."""

from __future__ import annotations

import pytest

from tests.histories.lab import TABLE, VIEW, lab
from tests.histories.test_relations import ORDERS, SETUP, SOURCES
from tests.histories.test_views_follow_columns import is_as_rebuilt

pytestmark = pytest.mark.slow

HOOKED = "{{ config(materialized='table', post_hook='insert into {{ this }} select id, 0 from raw.extra') }} "
GRANTING = (
    "{{ config(materialized='table', post_hook=['create index if not exists i on {{ this }} (id)', 'analyze']) }} "
)


def test_a_relation_that_only_a_hook_reads_is_an_input(tmp_path):
    files = {
        **SOURCES,
        "models/a.sql": f"{HOOKED}select * from {ORDERS}",
        "models/below.sql": TABLE + "select * from {{ ref('a') }}",
        "models/granting.sql": f"{GRANTING}select * from {ORDERS}",
    }
    with lab(tmp_path, files, [*SETUP, "create table raw.extra as select 7 as id"]) as case:
        case.settle()
        case.sql("insert into raw.extra values (8)")
        assert case.cycle() == []
        case.advance(minutes=61)
        (run,) = case.cycle()
        assert run.nodes["a"] == ("build", "New changes detected: raw.extra")
        assert "granting" not in run.nodes
        assert case.cycle() == []
        assert is_as_rebuilt(case, "a", "below")


def test_a_relation_that_hooks_may_find_with_rows_is_an_input_and_one_that_they_make_is_not(tmp_path):
    """A table that is made anew by a query of a macro, as elementary does it, holds nothing of others."""
    kept = [
        "create table if not exists raw.kept (id int)",
        "insert into {{ this }} select id, 0 from raw.kept",
        "insert into raw.kept select 9",
    ]
    making = "{% do run_query('create or replace table raw.made as select 5 as id') %}"
    hooked = "{{{{ config(materialized='table', post_hook={}) }}}} select * from {}"
    files = {
        **SOURCES,
        "macros/make.sql": f"{{% macro make() %}}{making}insert into {{{{ this }}}} select id, 0 from raw.made{{% endmacro %}}",
        "models/a.sql": hooked.format(kept, ORDERS),
        "models/b.sql": hooked.format("'{{ make() }}'", ORDERS),
    }
    with lab(tmp_path, files, SETUP) as case:
        case.settle()
        case.sql("insert into raw.kept values (8)")
        told = case.job()
        assert told.nodes["a"][0] == "build"
        assert told.nodes["b"][0] == "reused"
        assert case.sql("select count(*) from main.a where id = 8") == [(1,)]


def test_a_view_follows_a_parent_to_its_new_relation(tmp_path):
    files = {
        **SOURCES,
        "models/a.sql": TABLE + f"select * from {ORDERS}",
        "models/v.sql": VIEW + "select * from {{ ref('a') }}",
        "models/c.sql": TABLE + "select * from {{ ref('v') }}",
    }
    with lab(tmp_path, files, SETUP) as case:
        case.settle()
        case.edit({"models/a.sql": "{{ config(materialized='table', alias='b') }} " + f"select * from {ORDERS}"})
        case.sql("insert into raw.orders values (3, 30)")
        (run,) = case.cycle()
        assert run.nodes["v"] == ("build", "Code changed: relation: a")
        assert case.cycle() == []
        assert is_as_rebuilt(case, "b", "v", "c")


def test_the_rows_of_a_seed_are_new_data_if_its_hooks_make_others_each_time(tmp_path):
    hooks = "seeds: [{{name: fees, config: {{post_hook: 'update {{{{ this }}}} set fee = {}'}}}}]"
    files = {
        "seeds/fees.csv": "id,fee\n1,10\n",
        "seeds/seeds.yml": hooks.format("fee * 2"),
        "models/a.sql": TABLE + "select fee from {{ ref('fees') }}",
    }
    with lab(tmp_path, files, []) as case:
        case.settle()
        case.materialize("fees")
        assert case.cycle() == []
        assert case.sql("from main.a") == [(20,)]
        case.edit({"seeds/seeds.yml": hooks.format("(random() * 1000000000)::int")})
        case.settle()
        case.materialize("fees")
        case.settle()
        assert case.sql("from main.a") == case.sql("select fee from main.fees")


def test_the_rows_of_a_table_are_new_data_if_a_view_that_it_reads_has_others_each_time(tmp_path):
    files = {
        "models/v.sql": VIEW + "select random() as number",
        "models/e.sql": "{{ config(materialized='ephemeral') }} select * from {{ ref('v') }}",
        "models/a.sql": TABLE + "select number from {{ ref('e') }}",
        "models/below.sql": TABLE + "select number from {{ ref('a') }}",
    }
    with lab(tmp_path, files, []) as case:
        case.settle()
        case.materialize("a")
        case.settle()
        assert case.sql("from main.below") == case.sql("from main.a")
        assert case.cycle() == []


@pytest.mark.parametrize("skips", [False, True])
def test_what_is_built_after_a_start_of_the_run_that_failed_is_built_again(tmp_path, skips):
    """dbt builds all nodes when `on-run-start` fails, unless a flag tells it to skip them."""
    rate = "select case when exists(from raw.lock) then error('locked') else 2 end as rate"
    files = {
        "dbt_project.yml": f"""
name: shop
profile: shop
flags: {{send_anonymous_usage_stats: false, skip_nodes_if_on_run_start_fails: {skips}}}
on-run-start: "create or replace table raw.rates as {rate}"
""",
        "models/sources.yml": "sources: [{name: raw, schema: raw, tables: [{name: orders}]}]",
        "models/paid.sql": TABLE + "select id * rate as paid from {{ source('raw', 'orders') }}, raw.rates",
        "models/paid.yml": "models: [{name: paid, columns: [{name: paid, data_tests: [not_null]}]}]",
    }
    setup = [*SETUP, "create table raw.rates as select 1 as rate", "create table raw.lock as select 1 as pid"]
    with lab(tmp_path, files, setup) as case:
        case.settle()
        told = case.told[-1]
        assert (told.success, told.nodes["paid"][0]) == (False, "failed")
        assert "pass" not in case.verdicts.values()
        assert case.decision("paid")[0] == "hold"
        case.sql("delete from raw.lock")
        case.advance(minutes=6)
        case.settle()
        assert case.sql("select distinct paid % 2 from main.paid") == [(0,)]
        assert case.verdicts == {"not_null_paid_paid": "pass"}


def test_what_a_hook_hands_to_models_in_the_graph_is_an_input_that_dbt_does_not_know(tmp_path):
    files = {
        "dbt_project.yml": """
name: shop
profile: shop
flags: {send_anonymous_usage_stats: false}
on-run-start: "{% if execute %}{% do graph.update({'rate': run_query('select rate from raw.rates').rows[0][0]}) %}{% endif %}"
""",
        "models/sources.yml": "sources: [{name: raw, schema: raw, tables: [{name: orders}]}]",
        "models/paid.sql": TABLE + "select id * {{ graph.get('rate', 0) }} as paid from {{ source('raw', 'orders') }}",
        "models/plain.sql": TABLE + "select id, {{ graph.nodes | length }} as n from {{ source('raw', 'orders') }}",
    }
    with lab(tmp_path, files, [*SETUP, "create table raw.rates as select 2 as rate"]) as case:
        case.settle()
        case.sql("update raw.rates set rate = 3")
        told = case.job()
        assert {name: decision for name, (decision, _) in told.nodes.items()} == {"paid": "build", "plain": "reused"}
        assert case.sql("select distinct paid % 3 from main.paid") == [(0,)]


STARTS = """
name: shop
profile: shop
flags: {{send_anonymous_usage_stats: false}}
vars: {}
on-run-start: "{{{{ prepare('rate') }}}}"
"""
PREPARES = "{% macro prepare(of) %}create or replace macro main.rate() as {{ var(of ~ '_now', 1) }}{% endmacro %}"
"""A macro that reads a variable under a name that is put together."""
PAID = TABLE + "select id * main.rate() as paid from {{ source('raw', 'orders') }}"


def with_variables(values):
    return {"dbt_project.yml": STARTS.format(values)}


def test_a_variable_that_the_start_of_runs_was_not_seen_to_read_does_not_count(tmp_path):
    files = {**SOURCES, **with_variables("{rate_now: 2}"), "macros/prepare.sql": PREPARES, "models/paid.sql": PAID}
    with lab(tmp_path, files, SETUP) as case:
        case.settle()
        case.edit(with_variables("{rate_now: 2, rate_then: 3}"))
        assert case.cycle() == []
        case.edit(with_variables("{rate_now: 3, rate_then: 3}"))
        (run,) = case.cycle()
        assert run.nodes["paid"] == ("build", "Code changed: a variable that on-run-start reads")
        assert case.sql("select distinct paid % 3 from main.paid") == [(0,)]
        assert case.cycle() == []


@pytest.mark.parametrize("creates", [True, False])
def test_the_next_run_takes_another_path_through_its_start_if_that_made_what_it_asked_for(tmp_path, creates):
    prepares = (
        "{% macro prepare(of) %}{% if execute %}{% if adapter.check_schema_exists(target.database, 'late') %}"
        "create or replace macro main.rate() as {{ var(of ~ '_now', 1) }}"
        "{% else %}"
        + "{% do adapter.create_schema(api.Relation.create(target.database, 'late')) %}" * creates
        + "create or replace macro main.rate() as 5{% endif %}{% endif %}{% endmacro %}"
    )
    files = {**SOURCES, **with_variables("{rate_now: 2}"), "macros/prepare.sql": prepares, "models/paid.sql": PAID}
    with lab(tmp_path, files, SETUP) as case:
        case.settle()
        assert case.sql("select distinct paid % 5 from main.paid") == [(0,)]
        case.edit(with_variables("{rate_now: 3}"))
        runs = case.cycle()
        assert [run.nodes["paid"][0] for run in runs] == ["build"] * creates
        assert is_as_rebuilt(case, "paid")
