"""Schedules that decide first: a tick starts a run only when it has something to do. On a real dbt, DuckDB and instance."""

from __future__ import annotations

import json
import threading
import time

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    ScheduleInstigatorData,
    TickData,
    TickStatus,
)
from dagster._core.test_utils import create_run_for_test

from dagster_sao.orchestration import clock
from dagster_sao.orchestration.automation import schedule
from dagster_sao.orchestration.automation.schedule import JobSchedule
from dagster_sao.orchestration.events.event_schema import TESTS_TAG
from tests.conftest import run_dbt
from tests.support.job_shop import OP, PROFILES, JobShop

RAW = dg.AssetKey(["raw", "orders"])
REPOSITORY = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("here"), "repository")
MINUTES, HOURS = 60, 3600


class ScheduledShop:
    """A code server of the shop, and the ticks of its schedules."""

    def __init__(self, shop: JobShop, instance: dg.DagsterInstance) -> None:
        self.shop, self.instance = shop, instance
        self.repository = shop.defs.get_repository_def()

    def tick(self, job="hourly", *, later=0.0):
        ahead = round(later * 10**9)
        with (
            dg.build_schedule_context(self.instance, repository_def=self.repository) as context,
            clock.simulated(lambda: time.time_ns() + ahead),
        ):
            return self.repository.get_schedule_def(f"{job}_schedule").evaluate_tick(context)

    def request(self, job="hourly", **options) -> dg.RunRequest:
        (request,) = self.tick(job, **options).run_requests
        return request

    def run(self, request: dg.RunRequest, job="hourly", *, later=0.0):
        """Execute a requested run. Returns what it built, and whether it succeeded."""
        ahead = round(later * 10**9)
        job_def = self.repository.get_job(job)
        if request.asset_selection is not None:
            job_def = job_def.get_subset(
                asset_selection=frozenset(request.asset_selection),
                asset_check_selection=frozenset(request.asset_check_keys or ()),
            )
        with clock.simulated(lambda: time.time_ns() + ahead):
            done = job_def.execute_in_process(
                instance=self.instance, run_config=request.run_config, tags=request.tags, raise_on_error=False
            )
        return {event.asset_key.path[-1] for event in done.get_asset_materialization_events()}, done.success

    def tokens(self):
        return len(self.instance.fetch_materializations(RAW, limit=100).records)


@pytest.fixture(scope="module")
def built_shop(tmp_path_factory):
    """A shop whose `hourly` job ran once."""
    shop = JobShop(tmp_path_factory.mktemp("schedules") / "shop")
    shop.execute_here("hourly")
    shop.keep()
    return shop


@pytest.fixture
def shop(built_shop):
    """The same, to change."""
    with built_shop.instance() as instance:
        yield ScheduledShop(built_shop, instance)
    built_shop.put_back()


def names(keys):
    return {key.path[-1] for key in keys}


def test_a_tick_with_nothing_to_do_is_skipped_with_one_line(shop):
    for _ in range(2):
        result = shop.tick()
        assert not result.run_requests
        assert result.skip_message == "2 models current; next possible build after a change."


def test_new_data_is_recorded_and_named_until_it_may_be_built(shop):
    before = shop.tokens()
    shop.shop.sql("insert into raw.orders values (2)")
    for _ in range(2):
        said = shop.tick().skip_message
        assert said.startswith("2 models current; next possible build ")
        assert said.endswith(" UTC (a: build_after), or after a change.")
    assert shop.tokens() == before + 1
    request = shop.request(later=HOURS)
    assert names(request.asset_selection) == {"a", "b"}
    assert shop.run(request, later=HOURS) == ({"a", "b"}, True)
    assert not shop.tick(later=HOURS).run_requests


def test_a_job_as_often_as_build_after_does_not_miss_every_other_tick(shop):
    model = shop.shop.folder / "dbt/models/a.sql"
    model.write_text(model.read_text().replace("'period': 'hour'", "'period': 'minute'"))
    run_dbt(shop.shop.folder / "dbt", "parse")
    shop.shop.sql("insert into raw.orders values (2)")
    assert shop.run(shop.request(later=HOURS), later=HOURS)[0] == {"a", "b"}
    created = shop.instance.get_run_records(limit=1)[0].create_timestamp.timestamp()
    shop.shop.sql("insert into raw.orders values (3)")
    assert names(shop.request(later=created + MINUTES - time.time()).asset_selection) == {"a", "b"}


def test_a_dropped_table_alone_is_built_again_and_no_other_event_is_planned(shop):
    shop.shop.sql("drop table main.b")
    request = shop.request()
    assert (names(request.asset_selection), request.asset_check_keys) == ({"b"}, [])
    assert request.run_config["ops"][OP]["config"]["state_aware"] is True
    assert shop.run(request) == ({"b"}, True)
    (run,) = shop.instance.get_runs(limit=1)
    planned = shop.instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED)
    assert names(record.asset_key for record in planned.records) == {"b"}
    assert not shop.tick().run_requests


def test_a_test_that_is_due_starts_a_run_also_without_an_asset_check(shop):
    checks = shop.shop.folder / "dbt/models/checks.yml"
    checks.write_text(checks.read_text().replace("not_null]", "not_null, unique]"))
    run_dbt(shop.shop.folder / "dbt", "parse")
    request = shop.request()
    # The definitions were made before the test, so it has no check yet.
    (named,) = json.loads(request.tags[TESTS_TAG])
    assert named.startswith("test.shop.unique_a_id.")
    assert shop.run(request) == (set(), True)
    assert not shop.tick().run_requests


def test_ticks_are_skipped_while_a_failing_test_waits_for_its_retry(shop):
    shop.shop.sql("insert into raw.orders values (null)")
    request = shop.request(later=HOURS)
    assert shop.run(request, later=HOURS) == ({"a"}, False)
    said = shop.tick(later=HOURS + MINUTES).skip_message
    assert said.startswith("1 model current; 1 held after a failure; 1 test still failing; next possible build ")
    assert said.endswith(": retry), or after a change.")
    again = shop.request(later=HOURS + 6 * MINUTES)
    assert names(again.asset_selection) == {"b"}
    assert {key.name for key in again.asset_check_keys} == {"not_null_a_id"}
    assert shop.run(again, later=HOURS + 6 * MINUTES) == (set(), False)


def test_a_source_that_cannot_be_read_is_named_in_the_line(shop):
    shop.shop.sql("drop table raw.orders")
    said = shop.tick().skip_message
    assert said.startswith("2 models current; next possible build after a change. ")
    assert "raw.orders" in said


def test_a_model_that_the_definitions_do_not_have_is_named_in_the_line(shop):
    (shop.shop.folder / "dbt/models/d.sql").write_text("select 1 as id")
    run_dbt(shop.shop.folder / "dbt", "parse")
    assert shop.tick().skip_message.endswith(
        "after a change. Not built, since the definitions do not have their asset keys: d. Reload the code location."
    )


def test_a_warehouse_that_cannot_be_queried_starts_the_job(shop):
    profiles = shop.shop.folder / PROFILES
    profiles.write_text(profiles.read_text().replace("type: duckdb", "type: no_such_adapter"))
    assert shop.request().asset_selection is None


def test_a_query_that_does_not_answer_starts_the_job(shop, monkeypatch):
    answers = threading.Event()
    monkeypatch.setattr(schedule, "_BESIDE_PROBING_SECONDS", -39.0)
    monkeypatch.setattr(JobSchedule, "_look", lambda *_: answers.wait(MINUTES))
    shop.repository = shop.shop.defs.get_repository_def()
    for _ in range(2):
        assert shop.request().asset_selection is None
    answers.set()


def test_a_selection_that_cannot_be_resolved_starts_the_job(shop):
    assert shop.request("changed").asset_selection is None


def test_a_tick_does_not_open_a_duckdb_file_that_a_run_may_be_writing(shop):
    create_run_for_test(
        shop.instance, asset_selection={dg.AssetKey("c")}, status=dg.DagsterRunStatus.STARTED, job_name="other"
    )
    assert shop.request().asset_selection is None


def test_a_run_of_a_job_of_that_name_in_another_code_location_writes_nothing_here(shop):
    @dg.asset
    def elsewhere(): ...

    other = dg.Definitions(assets=[elsewhere], jobs=[dg.define_asset_job("hourly", [elsewhere])])
    started = dg.DagsterRunStatus.STARTED
    shop.instance.create_run_for_job(other.resolve_job_def("hourly"), status=started)
    assert shop.tick().skip_message == "2 models current; next possible build after a change."
    shop.instance.create_run_for_job(shop.repository.get_job("hourly"), status=started)
    assert shop.request().asset_selection is None


def queue(shop, request, repository=REPOSITORY):
    return create_run_for_test(
        shop.instance,
        job_name="hourly",
        run_config=request.run_config,
        status=dg.DagsterRunStatus.QUEUED,
        remote_job_origin=RemoteJobOrigin(repository, "hourly"),
    )


def test_a_queued_run_of_the_job_does_the_work_of_a_tick(shop):
    shop.shop.sql("drop table main.b")
    started_tick(shop)
    request = shop.request()
    run = queue(shop, request)
    said = shop.tick().skip_message
    assert said == f"Run {run.run_id[:8]} is queued, and will build and test what is due when it begins."
    shop.instance.report_run_canceled(run)
    assert shop.request() == request


def test_a_queued_run_of_another_code_location_does_not(shop):
    shop.shop.sql("drop table main.b")
    started_tick(shop)
    request = shop.request()
    queue(shop, request, RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("there"), "repository"))
    assert shop.request() == request


def test_a_job_of_everything_starts_with_what_it_has_not_built(shop):
    request = shop.request("nightly")
    assert names(request.asset_selection) == {"c"}
    assert shop.run(request, "nightly") == ({"c"}, True)
    assert shop.tick("nightly").skip_message == "3 models current; next possible build after a change."


def evaluations(shop, name):
    records = shop.instance.schedule_storage.get_auto_materialize_asset_evaluations(dg.AssetKey(name), limit=10)
    for record in records:
        evaluation = record.get_evaluation_with_run_ids().evaluation
        yield record.evaluation_id, evaluation.child_evaluations[0].condition_snapshot.name


def started_tick(shop):
    """Begin a tick as Dagster's daemon does, before it asks the code server. Returns its id."""
    name = "hourly_schedule"
    state = InstigatorState(
        RemoteInstigatorOrigin(REPOSITORY, name),
        InstigatorType.SCHEDULE,
        InstigatorStatus.RUNNING,
        ScheduleInstigatorData("0 * * * *", 0.0),
    )
    if shop.instance.get_instigator_state(state.instigator_origin_id, state.selector_id) is None:
        shop.instance.add_instigator_state(state)
    tick = shop.instance.create_tick(
        TickData(
            state.instigator_origin_id,
            name,
            InstigatorType.SCHEDULE,
            TickStatus.STARTED,
            time.time(),
            selector_id=state.selector_id,
        )
    )
    return int(tick.tick_id)


def test_the_reasons_are_stored_as_the_sensor_stores_them(shop):
    assert not list(evaluations(shop, "b"))
    shop.shop.sql("drop table main.b")
    tick = started_tick(shop)
    shop.tick()
    assert list(evaluations(shop, "b")) == [(tick, '"shop"."main"."b" no longer exists')]
    assert not list(evaluations(shop, "a"))


def test_without_a_tick_of_dagsters_own_no_reasons_are_stored(shop):
    shop.shop.sql("drop table main.b")
    shop.tick()
    assert not list(evaluations(shop, "b"))


def test_a_project_that_cannot_be_parsed_starts_the_job_which_reports_it(shop):
    assert not shop.tick().run_requests
    project = next(s for s in shop.repository.sensor_defs if s.name == "shop_automation_sensor").project
    manifest = project.dbt_project.manifest_path
    manifest.write_text("{")
    for _ in range(2):
        assert shop.request().asset_selection is None
