"""A project driven from Python: what each call promises, on real dbt, DuckDB and Dagster."""

from __future__ import annotations

import inspect
import json
from datetime import datetime, timezone

import dagster as dg
import pytest
from dagster._core.events import EngineEventData
from dbt.artifacts.schemas.run import RunResultsArtifact

from dagster_sao import StateAwareProject, build_state_aware_definitions
from dagster_sao.api import NodeStatus
from dagster_sao.api.results.read_results import read_results
from dagster_sao.core.decision.decide import Action, Reason
from dagster_sao.orchestration.events.event_schema import run_end_metadata
from tests.support.corner_shop import BELOW, FRAGILE, ORDERS, RATES, STG, TOTALS, eventful_day
from tests.support.parsing import parsing_here

pytestmark = pytest.mark.usefixtures("corner_shop_environment")


@pytest.fixture(scope="module")
def day(opened):
    """The corner shop after an eventful day."""
    with parsing_here():
        yield eventful_day(opened)


def statuses(results):
    return {uid: result.status.value for uid, result in results.items()}


def written(day, name):
    return {entry["unique_id"]: entry for entry in json.loads(day.seen[f"{name} written"])["results"]}


def test_a_plan_takes_what_a_build_takes():
    plan, build = (inspect.signature(method).parameters for method in (StateAwareProject.plan, StateAwareProject.build))
    extra = set(build) - set(plan)
    assert extra == {"raise_on_failure"}
    assert {name: plan[name].default for name in plan} == {name: build[name].default for name in plan}


def test_a_plan_writes_no_event(day):
    assert day.seen["events of the plans"] == 0


def test_a_plan_finds_a_dropped_table_as_a_run_does_and_keeps_no_note_of_it(day):
    dropped = day.seen["plan of a dropped table"].decisions[RATES]
    assert (dropped.reason, dropped.message) == (Reason.RELATION_MISSING, '"shop"."main"."rates" no longer exists')
    assert day.seen["recorded plan of a dropped table"].decisions[RATES].action is Action.REUSE


def test_a_plan_without_a_look_at_the_sources_says_which_were_never_probed(day):
    assert day.seen["blind plan"].notes == ("Never probed, so whether they have new data is not known: raw.orders.",)
    assert day.seen["plan"].notes == ()


def test_a_plan_tells_waves_and_reasons_and_prints_them(day):
    plan = day.seen["plan"]
    assert [set(wave) for wave in plan.waves] == [{STG, RATES}, {ORDERS, FRAGILE}, {TOTALS, BELOW}]
    assert {decision.reason for decision in plan.decisions.values()} == {Reason.NEVER_BUILT}
    assert plan.parallelism == 0.0
    assert "Not built before in this environment" in str(plan)
    assert "6 of 6 to build in 3 waves" in str(plan)


def test_a_build_tells_what_became_of_each_node_and_test(day):
    first = day.seen["first"]
    assert set(statuses(first).values()) == {"success"}
    assert first.success
    assert first[ORDERS].reason == "never_built"
    assert first[ORDERS].seconds > 0
    assert [test.status.value for test in first.tests.values()] == ["pass"]
    assert "6 success" in str(first)


def test_a_build_is_a_run_of_the_instance(day):
    with day.shop.instance() as instance:
        run = instance.get_run_by_id(day.seen["new rows"].run_id)
    assert run.status is dg.DagsterRunStatus.SUCCESS
    assert run.asset_selection == {dg.AssetKey("orders"), dg.AssetKey("totals")}


def test_what_was_planned_is_what_is_built(day):
    for plan, build in (("plan", "first"), ("plan of the same", "same")):
        planned = {uid: decision.reason.value for uid, decision in day.seen[plan].decisions.items()}
        assert planned == {uid: result.reason for uid, result in day.seen[build].items()}


def test_a_second_build_with_nothing_new_reuses_all(day):
    assert set(statuses(day.seen["same"]).values()) == {"reused"}
    assert day.seen["same"][ORDERS].message == "No new changes on any upstreams"
    assert day.seen["same"][ORDERS].seconds_saved > 0
    (test,) = day.seen["same"].tests.values()
    assert (test.status.value, test.verdict.value) == ("reused", "pass")


def test_a_plan_forecasts_from_what_builds_took(day):
    plan = day.seen["plan of new rows"]
    assert plan.forecast.threads == 2
    assert plan.seconds > 0
    assert day.seen["plan of the same"].forecast.saved_seconds > 0


def test_a_plan_sees_new_rows_that_nobody_recorded(day):
    assert day.seen["plan of new rows"].decisions[ORDERS].reason is Reason.NEW_DATA
    assert day.seen["recorded plan of new rows"].decisions[ORDERS].reason is Reason.NO_NEW_DATA


def test_only_what_is_selected_is_built(day):
    assert statuses(day.seen["new rows"]) == {ORDERS: "success", TOTALS: "reused"}
    assert day.seen["new rows"][TOTALS].reason == "waiting_for_all"
    assert day.shop.rows("orders") == 2


def test_an_explanation_tells_which_parent_waits_and_what_is_in_force(day):
    totals = day.seen["explained"]["totals"]
    assert totals.decision.reason is Reason.WAITING_FOR_ALL
    assert {parent.name: parent.changed for parent in totals.parents} == {"orders": True, "rates": False}
    assert totals.settings == {"build_after": "1h", "updates_on": "all", "code_changes": "immediate"}
    assert totals.last_reason == "Not built before in this environment"
    assert "waiting for rates" in str(totals)
    orders = day.seen["explained"]["orders"]
    assert orders.last_reason == "New changes detected: stg_orders"
    assert orders.state.build.run_id == day.seen["new rows"].run_id
    assert day.seen["explained"]["stg_orders"].settings == {"view": "built for code only, since it reads current data"}


def test_a_failure_raises_with_the_results(day):
    results = day.seen["broken"].results
    assert statuses(results) == {FRAGILE: "error", BELOW: "skipped"}
    assert results[BELOW].failed_upstreams == (FRAGILE,)
    assert "Could not convert string 'x'" in results[FRAGILE].message
    assert "Could not convert string 'x'" in str(day.seen["broken"])


def test_an_explanation_tells_of_the_failure_and_when_it_is_tried_again(day):
    broken = day.seen["broken explained"]
    assert broken.decision.action is Action.HOLD
    assert broken.decision.eligible_at == broken.state.failure.retry_at
    assert "May be tried again" in str(broken)
    assert broken.code_changes


def test_run_results_say_what_dbt_would_say(day):
    first, same, broken = (written(day, name) for name in ("first", "same", "broken"))
    assert {entry["status"] for entry in first.values()} == {"success", "pass"}
    assert first[ORDERS]["compiled_code"]
    nodes = {uid: entry for uid, entry in same.items() if not uid.startswith("test.")}
    assert {entry["status"] for entry in nodes.values()} == {"reused"}
    assert nodes[ORDERS]["message"] == "No new changes on any upstreams"
    (test,) = (entry for uid, entry in same.items() if uid.startswith("test."))
    assert test["status"] == "skipped"
    assert test["message"].startswith("Passed ")
    assert test["message"].endswith(" ago on the same code and data")
    assert [broken[uid]["status"] for uid in (FRAGILE, BELOW)] == ["error", "skipped"]


def test_dbt_reads_the_run_results_of_what_was_built(day, tmp_path):
    path = tmp_path / "run_results.json"
    path.write_text(day.seen["first written"])
    read = RunResultsArtifact.read_and_check_versions(str(path))
    assert {result.unique_id for result in read.results} >= set(day.seen["first"])


def test_a_build_keeps_its_results_where_they_cannot_be_written(day):
    results = day.seen["not written"]
    assert statuses(results) == {STG: "reused"}
    assert results.success
    (warning,) = results.warnings
    assert "run_results.json could not be written, so it does not describe this run: " in warning


def test_results_are_json(day):
    for name in ("plan", "first", "broken explained"):
        json.dumps(day.seen[name].to_dict())


def test_definitions_and_folder_share_one_state(day):
    from dagster_dbt import DbtProject

    with day.shop.instance() as instance:
        definitions = build_state_aware_definitions(DbtProject(day.shop.project_dir))
        project = StateAwareProject.from_definitions(definitions, instance=instance)
        assert project.state("orders").build.run_id == day.seen["new rows"].run_id


def test_a_criterion_that_matches_nothing_is_told_beside_others_that_do(day, caplog):
    with day.shop.instance() as instance:
        project = day.shop.project(instance)
        told = "The selection criterion 'ordrs' does not match any enabled nodes. Did you mean 'orders'"
        assert any(note.startswith(told) for note in project.plan("orders ordrs", refresh_sources=False).notes)
        project.build("orders", exclude="nobody", refresh_sources=False)
        assert "The selection criterion 'nobody' does not match any enabled nodes." in caplog.messages


def test_what_is_forced_is_planned_though_nothing_changed(day):
    with day.shop.instance() as instance:
        project = day.shop.project(instance)
        plan = project.plan("rates", force="rates", refresh_sources=False)
        assert plan.decisions[RATES].reason is Reason.REQUESTED
        full = project.plan("rates orders", full_refresh=True, refresh_sources=False)
        assert all(decision.full_refresh for decision in full.decisions.values())


def test_what_is_reset_was_not_built_before_for_every_later_process(day):
    with day.shop.instance() as instance:
        assert day.shop.project(instance).reset(["totals", "fragile"]) == [FRAGILE, TOTALS]
    with day.shop.instance() as instance:
        project = day.shop.project(instance)
        plan = project.plan("totals fragile stg_orders", refresh_sources=False)
        assert {uid: decision.reason for uid, decision in plan.decisions.items()} == {
            TOTALS: Reason.NEVER_BUILT,
            FRAGILE: Reason.NEVER_BUILT,
            STG: Reason.VIEW_CURRENT,
        }
        assert project.reset("totals") == []
        assert instance.get_latest_materialization_event(dg.AssetKey("totals")) is not None
        results = project.build("totals")
        assert statuses(results) == {TOTALS: NodeStatus.SUCCESS}
        assert project.plan("totals", refresh_sources=False).decisions[TOTALS].reason is Reason.NO_NEW_DATA


@pytest.mark.parametrize("probe", [False, True])
def test_sources_tell_token_age_and_how_they_are_probed(day, probe):
    with day.shop.instance() as instance:
        (orders,) = day.shop.project(instance).sources(probe=probe)
    assert orders.token == "2026-01-02T10:00:00"
    assert orders.probe == "loaded_at_query"
    assert orders.age.days > 0
    assert orders.has_new_data is (False if probe else None)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"message": "\x1b[31mBinder Error\x1b[0m:\n  no column id"}, "Binder Error: no column id"),
        (None, "dbt could not run it"),
    ],
)
def test_a_test_that_could_not_be_run_fails_the_build(day, said, message):
    with day.shop.instance() as instance:
        loaded = day.shop.project(instance).orchestrated.load()
    (test,) = loaded.project.graph.tests
    now = datetime(2026, 1, 1, tzinfo=timezone.utc)
    told = {test: {"result": "error", "reason": "New data in orders", "status": "error"}}
    end = dg.DagsterEvent("ENGINE_EVENT", "job", event_specific_data=EngineEventData(run_end_metadata([], told)))
    results = read_results(
        [end], loaded, (), run_id="r", started_at=now, ended_at=now, said={test: said} if said else {}
    )
    assert not results.success
    assert results.problems == [f"not_null_orders_id: {message}"]
