"""Runs that end before their work is done: killed, terminated, executed again. What is built when, case by case."""

from __future__ import annotations

import dagster as dg
import pytest

from dagster_sao import build_state_aware_job
from tests.histories.inprocess_dbt import Accident, InProcessDbt
from tests.histories.lab import TABLE, built, lab

pytestmark = pytest.mark.slow

FILES = {
    "models/sources.yml": "sources: [{name: raw, schema: raw, tables: [{name: orders}, {name: items}]}]",
    "models/a.sql": TABLE + "select id from {{ source('raw', 'orders') }}",
    "models/b.sql": TABLE + "select count(*) as n from {{ ref('a') }}",
}
SETUP = ["create schema raw", "create table raw.orders as select 1 as id", "create table raw.items as select 1 as id"]
BROKEN = {"models/b.sql": TABLE + "select count(*) as n, (select x from raw.permission) as x from {{ ref('a') }}"}
NEW_ORDER = "insert into raw.orders values (2)"


@pytest.fixture
def folder(tmp_path):
    return tmp_path


def accident(**what):
    InProcessDbt.stage.accident = Accident(**what)


def test_what_a_killed_dbt_had_not_finished_was_interrupted_and_did_not_fail(folder):
    with lab(folder, FILES, SETUP, jobs=[build_state_aware_job("all")]) as case:
        case.settle()
        case.sql(NEW_ORDER)
        accident(kill_dbt_at=1, run_survives=True)
        (run,) = case.cycle()
        assert not run.success
        assert run.nodes["a"] == ("failed", "dbt was killed by SIGKILL. The kernel does that when memory runs out.")
        # The sensor waits, twice as long each time; a job builds it at once, whatever the sensor waits for.
        for minutes in (5, 10):
            assert case.cycle() == []
            what, why = case.decision("a")
            assert what == "hold"
            assert why.startswith("Its last build was interrupted ")
            case.advance(minutes=minutes - 1)
            assert case.cycle() == []
            case.advance(minutes=1.2)
            accident(kill_dbt_at=1, run_survives=True)
            (run,) = case.cycle()
            assert not run.success
        assert built(case.job()) == {"a", "b"}
        assert case.cycle() == []


def test_new_data_ends_the_wait_after_an_interruption(folder):
    with lab(folder, FILES, SETUP) as case:
        case.settle()
        case.sql(NEW_ORDER)
        accident(kill_dbt_at=1, run_survives=True)
        case.cycle()
        assert case.cycle() == []
        case.sql(NEW_ORDER)
        (run,) = case.cycle()
        assert built(run) == {"a", "b"}


@pytest.mark.parametrize("asks", ["sensor", "job"])
def test_a_run_that_somebody_terminated_is_not_asked_for_again_at_once(folder, asks):
    with lab(folder, FILES, SETUP) as case:
        case.settle()
        case.sql(NEW_ORDER)
        case.terminate_next()
        run = case.cycle()[0] if asks == "sensor" else case.job()
        assert case.instance.get_run_by_id(run.run_id).status.value == "CANCELED"
        assert case.cycle() == []
        what, why = case.decision("a")
        assert what == "hold"
        assert why.startswith("Its last run was terminated ")
        assert ". Retries in 4m" in why
        case.advance(minutes=5.2)
        (run,) = case.cycle()
        assert built(run) == {"a", "b"}


def test_a_run_that_is_executed_again_builds_what_failed_in_it_at_once(folder):
    with lab(folder, {**FILES, **BROKEN}, SETUP) as case:
        failed = case.job()
        assert failed.nodes["b"][0] == "failed"
        case.sql("create table raw.permission as select 1 as x")
        # Another run does not know that it was mended, and holds.
        held = case.job()
        assert held.nodes["b"][0] == "hold"
        for parent in (failed, held):
            again = case.again(parent)
            assert again.success
            assert built(again) == {"b"}
            assert again.nodes["b"] == ("build", "Requested explicitly")
            assert again.nodes["a"][0] == "reused"


def test_a_step_that_dagster_tries_again_builds_what_failed_in_its_first_attempt(folder):
    with lab(folder, {**FILES, **BROKEN}, SETUP) as case:
        policy, names = dg.RetryPolicy(max_retries=1), dg.AssetSelection.keys("a", "b")
        job = dg.define_asset_job("retried", selection=names, op_retry_policy=policy)
        config = {"ops": {"shop_dbt_assets": {"config": {"state_aware": True}}}}
        accident(before_events=lambda: case.sql("create table raw.permission as select 1 as x"))
        definitions = dg.Definitions.merge(case.definitions, dg.Definitions(jobs=[job]))
        result = definitions.resolve_job_def("retried").execute_in_process(
            instance=case.instance, run_config=config, raise_on_error=False
        )
        built = [event.asset_key.path[-1] for event in result.all_events if event.is_step_materialization]
        assert (result.success, built) == (True, ["a", "b"])


def test_a_run_that_is_executed_again_runs_the_tests_that_failed_in_it(folder):
    tested = "models: [{name: a, columns: [{name: id, data_tests: [{unique: {name: ids}}]}]}]"
    with lab(folder, {**FILES, "models/p.yml": tested}, [*SETUP, "insert into raw.orders values (1)"]) as case:
        failed = case.job()
        assert failed.tests["ids"] == "fail"
        case.sql("delete from main.a; insert into main.a values (1)")
        assert case.job().tests["ids"] == "reused"
        again = case.again(failed)
        assert (again.tests["ids"], built(again), again.success) == ("pass", {"b"}, True)


def test_a_build_ends_a_failure_though_the_clock_was_set_back_in_between(folder):
    with lab(folder, {**FILES, **BROKEN}, SETUP) as case:
        case.settle()
        case.sql("create table raw.permission as select 1 as x")
        case.advance(days=-1)
        # Nobody knows how long it is since the failure, so it is tried at once.
        (run,) = case.cycle()
        assert built(run) == {"b"}
        case.settle()
        assert case.decision("b")[0] == "reuse"


def test_a_failure_counts_though_the_clock_was_set_back_since_the_build_before(folder):
    with lab(folder, FILES, SETUP) as case:
        case.settle()
        case.advance(days=-1)
        case.edit(BROKEN)
        (run,) = case.cycle()
        assert run.nodes["b"][0] == "failed"
        assert case.cycle() == []
        assert case.decision("b")[0] == "hold"
