"""What a run asks of dbt, and what dbt then does, case by case: exactly what was planned, or a run that fails and says why."""

from __future__ import annotations

import pytest

from tests.histories.lab import TABLE, lab

SOURCES = "sources: [{name: raw, schema: raw, tables: [{name: orders}, {name: days}]}]"
SETUP = [
    "create schema raw",
    "create table raw.orders as select * from (values (1, 10), (2, 20)) t(id, amount)",
    "create table raw.days as select 1 as day",
]
ORDERS = TABLE + "select * from {{ source('raw', 'orders') }}"
NEW_ROW = "insert into raw.orders values (3, 30)"
FILES = {"models/sources.yml": SOURCES, "models/other.sql": TABLE + "select 1 as id"}


@pytest.fixture
def folder(tmp_path):
    return tmp_path


def built(run):
    return {name for name, (what, _) in run.nodes.items() if what == "build"}


# What is passed selects what was planned


def test_a_model_in_a_folder_with_a_blank_is_built_for_its_new_data(folder):
    with lab(folder, {**FILES, "models/my folder/t.sql": ORDERS}, SETUP) as case:
        case.settle()
        case.sql(NEW_ROW)
        (run,) = case.cycle()
        assert (run.success, built(run)) == (True, {"t"})
        assert case.cycle() == []


DAILY = "{{ config(materialized='table', freshness={'build_after': {'count': 1, 'period': 'day'}}) }} "


def test_a_model_whose_name_begins_with_that_of_another_is_not_built_with_it(folder):
    files = {
        **FILES,
        "models/sales.sql": ORDERS,
        "models/sales.daily.sql": DAILY + "select * from {{ source('raw', 'days') }}",
    }
    with lab(folder, files, SETUP) as case:
        case.settle()
        case.sql(NEW_ROW)
        case.sql("insert into raw.days values (2)")
        (run,) = case.cycle()
        assert (run.success, built(run)) == (True, {"sales"})
        assert case.sql('select count(*) from main."sales.daily"') == [(1,)]
        assert case.cycle() == []


SELECTORS = """
selectors:
  - name: production
    default: true
    definition: {union: [{method: fqn, value: "*"}, {exclude: [{method: tag, value: draft}]}]}
"""


def test_a_default_selector_leaves_out_nothing_that_was_planned(folder):
    draft = "{{ config(materialized='table', tags=['draft']) }} select * from {{ source('raw', 'orders') }}"
    with lab(folder, {**FILES, "models/draft.sql": draft}, SETUP) as case:
        case.settle()
        case.edit({"selectors.yml": SELECTORS})
        case.sql(NEW_ROW)
        (run,) = case.cycle()
        assert (run.success, built(run)) == (True, {"draft"})
        assert case.cycle() == []
