"""Whether a relation holds exactly the rows of its model's query, read from entries of manifests that dbt writes."""

from __future__ import annotations

import json

import pytest

from dagster_sao.sql.built_rows import why_rows_may_differ
from tests.conftest import run_dbt

PROFILES = {
    "duckdb": "{type: duckdb, path: ':memory:'}",
    "postgres": "{type: postgres, host: localhost, user: u, password: p, port: 5432, dbname: d, schema: s}",
}
MODELS = {
    "plain.sql": "select 1 as id",
    "a_view.sql": "{{ config(materialized='view', tags=['t'], meta={'owner': 'me'}) }} select 1 as id",
    "indexed.sql": "{{ config(materialized='table', indexes=[{'columns': ['id']}], unlogged=true) }} select 1 as id",
    "granted.sql": "{{ config(materialized='table', grants={'select': ['x']}, persist_docs={'relation': true}) }} select 1 as id",
    "with_empty_hooks.sql": "{{ config(materialized='table', pre_hook=[], post_hook=[]) }} select 1 as id",
    "incremental.sql": "{{ config(materialized='incremental', unique_key='id') }} select 1 as id",
    "hooked.sql": "{{ config(materialized='table', post_hook='delete from {{ this }}') }} select 1 as id",
    "hooked_before.sql": "{{ config(materialized='table', pre_hook='select 1') }} select 1 as id",
    "headed.sql": "{{ config(materialized='table', sql_header='set x = 1;') }} select 1 as id",
    "contracted.sql": "{{ config(materialized='table', contract={'enforced': true}) }} select 1 as id",
    "odd.sql": "{{ config(materialized='table', keep_only='paid') }} select 1 as id",
    "own.sql": "{{ config(materialized='own_kind') }} select 1 as id",
    "inlined.sql": "{{ config(materialized='ephemeral') }} select 1 as id",
    "in_python.py": "def model(dbt, session):\n    return session.sql('select 1 as id')\n",
    "schema.yml": """
models: [{name: contracted, columns: [{name: id, data_type: integer}]}]
""",
}
OTHERS = {
    "macros/own.sql": "{% materialization own_kind, default %}{{ return({'relations': []}) }}{% endmaterialization %}",
    "snapshots/kept.sql": """
{% snapshot kept %}{{ config(unique_key='id', strategy='check', check_cols='all', target_schema='s') }}
select 1 as id{% endsnapshot %}
""",
    "seeds/rates.csv": "id\n1\n",
}
SAME = {"plain", "a_view", "indexed", "granted", "with_empty_hooks"}
WHY = {
    "incremental": "it is an incremental model, which keeps rows of earlier builds",
    "hooked": "its post-hook may change them",
    "hooked_before": "its pre-hook may change them",
    "headed": "its sql_header may change them",
    "contracted": "its contract may convert its values",
    "odd": "its setting `keep_only` may change them",
    "own": "it is an own_kind model",
    "inlined": "it is an ephemeral model",
    "in_python": "it is a Python model",
    "kept": "it is a snapshot, which keeps rows of earlier builds",
    "rates": "it is a seed",
}


@pytest.fixture(scope="module", params=PROFILES)
def entries(request, tmp_path_factory):
    """The entries of the nodes that dbt writes for an adapter, by name."""
    folder = tmp_path_factory.mktemp(request.param)
    project = {"name": "shop", "profile": "shop", "models": {"+materialized": "table"}}
    files = {
        "dbt_project.yml": json.dumps({**project, "flags": {"send_anonymous_usage_stats": False}}),
        "profiles.yml": f"shop: {{target: dev, outputs: {{dev: {PROFILES[request.param]}}}}}",
        **{f"models/{name}": content for name, content in MODELS.items()},
        **OTHERS,
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    manifest = run_dbt(folder, "parse", "--target-path", str(folder / "target"))
    return {entry["name"]: entry for entry in manifest["nodes"].values()}


def test_tables_and_views_hold_the_rows_of_their_query(entries):
    assert {name: why_rows_may_differ(entries[name]) for name in SAME} == dict.fromkeys(SAME, "")


def test_whatever_may_change_the_rows_is_named(entries):
    assert {name: why_rows_may_differ(entries[name]) for name in WHY} == WHY


def test_a_setting_that_dbt_does_not_set_makes_no_difference(entries):
    entry = entries["plain"]
    config = {**entry["config"], "keep_only": None}
    assert why_rows_may_differ({**entry, "config": config}) == ""


def test_an_entry_without_a_config_is_not_understood():
    assert why_rows_may_differ({"resource_type": "model"}) == "it is an unknown model"
