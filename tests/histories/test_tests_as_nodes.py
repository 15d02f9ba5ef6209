"""Tests as nodes of the plan, case by case: what runs when, what a failure holds, and what Dagster shows of it."""

from __future__ import annotations

import re

import dagster as dg
import pytest
from dagster_dbt import DagsterDbtTranslatorSettings

from dagster_sao import StateAwareDbtTranslator, state_aware
from tests.histories.lab import TABLE, VIEW, lab

pytestmark = pytest.mark.slow

SOURCES = """
sources:
  - name: raw
    schema: raw
    tables: [{name: orders SOURCE_TESTS}, {name: items}]
"""
PLAIN = {"models/sources.yml": SOURCES.replace("SOURCE_TESTS", "")}
SETUP = [
    "create schema raw",
    "create table raw.orders as select * from (values (1, 10), (2, 20)) t(id, amount)",
    "create table raw.items as select 1 as id",
]
ORDERS = "select id, amount from {{ source('raw', 'orders') }}"
COUNT_WITH_ITEMS = (
    TABLE + "select count(*) as n, (select count(*) from {{ source('raw', 'items') }}) as i from {{ ref('m') }}"
)


def properties(model, *tests):
    return f"models: [{{name: {model}, columns: [{{name: id, data_tests: [{', '.join(tests)}]}}]}}]\n"


UNIQUE, NOT_NULL = "unique: {name: ids}", "not_null: {name: there}"
BAD_ROW, MEND = "insert into raw.orders values (2, 20)", "delete from raw.orders where id = 2"


GATED = {
    **PLAIN,
    "models/m.sql": TABLE + ORDERS,
    "models/c.sql": TABLE + "select count(*) as n from {{ ref('m') }}",
    "models/p.yml": properties("m", UNIQUE),
}
GATED_WITH_ITEMS = {**GATED, "models/c.sql": COUNT_WITH_ITEMS}
"""A model with a test, and one below it that reads something else too."""


@pytest.fixture
def folder(tmp_path):
    return tmp_path


def test_new_data_through_a_view_runs_its_test_before_what_is_below(folder):
    files = {
        **PLAIN,
        "models/stg.sql": VIEW + ORDERS,
        "models/fct.sql": TABLE + "select count(*) as n from {{ ref('stg') }}",
        "models/p.yml": properties("stg", UNIQUE),
    }
    with lab(folder, files, SETUP) as case:
        case.settle()
        assert case.verdicts == {"ids": "pass"}
        case.sql(BAD_ROW)
        (run,) = case.cycle()
        assert not run.success
        assert run.tests == {"ids": "fail"}
        assert run.nodes["fct"] == ("hold", "Upstream test failed: ids")
        assert case.sql("select n from main.fct") == [(2,)]
        (shown,) = run.checks["ids"]
        assert (shown.asset_key.path[-1], shown.passed) == ("stg", False)
        assert case.cycle() == []
        assert case.decision("fct") == ("hold", "Upstream test failed: ids")
        # The data is repaired at its source: the test runs, and what it held is built, by itself.
        case.sql(MEND)
        (run,) = case.cycle()
        assert run.success
        assert (run.tests, run.nodes["fct"][0]) == ({"ids": "pass"}, "build")
        assert case.sql("select n from main.fct") == [(1,)]


def test_only_tests_are_due_of_a_view_at_the_end_of_the_graph(folder):
    files = {**PLAIN, "models/stg.sql": VIEW + ORDERS, "models/p.yml": properties("stg", UNIQUE)}
    with lab(folder, files, SETUP) as case:
        case.settle()
        case.sql(BAD_ROW)
        (run,) = case.cycle()
        assert (run.nodes, run.tests, run.success) == ({}, {"ids": "fail"}, False)
        assert case.cycle() == []
        # The test alone is tried again, later and later.
        case.advance(minutes=5)
        (run,) = case.cycle()
        assert (run.nodes, run.tests) == ({}, {"ids": "fail"})
        case.advance(minutes=6)
        assert case.cycle() == []
        case.advance(minutes=5)
        assert len(case.cycle()) == 1
        case.sql(MEND)
        (run,) = case.cycle()
        assert (run.tests, run.checks["ids"][0].passed) == ({"ids": "pass"}, True)


@pytest.mark.parametrize("hidden", ["source tests", "all checks"])
def test_a_test_that_dagster_does_not_show_gates_all_the_same(folder, hidden):
    """By default the tests of sources are no checks; a setting hides the others."""
    source_test = ", columns: [{name: id, data_tests: [unique: {name: ids}]}]"
    files = {
        "models/sources.yml": SOURCES.replace("SOURCE_TESTS", source_test if hidden == "source tests" else ""),
        "models/m.sql": TABLE + ORDERS,
        "models/below.sql": TABLE + "select count(*) as n from {{ ref('m') }}",
        "models/p.yml": properties("m", UNIQUE) if hidden == "all checks" else "models: []",
    }
    settings = DagsterDbtTranslatorSettings(enable_asset_checks=hidden != "all checks")
    with lab(folder, files, SETUP, translator=StateAwareDbtTranslator(settings)) as case:
        case.settle()
        assert case.verdicts == {"ids": "pass"}
        case.sql(BAD_ROW)
        (run,) = case.cycle()
        held = "m" if hidden == "source tests" else "below"
        assert (run.success, run.tests, run.checks) == (False, {"ids": "fail"}, {})
        assert run.nodes[held] == ("hold", "Upstream test failed: ids")
        assert case.cycle() == []
        # Nothing but the test is due, and Dagster has no check to start a run with.
        case.advance(minutes=5)
        (run,) = case.cycle()
        assert run.tests == {"ids": "fail"}
        assert "build" not in {decision for decision, _ in run.nodes.values()}
        case.sql(MEND)
        (run,) = case.cycle()
        assert (run.success, run.tests) == (True, {"ids": "pass"})
        assert case.sql("select n from main.below") == [(1,)]


def test_a_source_that_only_a_test_reads_is_looked_at_and_tested(folder):
    source_test = ", columns: [{name: id, data_tests: [unique: {name: ids}]}]"
    files = {
        "models/sources.yml": SOURCES.replace("SOURCE_TESTS", source_test),
        "models/z.sql": TABLE + "select id from {{ source('raw', 'items') }}",
    }
    with lab(folder, files, SETUP) as case:
        case.settle()
        case.sql(BAD_ROW)
        (run,) = case.cycle()
        assert (run.tests, run.nodes["z"][0]) == ({"ids": "fail"}, "reused")
        assert case.cycle() == []


def test_a_test_of_two_models_holds_what_is_below_both(folder):
    relationship = "relationships: {name: known, arguments: {to: ref('dim'), field: id}}"
    files = {
        **PLAIN,
        "models/dim.sql": TABLE + "select id from {{ source('raw', 'items') }}",
        "models/fct.sql": TABLE + ORDERS + " where id < 2 or id > 7",
        "models/both.sql": TABLE + "select d.id from {{ ref('fct') }} join {{ ref('dim') }} d using (id)",
        "models/labels.sql": TABLE + "select id from {{ ref('dim') }}",
        "models/p.yml": properties("fct", relationship),
    }
    with lab(folder, files, SETUP) as case:
        case.settle()
        case.sql("insert into raw.orders values (9, 9)")
        (run,) = case.cycle()
        assert run.nodes["both"] == ("hold", "Upstream test failed: known")
        assert case.decision("dim") == ("reuse", "No new changes on any upstreams")
        # The dimension and what reads it alone go on; the fact's test runs again, for it reads the dimension.
        case.sql("insert into raw.items values (2)")
        (run,) = case.cycle()
        assert {name for name, (decision, _) in run.nodes.items() if decision == "build"} == {"dim", "labels"}
        (shown,) = run.checks["known"]
        assert shown.asset_key.path[-1] == "fct"
        case.sql("insert into raw.items values (9)")
        (run,) = case.cycle()
        assert run.nodes["both"][0] == "build"


def test_what_failed_outside_of_a_job_holds_what_the_job_selects(folder):
    """Built on the bad rows, `c` would keep them for ever: the repaired `m` has its old version again."""
    with lab(folder, GATED_WITH_ITEMS, SETUP) as case:
        case.settle()
        case.sql(BAD_ROW)
        case.cycle()
        case.sql("insert into raw.items values (2)")
        run = case.job("c")
        assert (run.success, run.nodes) == (False, {"c": ("hold", "Upstream test failed: ids")})
        assert case.sql("select n, i from main.c") == [(2, 1)]
        # Whoever asks for it gets it, as in dbt.
        assert case.materialize("c").success
        assert case.sql("select n, i from main.c") == [(3, 2)]
        case.sql("delete from raw.orders where id = 2; insert into raw.orders values (2, 20)")
        case.settle()
        assert case.sql("select n, i from main.c") == [(2, 2)]


def test_what_failed_outside_of_the_sensors_plan_holds_what_is_in_it(folder):
    class Nightly(StateAwareDbtTranslator):
        def get_automation_condition(self, dbt_resource_props):
            nightly = state_aware() & dg.AutomationCondition.cron_tick_passed("0 3 * * *").since_last_handled()
            return nightly if dbt_resource_props["name"] == "m" else None

    with lab(folder, GATED_WITH_ITEMS, SETUP, translator=Nightly()) as case:
        case.materialize("m")
        case.settle()
        case.sql(BAD_ROW)
        case.look()
        assert case.materialize("m").tests == {"ids": "fail"}
        case.sql("insert into raw.items values (2)")
        assert case.cycle() == []
        assert case.sql("select n, i from main.c") == [(2, 1)]


def test_a_corrected_test_ends_the_wait_at_once(folder):
    with lab(folder, GATED, SETUP) as case:
        case.settle()
        case.sql(BAD_ROW)
        case.cycle()
        case.edit({"models/p.yml": properties("m", NOT_NULL)})
        (run,) = case.cycle()
        assert (run.success, run.tests) == (True, {"there": "pass"})
        assert {name: decision for name, (decision, _) in run.nodes.items()} == {"c": "build"}
        assert case.sql("select n from main.c") == [(3,)]


def test_a_verdict_survives_the_run_that_gave_it(folder):
    with lab(folder, GATED, SETUP) as case:
        case.settle()
        case.sql(BAD_ROW)
        case.cycle()
        case.delete_last_run()
        case.restart()
        assert case.cycle() == []
        assert case.verdicts == {"ids": "fail"}
        assert case.decision("c") == ("hold", "Upstream test failed: ids")
        assert case.sql("select n from main.c") == [(2,)]


def test_a_new_and_an_edited_test_run_on_what_is_reused(folder):
    files = {**PLAIN, "models/m.sql": TABLE + ORDERS, "models/p.yml": properties("m", UNIQUE)}
    values = "accepted_values: {name: known, arguments: {values: VALUES}}"
    with lab(folder, files, SETUP) as case:
        case.settle()
        case.edit({"models/p.yml": properties("m", UNIQUE, values.replace("VALUES", "[1, 2]"))})
        case.restart()
        run = case.job("m")
        assert (run.success, run.tests) == (True, {"ids": "reused", "known": "pass"})
        assert run.nodes["m"] == ("reused", "No new changes on any upstreams")
        case.edit({"models/p.yml": properties("m", UNIQUE, values.replace("VALUES", "[1]"))})
        run = case.job("m")
        assert (run.success, run.tests) == (False, {"ids": "reused", "known": "fail"})
        # It stays red, and says since when.
        case.advance(minutes=2)
        run = case.job("m")
        assert (run.success, run.tests) == (False, {"ids": "reused", "known": "reused"})
        (shown,) = run.checks["known"]
        assert not shown.passed
        assert re.fullmatch(r"Failed 2m( \d+s)? ago on the same code and data", shown.description)


def test_a_parse_changes_no_test(folder):
    """While it runs a test, dbt lists more macros of it than after a parse."""
    files = {**PLAIN, "models/m.sql": TABLE + ORDERS, "models/p.yml": properties("m", UNIQUE, NOT_NULL)}
    with lab(folder, files, SETUP) as case:
        case.settle()
        case.edit({"models/p.yml": properties("m", UNIQUE, NOT_NULL) + "# parsed once more\n"})
        case.restart()
        assert case.cycle() == []


def test_unit_tests_run_for_code_and_hold_their_model(folder):
    unit = """
models: [{name: m}]
unit_tests:
  - name: doubles
    model: m
    given: [{input: "source('raw', 'orders')", rows: [{id: 1, amount: 4}]}]
    expect: {rows: [{id: 1, amount: EXPECTED}]}
"""
    files = {**PLAIN, "models/m.sql": TABLE + ORDERS, "models/p.yml": unit.replace("EXPECTED", "4")}
    files["models/c.sql"] = TABLE + "select count(*) as n from {{ ref('m') }}"
    with lab(folder, files, SETUP) as case:
        case.settle()
        assert case.verdicts == {"doubles": "pass"}
        case.sql(BAD_ROW)
        (run,) = case.cycle()
        assert (run.tests, run.nodes["m"][0]) == ({"doubles": "reused"}, "build")
        # Edited alone, it runs alone, and holds its model and what is below.
        case.edit({"models/p.yml": unit.replace("EXPECTED", "8")})
        (run,) = case.cycle()
        assert (run.success, run.tests["doubles"]) == (False, "fail")
        case.sql(BAD_ROW)
        assert case.cycle() == []
        assert case.decision("m") == ("hold", "Upstream test failed: doubles")
        # With its model corrected too, it comes first.
        case.edit({"models/m.sql": TABLE + ORDERS.replace("amount", "amount * 2 as amount")})
        (run,) = case.cycle()
        assert (run.success, run.tests) == (True, {"doubles": "pass"})
        assert {name for name, (decision, _) in run.nodes.items() if decision == "build"} == {"m", "c"}


def test_a_check_that_is_selected_by_hand_runs_alone(folder):
    files = {**PLAIN, "models/m.sql": TABLE + ORDERS, "models/p.yml": properties("m", UNIQUE, NOT_NULL)}
    with lab(folder, files, SETUP) as case:
        case.settle()
        run = case.check("ids")
        assert (run.nodes, run.tests, run.success) == ({}, {"ids": "pass"}, True)


def test_a_result_is_shown_on_its_own_check_though_the_run_was_not_asked_for_it(folder):
    """dbt runs a test with either of the models that it reads; Dagster shows it on one, which may not be in the run."""
    relationship = "relationships: {name: known, arguments: {to: ref('dim'), field: id}}"
    files = {
        **PLAIN,
        "models/dim.sql": TABLE + "select id from {{ source('raw', 'items') }}",
        "models/fct.sql": TABLE + ORDERS + " where id = 1",
        "models/p.yml": properties("fct", relationship),
    }
    with lab(folder, files, SETUP) as case:
        case.settle()
        run = case.materialize("dim")
        (shown,) = run.checks["known"]
        assert (shown.asset_key.path[-1], shown.passed) == ("fct", True)
        assert set(run.nodes) == {"dim"}


WARN_ERROR = ("--warn-error-options", '{"error": ["LogTestResult"]}')


def test_a_warning_is_a_failure_as_soon_as_dbt_takes_it_for_one(folder):
    """And only for so long: then the test holds nothing any more."""
    files = {**GATED, "models/p.yml": properties("m", "unique: {name: ids, config: {severity: warn}}")}
    with lab(folder, files, [*SETUP, BAD_ROW]) as case:
        case.settle()
        assert case.verdicts == {"ids": "warn"}
        case.start_anew(dbt_args=("build", *WARN_ERROR))
        assert (case.job().success, case.verdicts) == (False, {"ids": "fail"})
        case.sql("insert into raw.orders values (3, 30)")
        (run,) = case.cycle()
        assert run.nodes["c"] == ("hold", "Upstream test failed: ids")
        case.start_anew(dbt_args=("build",))
        case.watch.learned(["c"])
        (run,) = case.cycle()
        assert (run.tests, run.nodes["c"][0]) == ({"ids": "warn"}, "build")
        assert case.sql("from main.c") == [(4,)]


def test_code_deployed_after_a_run_of_a_source_test_does_not_wait(folder):
    files = {**PLAIN, "models/m.sql": TABLE + ORDERS}
    with lab(folder, files, SETUP) as case:
        case.settle()
        tests = "columns: [{name: id, data_tests: [not_null: {name: filled}]}]"
        case.edit({"models/sources.yml": SOURCES.replace("SOURCE_TESTS", f", {tests}")})
        (run,) = case.cycle()
        assert run.tests == {"filled": "pass"}
        case.edit({"models/m.sql": TABLE + ORDERS + " where id > 1"})
        case.restart()
        (run,) = case.cycle()
        assert run.nodes == {"m": ("build", "Code changed: sql")}
