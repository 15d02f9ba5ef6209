"""`on_error: continue` of dbt 1.12: the children of a failed model are built, as in dbt's own run, and built again when necessary."""

from __future__ import annotations

import pytest

from tests.histories.lab import TABLE, lab
from tests.support.dbt_version import DBT_VERSION

pytestmark = pytest.mark.skipif(DBT_VERSION < (1, 12), reason="dbt has `on_error` from 1.12 on")

CONTINUES = "{{ config(materialized='table', on_error='continue') }} "
FILES = {
    "models/sources.yml": "sources: [{name: raw, schema: raw, tables: [{name: orders}]}]",
    "models/stg.sql": CONTINUES + "select id, amount::int as amount from {{ source('raw', 'orders') }}",
    "models/total.sql": TABLE + "select sum(amount) as total from {{ ref('stg') }}",
    "models/report.sql": TABLE + "select * from {{ ref('total') }}",
}
SETUP = ["create schema raw", "create table raw.orders as select 1 as id, '10' as amount"]
GOES_ON = ("build", "New changes detected: stg")


def test_what_reads_a_model_that_failed_is_built_with_it_and_not_again_until_that_is_tried_again(tmp_path):
    with lab(tmp_path, FILES, SETUP) as case:
        case.settle()
        case.sql("insert into raw.orders values (2, 'ten')")
        (run,) = case.cycle()
        assert not run.success
        assert run.nodes["total"] == GOES_ON
        assert case.sql("select total from main.total") == [(10,)]
        assert case.cycle() == []
        assert case.decision("stg")[0] == "hold"
        assert case.decision("total") == ("reuse", "No new changes on any upstreams")
        case.advance(minutes=6)
        (run,) = case.cycle()
        assert (run.success, run.nodes["total"]) == (False, GOES_ON)
        case.sql("update raw.orders set amount = '5' where id = 2")
        (run,) = case.cycle()
        assert (run.success, run.nodes["total"]) == (True, GOES_ON)
        assert case.sql("select total from main.report") == [(15,)]


def test_data_that_returns_to_what_was_built_before_the_failure_is_built_again_below(tmp_path):
    with lab(tmp_path, FILES, SETUP) as case:
        case.settle()
        case.sql("insert into raw.orders values (2, 'ten')")
        case.cycle()
        case.sql("delete from raw.orders where id = 2")
        (run,) = case.cycle()
        assert (run.success, run.nodes["total"][0]) == (True, "build")
        case.settle()
        assert case.decision("total")[0] == "reuse"


def test_with_skip_children_what_reads_it_waits(tmp_path):
    files = {**FILES, "models/stg.sql": FILES["models/stg.sql"].replace("'continue'", "'skip_children'")}
    with lab(tmp_path, files, SETUP) as case:
        case.settle()
        case.sql("insert into raw.orders values (2, 'ten')")
        (run,) = case.cycle()
        assert run.nodes["total"] == ("skip", "Upstream failed: stg")
