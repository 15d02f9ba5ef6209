"""Snapshots, with a real dbt: they are built for new data, and not because of what dbt does not write about them."""

from __future__ import annotations

import pytest

from tests.histories.lab import lab

pytestmark = pytest.mark.slow

SOURCES = "sources: [{name: raw, schema: raw, tables: [{name: orders}]}]"
SNAPSHOT = """
snapshots:
  - name: seen
    relation: source('raw', 'orders')
    config: {unique_key: id, strategy: check, check_cols: all}
"""
IN_SQL = """
{% snapshot seen %}
{{ config(target_schema='main', unique_key='id', strategy='check', check_cols='all') }}
select * from {{ source('raw', 'orders') }}
{% endsnapshot %}
"""
SETUP = ["create schema raw", "create table raw.orders as select 1 as id, 10 as amount"]


@pytest.mark.parametrize(
    "files", [{"snapshots/seen.yml": SNAPSHOT}, {"snapshots/seen.sql": IN_SQL}], ids=["in YAML", "in SQL"]
)
def test_a_snapshot_is_built_for_new_data_and_not_for_the_passing_of_time(tmp_path, files):
    with lab(tmp_path, {**files, "models/s.yml": SOURCES}, SETUP) as case:
        case.settle()
        case.advance(minutes=61)
        assert case.cycle() == []
        case.sql("update raw.orders set amount = 20")
        (run,) = case.cycle()
        assert run.nodes["seen"][0] == "build"
        case.advance(minutes=61)
        assert case.cycle() == []
