"""A dbt project in which each model reads something in a way of its own, built twice by real dbt."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from dbt_dagster_sao import TRACE_FILE, TRACE_KEY
from dbt_dagster_sao.database_file import file_event
from dbt_dagster_sao.trace import Trace
from tests.histories.inprocess_dbt import run_dbt

KEY = "a key"
FILES = {
    "dbt_project.yml": """
name: shop
version: 1.0.0
profile: shop
flags: {send_anonymous_usage_stats: false}
vars: {a_1: 5, switch: true, later: 3, templated: "{{ env_var('IN_A_VARIABLE', 'no') }}"}
on-run-start:
  - "select {{ reader('a_' ~ 1) }}"
  - "{% do adapter.check_schema_exists('warehouse', 'not_there') %}{% set made = graph.setdefault('made', 1) %}select 2"
  - "{% do adapter.check_schema_exists('warehouse', 'late') %}create schema if not exists late"
on-run-end: "select {{ graph.get('limit', 0) }}"
models:
  shop:
    hooked: {+post-hook: "{% if target.name == 'other' %}select {{ var('in_hook', 1) }}{% endif %}"}
    filling: {+materialized: table, +post-hook: "insert into {{ this }} select 2 -- from raw.extra"}
""",
    "profiles.yml": """
shop:
  target: warehouse
  outputs: {warehouse: {type: duckdb, path: "FOLDER/warehouse.duckdb", threads: 4}}
""",
    "macros/macros.sql": """
{% macro wrapped(name) %}{{ env_var(name, 'none') }}{% endmacro %}
{% macro name_of(place) %}{{ place.name }}{% endmacro %}
{% macro reader(name) %}{{ var(name, 1) }}{% endmacro %}
{% macro apply(function, argument) %}{{ function(argument) }}{% endmacro %}
{% macro around() %}{{ caller() }}{% endmacro %}
{% macro duckdb__create_table_as(temporary, relation, compiled_code, language='sql') -%}
  {% set others_of_newer_adapters = kwargs %}
  create {% if temporary %}temporary{% endif %} table
  {{ relation.include(database=(not temporary), schema=(not temporary)) }} as ({{ compiled_code }})
  -- {{ var('in_override', 0) }}
{%- endmacro %}
{% macro duckdb__get_columns_in_relation(relation) -%}
  {% set of_package = var('in_adapter', 0) %}
  {% call statement('columns', fetch_result=True) %}
    select column_name, data_type, null, null, null from information_schema.columns
    where table_name = '{{ relation.identifier }}'
  {% endcall %}
  {{ return(sql_convert_columns_in_relation(load_result('columns').table)) }}
{%- endmacro %}
{% macro get_incremental_mine_sql(arguments) %}
  insert into {{ arguments['target_relation'] }} select * from {{ arguments['temp_relation'] }} -- {{ target.schema }}
{% endmacro %}
{% materialization mine, default %}
  {% set seen = load_cached_relation(this) %}
  {% call statement('main') %}create or replace table {{ this }} as {{ sql }} -- {{ config.get('flavour', 'x') }}
  {% endcall %}
  {{ adapter.commit() }}
  {{ return({'relations': [this.incorporate(type='table')]}) }}
{% endmaterialization %}
""",
    "models/computed.sql": "{% set v = var %}{% set n = 1 %}select {{ v('a_' ~ n) }} as x",
    "models/wrapped.sql": "select '{{ wrapped('A_X') }}' as x, '{{ wrapped('NOT_SET') }}' as y",
    "models/configured.sql": """{{ config(meta={'k': 1}, flavour='mint') }}
select '{{ config.get('meta')['k'] }}' as a, '{{ config.get('absent', 'x') }}' as b, '{{ config.get('flavour') }}' as c
, '{{ config.persist_column_docs() }}' as d""",
    "models/has.sql": "select {{ var.has_var('zz') | int }} as x, {{ var.has_var('a_1') | int }} as y",
    "models/templated.sql": "select '{{ var('templated') }}' as x",
    "models/place.sql": "select '{{ name_of(target) }}' as x",
    "models/whole_place.sql": "select '{{ target | length }}' as x, '{{ env.schema }}' as y",
    "models/attributes.sql": """{{ config(tags=['a']) }}
select '{{ model.tags | join }} {{ model.config.materialized }} {{ model['columns'] | length }}' as x
, '{{ model.compiled_code }} {{ model.no_such_thing }}' as y""",
    "models/sharing.sql": "{% do graph.update({'limit': 3}) %}select {{ graph.limit }} as x",
    "models/whole_graph.sql": "select {{ graph.nodes | length }} as x",
    "models/flagged.sql": "select '{{ flags.WHICH }}' as x, '{{ invocation_args_dict.which }}' as y",
    "models/clocked.sql": "select '{{ run_started_at }}' as x, '{{ this }}' as y",
    "models/through_context.sql": "select '{{ context['target'].name }} {{ builtins.var('a_1') }}' as x",
    "models/all_context.sql": "select {{ context | length }} as x, {{ context.keys() | list | length }} as y",
    "models/asked.sql": """-- depends_on: {{ ref('place') }}
{% if execute %}select {{ run_query('select 42 as n').columns[0].values()[0] }} as x
, {{ adapter.get_columns_in_relation(ref('place')) | length }} as y
, '{{ load_relation(ref('place')).type }}' as z{% endif %}""",
    "models/schema_asked.sql": "select '{{ adapter.check_schema_exists('warehouse', 'main') }}' as x",
    "models/added.sql": """{{ config(materialized='incremental') }}
select 1 as x {% if is_incremental() %} where {{ var('la' ~ 'ter') }} = 3 {% endif %}""",
    "models/strategy.sql": "{{ config(materialized='incremental', incremental_strategy='mine') }} select 1 as x",
    "models/mine.sql": "{{ config(materialized='mine') }} select 1 as x",
    "models/given.sql": "select {{ apply(reader, 'passed') }} as x",
    "models/called.sql": "select {% call around() %}{{ var('in_block', 1) }}{% endcall %} as x",
    "models/plain.sql": "select 1 as x",
    "models/hooked/hooked.sql": "select 1 as x",
    "models/filling/filled.sql": "select 1 as x",
    "models/shared.sql": """{{ config(materialized='ephemeral', meta={'of': 'shared'}) }}
select {{ var('in_shared', 7) }} as x, '{{ config.get('meta')['of'] }}' as y, '{{ this.identifier }}' as z
from {{ ref('inner_shared') }}""",
    "models/inner_shared.sql": "{{ config(materialized='ephemeral') }} select '{{ wrapped('IN_SHARED') }}' as x",
    "models/first.sql": "{{ config(meta={'of': 'first'}) }} select *, '{{ config.get('meta')['of'] }}' as m from {{ ref('shared') }}",
    "models/second.sql": "select * from {{ ref('shared') }}",
    "models/broken.sql": "select {{ var('before_it_broke', 1) }} as x, no_such_column as y",
    "models/properties.yml": """
models:
  - {name: plain, columns: [{name: x, data_tests: [{accepted_values: {arguments: {values: ["{{ var('allowed', 1) }}"]}}}]}]}
unit_tests:
  - name: unit
    model: computed
    given: []
    overrides: {vars: {a_1: 9}}
    expect: {rows: [{x: 9}]}
""",
    "tests/singular.sql": "select * from {{ ref('plain') }} where x > {{ var('limit', 5) }}",
    "snapshots/kept.yml": """
snapshots:
  - {name: kept, relation: ref('plain'), config: {strategy: check, unique_key: x, check_cols: all}}
""",
    "seeds/colours.csv": "id,name\n1,red\n",
}


@dataclass(frozen=True)
class Invocation:
    """What one invocation of dbt left."""

    traces: Mapping[str, Trace]
    """By name of the node or test."""
    manifest: Mapping[str, Any]
    missing_when_logged: list[str]
    """The nodes whose trace was not there when dbt logged that they had ended."""
    lines: list[str]


def write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("FOLDER", str(folder)), encoding="utf-8")


def node_lines(file: Path) -> list[str]:
    """Return the lines of a file of traces that are about a node."""
    return [line for line in file.read_text().splitlines() if file_event(line) is None]


def invoke(folder: Path, *arguments: str, **environment: str) -> Invocation:
    target = folder / "target"
    file = target / "traces.jsonl"
    file.unlink(missing_ok=True)
    missing = []

    def look(event: Any) -> None:
        if event.info.name in {"LogModelResult", "LogTestResult", "LogSeedResult", "LogSnapshotResult"}:
            node = event.data.node_info.unique_id
            if f'"node":"{node}"' not in file.read_text():
                missing.append(node)

    with patch.dict(os.environ, {TRACE_FILE: file.name, TRACE_KEY: KEY, **environment}):
        run_dbt(arguments, folder, target, look)
    lines = node_lines(file)
    traces = [Trace.from_json(line) for line in lines]
    manifest = json.loads((target / "manifest.json").read_text())
    names = {**manifest["nodes"], **manifest["unit_tests"]}
    return Invocation({names[trace.node]["name"]: trace for trace in traces if trace}, manifest, missing, lines)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project").resolve()
    write(folder, FILES)
    return folder


@pytest.fixture(scope="session")
def first_build(folder):
    return invoke(folder, "build", A_X="1", IN_SHARED="s")


@pytest.fixture(scope="session")
def second_build(folder, first_build):
    return invoke(folder, "build", A_X="1", IN_SHARED="s")
