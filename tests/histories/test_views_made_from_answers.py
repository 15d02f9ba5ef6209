"""Views whose SQL is made from what the warehouse answered, with a real dbt: they hold what a full build would make."""

from __future__ import annotations

import pytest

from tests.histories.lab import TABLE, VIEW, lab
from tests.histories.test_relations import ORDERS, SETUP, SOURCES
from tests.histories.test_views_follow_columns import is_as_rebuilt

pytestmark = pytest.mark.slow

PIVOT = f"""{VIEW}
{{% set ids = run_query('select distinct id from ' ~ ref('a') ~ ' order by 1').columns[0].values() if execute else [] %}}
select 0 as zero {{% for id in ids %}}, sum(amount) filter (id = {{{{ id }}}}) as amount_{{{{ id }}}} {{% endfor %}}
from {{{{ ref('a') }}}}
"""
UNION = f"""{VIEW}
{{% set found = run_query("select table_name from information_schema.tables where table_schema = 'parts' order by 1") %}}
{{% for name in (found.columns[0].values() if execute else []) %}}select n from parts.{{{{ name }}}} union all {{% endfor %}}
select id from {{{{ source('raw', 'items') }}}}
"""
STAR = f"""{VIEW}
select {{% for column in adapter.get_columns_in_relation(source('raw', 'orders')) %}}
{{{{ column.name }}}}{{{{ ',' if not loop.last }}}}{{% endfor %}} from {ORDERS}
"""


def test_a_view_made_from_rows_follows_them(tmp_path):
    files = {
        **SOURCES,
        "models/a.sql": TABLE + f"select * from {ORDERS}",
        "models/pivot.sql": PIVOT,
        "models/below.sql": TABLE + "select * from {{ ref('pivot') }}",
    }
    with lab(tmp_path, files, SETUP) as case:
        case.settle()
        case.sql("insert into raw.orders values (3, 30)")
        (run,) = case.cycle()
        assert run.nodes["pivot"] == ("build", "New changes detected: a, which its SQL is made from")
        assert case.cycle() == []
        case.sql("insert into raw.items values (2)")
        assert case.cycle() == []
        assert is_as_rebuilt(case, "pivot", "below")


def test_a_view_made_from_columns_follows_them(tmp_path):
    files = {
        **SOURCES,
        "models/star.sql": STAR,
        "models/t.sql": TABLE + "select * from {{ ref('star') }}",
    }
    with lab(tmp_path, files, SETUP) as case:
        case.settle()
        case.sql("insert into raw.orders values (3, 30)")
        (run,) = case.cycle()
        assert set(run.nodes) == {"t"}
        assert case.decision("star") == ("reuse", "View reads current data")
        case.sql("alter table raw.orders add column note varchar default 'x'")
        (run,) = case.cycle()
        assert run.nodes["star"] == ("build", "The columns of raw.orders changed")
        assert case.cycle() == []
        assert is_as_rebuilt(case, "star", "t")


def test_a_view_made_from_the_catalog_follows_it_after_a_while(tmp_path):
    files = {**SOURCES, "models/all.sql": UNION, "models/t.sql": TABLE + "select * from {{ ref('all') }}"}
    with lab(tmp_path, files, [*SETUP, "create schema parts", "create table parts.one as select 1 as n"]) as case:
        case.settle()
        case.sql("create table parts.two as select 2 as n")
        assert case.cycle() == []
        case.advance(minutes=61)
        (run,) = case.cycle()
        assert run.nodes["all"][0] == "build"
        assert case.cycle() == []
        assert is_as_rebuilt(case, "all", "t")


def test_a_view_that_got_other_sql_from_the_same_code_is_another_one(tmp_path):
    below = "select id, max(moment) as moment from {{ ref('VIEW') }} group by id"
    files = {
        **SOURCES,
        "models/timed.sql": VIEW + f"select '{{{{ run_started_at }}}}' as moment, id from {ORDERS}",
        "models/fixed.sql": VIEW + f"select 'then' as moment, id from {ORDERS}",
        "models/below_timed.sql": TABLE + below.replace("VIEW", "timed"),
        "models/below_fixed.sql": TABLE + below.replace("VIEW", "fixed"),
    }
    with lab(tmp_path, files, SETUP) as case:
        case.settle()
        case.advance(minutes=1)
        case.edit({"models/fixed.sql": files["models/fixed.sql"] + " -- edited"})
        case.settle()
        case.materialize("timed", "fixed")
        (run,) = case.cycle()
        assert run.nodes == {"below_timed": ("build", "New changes detected: timed")}
        assert case.cycle() == []
        assert case.sql("select count(*) from timed, below_timed where timed.moment <> below_timed.moment") == [(0,)]
