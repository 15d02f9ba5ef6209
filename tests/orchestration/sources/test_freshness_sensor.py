"""Ticks of the freshness sensor on a real DuckDB warehouse, with simulated time."""

from __future__ import annotations

import shutil
import time
from contextlib import closing
from datetime import datetime, timedelta, timezone

import dagster as dg
import duckdb
import pytest
from dagster._core.test_utils import create_run_for_test
from dagster_dbt import DbtProject

from dagster_sao import build_state_aware_definitions
from dagster_sao.core.decision.planner import make_plan
from dagster_sao.orchestration import clock
from dagster_sao.orchestration.state.read_state import read_state
from tests.conftest import run_dbt
from tests.orchestration.shops import Log, project_in, write_after_reading

FILES = {
    "dbt_project.yml": "{name: depot, profile: depot, models: {+materialized: table}}",
    "profiles.yml": "depot: {target: dev, outputs: {dev: {type: duckdb, path: depot.duckdb}}}",
    "models/sources.yml": """
sources:
  - name: raw
    tables:
      - name: orders
        config:
          loaded_at_field: loaded_at
          freshness: {warn_after: {count: 2, period: hour}, error_after: {count: 4, period: hour}}
          meta: {dagster_sao: {blocking: true}}
      - name: items
      - {name: prices, config: {meta: {dagster_sao: {probe_every: 10m}}}}
""",
    "models/daily.sql": """
{{ config(freshness={'build_after': {'count': 1, 'period': 'day'}}) }}
select count(*) as orders from {{ source('raw', 'orders') }}
""",
    "models/stock.sql": "{{ config(meta={'dagster_sao': {'external_changes': 'rebuild'}}) }} select * from {{ source('raw', 'items') }} join {{ source('raw', 'prices') }} using (id)",
}
ORDERS, ITEMS, PRICES = (f"source.depot.raw.{name}" for name in ("orders", "items", "prices"))
DAILY, STOCK = "model.depot.daily", "model.depot.stock"


@pytest.fixture(scope="module")
def parsed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parsed") / "depot"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    run_dbt(folder, "parse")
    return folder


class Depot:
    """A project with its warehouse, its instance and its sensor."""

    def __init__(self, folder, instance) -> None:
        self.folder = folder
        self.instance = instance
        self.ahead = timedelta(0)
        self.start()
        self.log = Log(instance, self.project)
        self.write(
            "create schema raw",
            f"create table raw.orders as select 1 as id, timestamptz '{self.now.isoformat()}' as loaded_at",
            "create table raw.items as select 1 as id",
            "create table raw.prices as select 1 as id, 2.5 as price",
        )

    @property
    def now(self) -> datetime:
        return datetime.now(timezone.utc) + self.ahead

    def start(self) -> None:
        """Start the code server."""
        self.definitions = build_state_aware_definitions(DbtProject(self.folder))
        self.repository = self.definitions.get_repository_def()
        self.project = project_in(self.definitions)
        self.sensor = next(s for s in self.definitions.sensors if "freshness" in s.name)

    def write(self, *statements: str) -> None:
        with closing(duckdb.connect(str(self.folder / "depot.duckdb"))) as connection:
            for statement in statements:
                connection.execute(statement)

    def load_orders(self) -> None:
        self.write(f"insert into raw.orders values (2, timestamptz '{self.now.isoformat()}')")

    def tick(self):
        context = dg.build_sensor_context(instance=self.instance, repository_def=self.repository)
        ahead = int(self.ahead.total_seconds() * 1e9)
        with clock.simulated(lambda: time.time_ns() + ahead):
            result = self.sensor.evaluate_tick(context)
        for event in result.asset_events:
            self.instance.report_runless_asset_event(event)
        return result

    def news(self) -> set[str]:
        """Return the names of the sources that a tick reports."""
        events = self.tick().asset_events
        return {event.asset_key.path[-1] for event in events if isinstance(event, dg.AssetMaterialization)}

    def checks(self) -> list[tuple[str, bool, str]]:
        """Return the checks that a tick reports: the source, whether it passed, and what it says."""
        events = self.tick().asset_events
        found = [event for event in events if isinstance(event, dg.AssetCheckEvaluation)]
        return [(event.asset_key.path[-1], event.passed, event.description) for event in found]

    def build_all(self) -> None:
        """Create the models' relations, and record builds of them as a run does."""
        self.tick()
        self.write(
            "create or replace table main.daily as select 1 as orders",
            "create or replace table main.stock as select 1 as id, 2 as price",
        )
        self.log.build(DAILY, STOCK, at=self.now)

    def decision(self, uid: str) -> tuple[str, str]:
        plan = make_plan(self.project.load().project, self.state(), now=self.now)
        return plan.decisions[uid].action.value, plan.decisions[uid].message

    def state(self):
        return read_state(self.instance, self.project, self.project.load(), self.now)


@pytest.fixture
def depot(tmp_path, parsed, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "depot"
    shutil.copytree(parsed, folder)
    with dg.DagsterInstance.ephemeral() as instance:
        yield Depot(folder, instance)


# What is asked


def test_a_first_tick_asks_all_and_the_next_finds_nothing(depot):
    assert depot.news() == {"orders", "items", "prices"}
    assert depot.tick().skip_message == "0 of 3 sources have new data."


def test_a_manifest_that_is_written_during_a_tick_is_not_that_ticks(depot, monkeypatch):
    write_after_reading(depot.project, monkeypatch, "{")
    assert depot.news() == {"orders", "items", "prices"}


def test_a_source_is_not_asked_while_what_reads_it_waits(depot):
    depot.tick()
    depot.log.build(DAILY, STOCK)
    depot.ahead += timedelta(minutes=30)
    depot.load_orders()
    assert depot.tick().skip_message == (
        "0 of 3 sources have new data; 1 not probed, since nothing below may be built yet."
    )
    depot.ahead += timedelta(days=1)
    assert depot.news() == {"orders"}


def test_probe_every_holds_a_source_back(depot):
    depot.tick()
    depot.write("insert into raw.prices values (2, 3)", "insert into raw.items values (2)")
    depot.ahead += timedelta(minutes=9)
    assert depot.news() == {"items"}
    depot.ahead += timedelta(minutes=1)
    assert depot.news() == {"prices"}


def test_a_failing_source_is_left_alone_for_a_while_and_named_meanwhile(depot):
    depot.write("alter table raw.items rename to gone")
    result = depot.tick()
    assert "1 failing: raw.items" in result.skip_message
    depot.write("alter table raw.gone rename to items")
    depot.ahead += timedelta(seconds=20)
    assert depot.tick().skip_message == "0 of 3 sources have new data; 1 failing: raw.items."
    depot.ahead += timedelta(seconds=10)
    assert depot.news() == {"items"}


# What the checks say


def test_a_source_with_thresholds_has_a_check_and_it_passes(depot):
    (spec,) = [spec for spec in depot.repository.asset_graph.asset_check_keys if spec.name == "freshness"]
    assert spec.asset_key.path[-1] == "orders"
    ((name, passed, message),) = depot.checks()
    assert (name, passed) == ("orders", True)
    assert message.startswith("Loaded ")


def test_a_check_is_reported_again_when_its_answer_changes_and_not_before(depot):
    depot.tick()
    depot.ahead += timedelta(hours=1)
    assert depot.checks() == []
    depot.ahead += timedelta(hours=1, minutes=1)
    assert depot.checks() == [("orders", False, "Loaded 2h 1m ago. warn_after is 2h")]
    assert depot.checks() == []
    depot.ahead += timedelta(hours=2)
    assert depot.checks() == [("orders", False, "Loaded 4h 1m ago. error_after is 4h")]
    depot.load_orders()
    ((name, passed, message),) = depot.checks()
    assert (name, passed) == ("orders", True)
    assert message.startswith("Loaded ")


def test_a_check_gets_worse_though_nobody_waits_for_the_source(depot):
    depot.tick()
    depot.log.build(DAILY)
    depot.ahead += timedelta(hours=2, minutes=1)
    assert depot.checks() == [("orders", False, "Loaded 2h 1m ago. warn_after is 2h")]


def test_a_code_server_that_starts_anew_says_nothing_twice(depot):
    depot.tick()
    depot.start()
    assert depot.checks() == []


def test_a_source_that_cannot_be_asked_is_a_warning(depot):
    depot.write("alter table raw.orders rename to gone")
    ((name, passed, message),) = depot.checks()
    assert (name, passed) == ("orders", False)
    assert message.startswith("Its age is unknown: raw.orders (models/sources.yml)")


def test_nothing_is_built_from_a_source_that_is_too_old_when_it_asks_for_that(depot):
    depot.tick()
    assert depot.state().blocked == set()
    depot.ahead += timedelta(hours=5)
    depot.tick()
    assert depot.state().blocked == {ORDERS}


def test_a_check_can_be_executed_by_hand(depot):
    depot.tick()
    job = depot.definitions.resolve_implicit_global_asset_job_def()
    (key,) = [key for key in depot.repository.asset_graph.asset_check_keys if key.name == "freshness"]
    subset = job.get_subset(asset_selection=set(), asset_check_selection={key})
    result = subset.execute_in_process(instance=depot.instance)
    (evaluation,) = result.get_asset_check_evaluations()
    assert evaluation.passed
    assert evaluation.description.startswith("Loaded ")


# What becomes of the models' relations


def test_a_relation_that_is_gone_is_noticed_once_and_built_again(depot):
    depot.build_all()
    depot.tick()
    depot.write("drop table main.stock")
    (event,) = depot.tick().asset_events
    assert (event.asset_key.path[-1], event.description) == ("stock", '"depot"."main"."stock" no longer exists')
    assert depot.state().missing_relations == {STOCK}
    assert depot.tick().asset_events == []
    assert depot.decision(STOCK) == ("build", '"depot"."main"."stock" no longer exists')
    depot.build_all()
    assert depot.state().missing_relations == set()


def test_a_relation_that_no_build_makes_visible_is_no_hot_loop(depot):
    depot.build_all()
    depot.write("drop table main.stock")
    depot.tick()
    assert depot.state().missing_relations == {STOCK}
    for minutes in (5, 10, 20):
        depot.log.build(STOCK, at=depot.now)  # which leaves nothing that can be seen
        (event,) = depot.tick().asset_events
        assert event.description == (
            '"depot"."main"."stock" was built again, but the sensor still does not find it. Let the sensor\'s role see it.'
            f" Until then it is built again after {minutes}m at the earliest"
        )
        assert depot.decision(STOCK)[0] == "reuse"
        depot.ahead += timedelta(minutes=minutes - 1)
        assert depot.tick().asset_events == []
        assert depot.state().missing_relations == set()
        depot.ahead += timedelta(minutes=1)
        assert depot.tick().asset_events[0].description == '"depot"."main"."stock" no longer exists'
        assert depot.decision(STOCK)[0] == "build"
    depot.build_all()
    assert depot.tick().asset_events == []
    depot.write("drop table main.stock")
    depot.tick()
    assert depot.decision(STOCK)[0] == "build"


def test_a_relation_that_comes_back_is_no_longer_missing(depot):
    depot.build_all()
    depot.write("alter table main.stock rename to gone")
    depot.tick()
    depot.write("alter table main.gone rename to stock")
    depot.tick()
    assert depot.state().missing_relations == set()


def test_what_a_run_is_writing_is_not_taken_for_missing(depot):
    depot.build_all()
    depot.write("drop table main.stock")
    create_run_for_test(
        depot.instance,
        asset_selection={depot.project.load().keys.by_unique_id[STOCK]},
        status=dg.DagsterRunStatus.STARTED,
    )
    assert depot.tick().skip_message.startswith("Run ")
    assert depot.state().missing_relations == set()


def test_on_duckdb_alterations_are_looked_for_where_they_were_asked_for(depot):
    depot.build_all()
    depot.tick()
    depot.ahead += timedelta(minutes=1)
    depot.tick()
    depot.write("insert into main.stock values (7, 7)", "insert into main.daily values (7)")
    depot.ahead += timedelta(minutes=5)
    (event,) = depot.tick().asset_events
    assert (event.asset_key.path[-1], event.description) == ("stock", "Altered outside of Dagster")
    assert set(depot.state().altered_relations) == {STOCK}
    assert depot.decision(STOCK) == ("build", "Its rows were altered outside of Dagster")
    depot.start()
    assert depot.tick().asset_events == []
    assert set(depot.state().altered_relations) == {STOCK}
