"""The commands of a run and what dbt then does, case by case: exactly what was planned, or a run that fails with the reason."""

from __future__ import annotations

import re

import pytest
from dbt.artifacts.schemas.results import RunStatus
from dbt.artifacts.schemas.run import RunResult
from dbt.task.run import ModelRunner

from tests.histories.lab import TABLE, VIEW, built, lab

pytestmark = pytest.mark.slow

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


FLAGS = "indirect_selection: cautious, fail_fast: true"
FLAGGED = "{name: shop, version: 1.0.0, profile: shop, flags: {send_anonymous_usage_stats: false, FLAGS}}"
TESTED = "models: [{name: t, columns: [{name: id, data_tests: [{unique: {name: ids}}, {not_null: {name: there}}]}]}]"


def test_flags_of_the_project_and_the_environment_change_nothing(folder, monkeypatch):
    monkeypatch.setenv("DBT_ENGINE_INDIRECT_SELECTION", "eager")
    files = {
        **FILES,
        "dbt_project.yml": FLAGGED.replace("FLAGS", FLAGS),
        "models/t.sql": ORDERS,
        "models/t.yml": TESTED,
        "models/a_broken.sql": TABLE + "select id / 0 as id, error('broken') from {{ source('raw', 'orders') }}",
    }
    with lab(folder, files, SETUP) as case:
        (run,) = case.cycle()
        assert not run.success
        # One that fails does not end dbt's command.
        assert built(run) == {"t", "other"}
        assert run.tests == {"ids": "pass", "there": "pass"}
        # The edited test runs alone, without the other one on its model.
        case.edit({"models/t.yml": TESTED.replace("name: ids}", "name: ids, where: id > 0}")})
        (run,) = case.cycle()
        assert run.tests["ids"], run.tests["there"] == ("pass", "reused")


# What dbt did is what it was asked for


def _reuse(runner, model, manifest):
    """Do what dbt State does with a node that it reuses."""
    del runner, manifest
    return RunResult(
        status=getattr(RunStatus, "Reused", RunStatus.NoOp),
        node=model,
        timing=[],
        thread_id="",
        execution_time=0.0,
        adapter_response={},
        message="reused",
        failures=None,
        batch_results=None,
    )


def test_what_dbt_reuses_is_not_a_build(folder, monkeypatch):
    with lab(folder, {**FILES, "models/t.sql": ORDERS}, SETUP) as case:
        case.settle()
        case.sql(NEW_ROW)
        with monkeypatch.context() as patched:
            patched.setattr(ModelRunner, "execute", _reuse)
            (run,) = case.cycle()
        assert not run.success
        assert run.nodes["t"][0] == "failed"
        assert re.match(r"dbt did nothing about t and reports '(reused|no-op)'", run.failure)
        # What it failed for may pass: it waits as a failed build does, and is built then.
        case.advance(minutes=6)
        (run,) = case.cycle()
        assert (run.success, built(run)) == (True, {"t"})


def test_what_dbt_does_not_find_fails_the_run_and_is_named(folder):
    with lab(folder, {**FILES, "models/t.sql": ORDERS, "models/u.sql": VIEW + "select 1 as id"}, SETUP) as case:
        case.settle()
        case.sql(NEW_ROW)
        # After the parse, and before the run.
        (folder / "models/t.sql").unlink()
        run = case.job("t")
        assert not run.success
        assert "dbt did not find t" in run.failure
        (folder / "models/t.sql").write_text(ORDERS)
        case.advance(minutes=6)
        case.settle()
        assert case.sql("select count(*) from main.t") == [(3,)]


def test_a_model_that_came_into_the_selection_after_the_parse_is_not_taken_for_planned(folder):
    files = {**FILES, "models/t.sql": ORDERS, "models/t_all.sql": DAILY + "select * from {{ source('raw', 'days') }}"}
    with lab(folder, files, SETUP) as case:
        case.settle()
        case.sql(NEW_ROW)
        # dbt now has it where the words of the plan select it.
        (folder / "models/t").mkdir()
        (folder / "models/t_all.sql").rename(folder / "models/t/t_all.sql")
        run = case.job("t")
        assert not run.success
        assert "dbt built t_all, which this run did not select" in run.failure
        assert built(run) == {"t"}


def test_a_plan_knows_the_dbt_command_of_the_definitions(tmp_path):
    # Each job here is compared with the plan before it.
    with lab(tmp_path, {"models/a.sql": TABLE + "select 1 as n"}, [], dbt_args=("run", "--full-refresh")) as case:
        for _ in range(2):
            assert case.job().nodes["a"] == ("build", "Full refresh requested")


def test_a_command_that_builds_models_alone_gives_way_where_a_seed_is_due(tmp_path):
    files = {"models/a.sql": TABLE + "select * from {{ ref('s') }}", "seeds/s.csv": "n\n1\n"}
    with lab(tmp_path, files, [], dbt_args=("run",)) as case:
        (run,) = case.cycle()
        assert (run.success, built(run)) == (True, {"s", "a"})


def test_tests_run_alone_whatever_only_builds_take_among_dbts_arguments(tmp_path):
    tests = "models: [{name: a, columns: [{name: n, data_tests: [TESTS]}]}]"
    files = {"models/a.sql": TABLE + "select 1 as n", "models/p.yml": tests.replace("TESTS", "not_null")}
    with lab(tmp_path, files, [], dbt_args=("--no-print", "build", "--show")) as case:
        (run,) = case.cycle()
        assert run.tests == {"not_null_a_n": "pass"}
        case.edit({"models/p.yml": tests.replace("TESTS", "not_null, unique")})
        (run,) = case.cycle()
        assert (run.success, run.tests["unique_a_n"], built(run)) == (True, "pass", set())
