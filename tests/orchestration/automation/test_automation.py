"""Conditions and the automation sensor: one plan for all, composable with Dagster's own conditions."""

from __future__ import annotations

import json
import time
from datetime import timedelta

import dagster as dg
import pytest
from dagster._core.events import DagsterEvent, DagsterEventType
from dagster._core.storage.dagster_run import DagsterRunStatus
from dagster._core.test_utils import create_run_for_test

from dagster_sao import StateAwareDbtTranslator, state_aware
from dagster_sao.core.state.state import FailureKind
from dagster_sao.orchestration import clock
from dagster_sao.orchestration.events.event_schema import CONDITION_TAG, PROJECT_TAG
from tests.core.manifests import data_test, manifest, model, source
from tests.orchestration.shops import ORDERS, RAW, STG, Log, definitions, project_in, shop_manifest, write_after_reading

ENDS = {
    DagsterRunStatus.FAILURE: DagsterEventType.RUN_FAILURE,
    DagsterRunStatus.CANCELED: DagsterEventType.RUN_CANCELED,
    DagsterRunStatus.SUCCESS: DagsterEventType.RUN_SUCCESS,
}
CUSTOMERS = "model.shop.customers"


class Shop:
    """Definitions with an instance, and ticks of their automation sensor."""

    def __init__(self, defs: dg.Definitions, instance: dg.DagsterInstance) -> None:
        self.defs = defs
        self.instance = instance
        self.project = project_in(defs)
        self.log = Log(instance, self.project)
        self.repository = defs.get_repository_def()
        self.sensor = self.repository.get_sensor_def("shop_automation_sensor")
        self.cursor: str | None = None
        self.ahead = timedelta(0)

    def tick(self, cursor: str | None = None):
        context = dg.build_sensor_context(
            instance=self.instance, repository_def=self.repository, cursor=cursor or self.cursor
        )
        ahead = int(self.ahead.total_seconds() * 1e9)
        with clock.simulated(lambda: time.time_ns() + ahead):  # as if so much time had gone by
            result = self.sensor.evaluate_tick(context)
        self.cursor = result.cursor
        return result

    def asked(self, **options):
        """Return the names that a tick asks for."""
        return {key.path[-1] for request in self.tick(**options).run_requests for key in request.asset_selection or ()}

    def key(self, uid: str) -> dg.AssetKey:
        return self.project.load().keys.by_unique_id[uid]

    def run(self, *uids: str, status: DagsterRunStatus, tags=None) -> dg.DagsterRun:
        run = create_run_for_test(
            self.instance,
            asset_selection={self.key(uid) for uid in uids},
            status=DagsterRunStatus.STARTED if status in ENDS else status,
            tags={PROJECT_TAG: "shop"} if tags is None else tags,
        )
        if status in ENDS:
            self.end(run, status)
        return run

    def end(self, run: dg.DagsterRun, status: DagsterRunStatus) -> None:
        self.instance.report_dagster_event(DagsterEvent(ENDS[status].value, run.job_name), run.run_id)


class Composed(StateAwareDbtTranslator):
    """Gives one model a condition of its own."""

    def __init__(self, **conditions: dg.AutomationCondition) -> None:
        super().__init__()
        self._conditions = conditions

    def get_automation_condition(self, dbt_resource_props):
        return self._conditions.get(dbt_resource_props["name"])


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def make(tmp_path, instance):
    return lambda world=None, **options: Shop(definitions(tmp_path, world or shop_manifest(), **options), instance)


@pytest.fixture
def shop(make):
    return make()


def labels(evaluation):
    yield evaluation.condition_snapshot.name
    for child in evaluation.child_evaluations:
        yield from labels(child)


def reasons(result):
    return {e.key.path[-1]: [*labels(e)][1] for e in result.automation_condition_evaluations}


# The sensor


def test_a_tick_asks_for_one_run_of_all_that_is_to_be_built(shop):
    (request,) = shop.tick().run_requests
    assert {key.path[-1] for key in request.asset_selection} == {"stg", "orders", "customers"}
    assert request.tags[PROJECT_TAG] == "shop"


def test_a_tick_asks_for_nothing_when_nothing_changed(shop):
    shop.log.token("1")
    shop.log.build()
    result = shop.tick()
    assert not result.run_requests
    assert result.skip_message == "0 of 3 models to build."


def test_new_data_leads_to_a_run_with_its_reasons(shop):
    shop.log.token("1")
    shop.log.build()
    shop.log.token("2")
    result = shop.tick()
    assert reasons(result)["stg"] == "New changes detected: raw.orders"
    assert reasons(result)["orders"] == "New changes detected: stg"
    stg = next(e for e in result.automation_condition_evaluations if e.key == shop.key(STG))
    assert "raw.orders has changed" in list(labels(stg))


@pytest.mark.parametrize("content", ["{", json.dumps(manifest([model("stg")]))], ids=["in part", "of fewer models"])
def test_a_manifest_that_is_written_during_a_tick_is_not_that_ticks(shop, monkeypatch, content):
    write_after_reading(shop.project, monkeypatch, content)
    assert shop.asked() == {"stg", "orders", "customers"}


def test_models_that_the_definitions_do_not_have_are_named_at_each_tick(shop, capsys):
    shop.log.token("1")
    shop.log.build()
    moved = model("orders", "stg", schema="finance", config={"schema": "finance"})
    world = manifest([model("stg", RAW), moved, model("new", "stg")], [source("raw", "orders")])
    shop.project.dbt_project.manifest_path.write_text(json.dumps(world))
    said = "Not built, since the definitions do not have their asset keys: new, orders. Reload the code location."
    assert [shop.tick().skip_message for _ in range(2)] == [f"0 of 1 models to build. {said}"] * 2
    assert capsys.readouterr().err.count(said) == 1
    # Others are built meanwhile.
    shop.log.token("2")
    assert shop.asked() == {"stg"}


def test_a_tick_stores_evaluations_only_for_changes(shop):
    shop.log.token("1")
    shop.log.build()
    assert shop.tick().automation_condition_evaluations == []
    assert shop.tick().automation_condition_evaluations == []
    shop.log.token("2")
    assert set(reasons(shop.tick())) == {"stg", "orders", "customers"}


def test_an_age_that_grows_is_no_change(shop):
    shop.log.token("1")
    shop.log.build()
    shop.tick()
    shop.log.fail(ORDERS)
    assert set(reasons(shop.tick())) == {"orders"}
    shop.ahead += timedelta(seconds=30)
    assert shop.tick().automation_condition_evaluations == []


def test_there_is_no_limit_of_500_assets(make):
    names = [f"m{index}" for index in range(600)]
    world = manifest([model(name, RAW) for name in names], [source("raw", "orders")])
    result = make(world).tick()
    assert len(result.run_requests) == 1
    assert {key.path[-1] for key in result.run_requests[0].asset_selection} == set(names)


@pytest.mark.parametrize(
    ("executor", "config"),
    [
        (None, {"execution": {"config": {"in_process": {}}}}),
        (dg.multiprocess_executor, {}),
        (dg.multi_or_in_process_executor, {}),
    ],
    ids=["none chosen", "chosen", "chosen as it is without a choice"],
)
def test_a_requested_run_is_one_process_unless_an_executor_was_chosen(tmp_path, instance, executor, config):
    defs = dg.Definitions.merge(definitions(tmp_path, shop_manifest()), dg.Definitions(executor=executor))
    shop = Shop(defs, instance)
    (request,) = shop.tick().run_requests
    assert request.run_config == config
    assert dg.validate_run_config(shop.repository.get_job("__ASSET_JOB"), config)


@pytest.mark.parametrize(("command", "requested"), [("build", 1), ("run", 0)])
def test_no_run_is_requested_for_tests_that_its_dbt_command_does_not_run(make, command, requested):
    world = manifest([model("stg", RAW), data_test("ids", STG, attached_node=STG)], [source("raw", "orders")])
    shop = make(world, dbt_args=[command])
    shop.log.token("1")
    shop.log.build()
    assert len(shop.tick().run_requests) == requested


def test_a_full_refresh_among_dbts_arguments_makes_nothing_due(make):
    shop = make(dbt_args=["build", "--full-refresh"])
    shop.log.token("1")
    shop.log.build()
    assert shop.asked() == set()


@pytest.mark.parametrize(
    "status",
    [DagsterRunStatus.NOT_STARTED, DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING],
)
def test_nothing_is_asked_for_that_a_run_is_building_nor_what_is_below_it(shop, status):
    run = shop.run(STG, status=status, tags={})
    result = shop.tick()
    assert not result.run_requests
    stg, orders = ([*labels(e)] for e in result.automation_condition_evaluations if e.key.path[-1] in {"stg", "orders"})
    assert f"Run {run.run_id[:8]} is building it" in stg
    assert "A run is building one of its upstreams" in orders


def test_what_is_beside_a_run_is_asked_for(shop):
    shop.log.token("1")
    shop.log.build()
    shop.log.token("2")
    shop.log.build(STG)
    shop.run(ORDERS, status=DagsterRunStatus.STARTED)
    assert shop.asked() == {"customers"}


def test_what_is_below_a_node_that_waits_waits_with_it(shop):
    shop.log.token("1")
    shop.log.build()
    shop.log.token("2")
    shop.run(STG, status=DagsterRunStatus.FAILURE)
    assert shop.asked() == set()


@pytest.mark.parametrize("status", [DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED, DagsterRunStatus.SUCCESS])
def test_a_run_that_ended_without_a_record_is_not_repeated_for_5_minutes(shop, status):
    shop.run(STG, ORDERS, CUSTOMERS, status=status)
    result = shop.tick()
    assert not result.run_requests
    waits = [text for e in result.automation_condition_evaluations for text in labels(e)]
    assert any(text.startswith("The last run for it ended without building it. Retries at ") for text in waits)
    shop.ahead += timedelta(minutes=5)
    assert shop.asked() == {"stg", "orders", "customers"}


def test_a_run_that_recorded_a_failure_leaves_the_wait_to_it(shop):
    run = shop.run(STG, status=DagsterRunStatus.STARTED)
    shop.log.fail(STG, FailureKind.BUILD)
    shop.end(run, DagsterRunStatus.FAILURE)
    shop.ahead = timedelta(minutes=6)
    assert "stg" in shop.asked()


def test_what_a_run_was_killed_in_the_midst_of_waits_for_5_minutes(shop):
    shop.log.token("1")
    shop.log.build()
    run = shop.run(STG, status=DagsterRunStatus.STARTED)
    shop.log.start_dbt(run.run_id, STG)
    shop.end(run, DagsterRunStatus.CANCELED)
    assert shop.asked() == set()
    shop.ahead = timedelta(minutes=5)
    assert shop.asked() == {"stg"}


def test_other_data_ends_the_wait_after_a_run_that_died(shop):
    shop.log.token("1")
    assert "stg" in shop.asked()
    shop.run(STG, ORDERS, CUSTOMERS, status=DagsterRunStatus.FAILURE)
    assert shop.asked() == set()
    shop.log.token("2")
    assert shop.asked() == {"stg", "orders", "customers"}


@pytest.mark.parametrize("cursor", ["garbage", "{}", "[]", '{"layout": 99}', '{"layout": 1, "conditions": 7}', "7"])
def test_a_cursor_that_cannot_be_read_costs_nothing(shop, cursor):
    assert shop.asked(cursor=cursor) == {"stg", "orders", "customers"}
    assert json.loads(shop.cursor)["layout"] == 1


def test_a_cursor_of_another_version_is_noted(shop, capsys):
    shop.tick(cursor='{"layout": 99}')
    assert "written by another version and is started anew; no state is lost" in capsys.readouterr().err


def test_the_default_automation_sensor_leaves_our_assets_alone(make):
    @dg.asset(automation_condition=dg.AutomationCondition.eager())
    def somebody_elses(): ...

    shop = make(assets=[somebody_elses])
    names = {s.name for s in shop.repository.sensor_defs}
    assert "default_automation_condition_sensor" in names
    others = shop.repository.get_sensor_def("default_automation_condition_sensor")
    assert others.asset_selection.resolve(shop.repository.asset_graph) == {somebody_elses.key}


def test_without_other_assets_there_is_no_default_automation_sensor(shop):
    assert {s.name for s in shop.repository.sensor_defs} == {"shop_automation_sensor", "shop_freshness_sensor"}


def test_the_sensors_of_two_merged_projects_keep_apart(tmp_path, instance):
    one = definitions(tmp_path / "one", shop_manifest())
    other = manifest([model("theirs", package_name="mart")])
    two = definitions(tmp_path / "two", other)
    assert "model.mart.theirs" in project_in(two).load().keys.by_unique_id
    assert {s.name for s in (*one.sensors, *two.sensors)} == {"shop_automation_sensor", "shop_freshness_sensor"}


# Conditions


@pytest.fixture
def composed(make):
    condition = state_aware() & ~dg.AutomationCondition.in_progress()
    return make(translator=Composed(orders=condition))


def test_a_composed_condition_goes_through_dagster_with_the_plan_behind_it(composed):
    (request,) = composed.tick().run_requests
    assert {key.path[-1] for key in request.asset_selection} == {"stg", "orders", "customers"}
    # The run decides about it as about the others: it may be built, or held, in the meantime.
    assert CONDITION_TAG not in request.tags


def test_a_composed_condition_asks_for_nothing_when_nothing_changed(composed):
    composed.log.token("1")
    composed.log.build()
    assert composed.asked() == set()
    assert composed.asked() == set()


def test_a_composed_condition_shows_the_reason_in_its_tree(composed):
    composed.log.token("1")
    composed.log.build()
    composed.log.token("2")
    orders = next(e for e in composed.tick().automation_condition_evaluations if e.key == composed.key(ORDERS))
    assert "New changes detected: stg" in list(labels(orders))


def test_a_condition_can_hold_back_what_the_plan_would_build(make):
    never = state_aware() & dg.AutomationCondition.newly_requested()
    shop = make(translator=Composed(orders=never))
    assert shop.asked() == {"stg", "customers"}


def test_a_condition_can_ask_for_what_the_plan_would_reuse(make):
    shop = make(
        translator=Composed(orders=state_aware() | dg.AutomationCondition.code_version_changed() | ~state_aware())
    )
    shop.log.token("1")
    shop.log.build()
    (request,) = shop.tick().run_requests
    assert [key.path[-1] for key in request.asset_selection] == ["orders"]
    assert json.loads(request.tags[CONDITION_TAG]) == [ORDERS]


def test_a_parent_that_its_condition_holds_back_is_no_new_data_for_a_composed_child(make):
    never = state_aware() & dg.AutomationCondition.newly_requested()
    careful = state_aware() & ~dg.AutomationCondition.in_progress()
    shop = make(translator=Composed(stg=never, orders=careful, customers=careful))
    shop.log.token("1")
    shop.log.build()
    shop.log.token("2")
    assert shop.asked() == set()


@pytest.mark.parametrize("condition", [state_aware(), dg.AutomationCondition.missing()], ids=["ours", "Dagster's"])
def test_what_a_condition_asked_for_once_stays_asked_for_while_it_has_to_wait(make, condition):
    shop = make(translator=Composed(orders=condition.newly_true()))
    run = shop.run(STG, status=DagsterRunStatus.STARTED)
    assert shop.asked() == set()
    shop.end(run, DagsterRunStatus.FAILURE)
    shop.ahead = timedelta(minutes=6)
    assert shop.asked() == {"stg", "orders", "customers"}
    assert shop.asked() == {"stg", "customers"}


@pytest.mark.parametrize("conditions", ["garbage", '{"x": 1}'])
def test_a_garbled_memory_of_conditions_costs_nothing(composed, conditions):
    cursor = json.dumps({"layout": 1, "conditions": conditions})
    assert composed.asked(cursor=cursor) == {"stg", "orders", "customers"}


def test_a_part_of_a_composed_condition_can_be_replaced():
    condition = state_aware() & ~dg.AutomationCondition.in_progress()
    missing = dg.AutomationCondition.missing()
    expected = missing & ~dg.AutomationCondition.in_progress()
    assert condition.replace(state_aware(), missing) == expected
    assert condition.replace("state_aware", missing) == expected


def test_state_aware_equals_itself_and_nothing_else():
    assert state_aware() == state_aware()
    assert state_aware() != dg.AutomationCondition.eager()
    assert (state_aware().name, state_aware().get_label()) == ("state_aware", "state_aware")


def test_dagsters_own_evaluator_works_with_reasons_in_the_tree(shop):
    shop.log.token("1")
    shop.log.build()
    shop.log.token("2")
    result = dg.evaluate_automation_conditions(defs=shop.defs, instance=shop.instance)
    assert result.total_requested == 3
    tree = next(r for r in result.results if r.key == shop.key(STG)).serializable_evaluation
    assert "New changes detected: raw.orders" in list(labels(tree))


def test_dagsters_own_evaluator_asks_for_nothing_when_nothing_changed(shop):
    shop.log.token("1")
    shop.log.build()
    assert dg.evaluate_automation_conditions(defs=shop.defs, instance=shop.instance).total_requested == 0


def test_a_condition_of_a_model_that_is_no_longer_in_the_project_is_false(shop):
    shop.project.dbt_project.manifest_path.write_text(json.dumps(manifest([model("stg")])))
    result = dg.evaluate_automation_conditions(defs=shop.defs, instance=shop.instance)
    assert result.get_num_requested(shop.key(STG)) == result.total_requested == 1


def test_the_condition_on_another_asset_says_where_it_belongs(instance):
    @dg.asset(automation_condition=state_aware())
    def no_model(): ...

    with pytest.raises(Exception, match="no_model") as error:
        dg.evaluate_automation_conditions(defs=[no_model], instance=instance)
    assert isinstance(error.value.__cause__, dg.DagsterInvalidDefinitionError)
    assert str(error.value.__cause__) == (
        "state_aware() is on no_model, which is not a dbt model of a state-aware project. Build the dbt assets with"
        " build_state_aware_definitions or StateAwareDbtProjectComponent, or use another condition."
    )
