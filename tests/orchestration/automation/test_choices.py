"""Which nodes a tick requests, and which wait for a run: each rule as a line of a table. Reads no Dagster."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import pytest

from dagster_sao.core.decision.origins import origins
from dagster_sao.core.decision.planner import make_plan
from dagster_sao.core.state.state import FailedAttempt, FailureKind, StateSnapshot
from dagster_sao.orchestration.automation.choices import Facts, RequestedNodes, nothing_to_build
from dagster_sao.orchestration.state.run_activity import EndedRun, Reported, RunActivity
from tests.core.graphs import START, World, graph

MINUTE = timedelta(minutes=1)
SHOP = "src.raw >> view:stg >> orders, customers; orders >> report; src.other >> beside"
RUN = "0123456789"
BUILDING = "Run 01234567 is building it"
BELOW = "A run is building one of its upstreams"


@dataclass
class Tick:
    """One sensor over time: what each of its ticks chooses."""

    world: World = field(default_factory=lambda: World(graph(SHOP)))
    sensor: RequestedNodes = field(default_factory=RequestedNodes)
    wiped_at: dict[str, datetime] = field(default_factory=dict)
    state: StateSnapshot | None = None
    now: datetime = START
    reported: Mapping[str, Reported] = field(default_factory=lambda: defaultdict(Reported))

    def choose(self, *, building=(), ended=None):
        project, state = self.world.project, self.state or self.world.state
        activity = RunActivity(dict.fromkeys(building, RUN), {}, ended or {})
        plan = make_plan(project, state, now=self.now)
        facts = Facts(
            plan, state, activity, lambda: origins(project, state), self.wiped_at, self.now, self.reported.__getitem__
        )
        return self.sensor.choose(facts)

    def requested(self, **activity):
        return {uid for uid, choice in self.choose(**activity).items() if choice.requested}


def ran(uid="orders", *, run=RUN, ended_at=START):
    return {uid: EndedRun(ended_at - MINUTE, ended_at, run)}


ALL = {"stg", "orders", "customers", "report", "beside"}


@pytest.mark.parametrize(
    ("building", "requested", "waits"),
    [
        pytest.param([], ALL, {}, id="no run: all that is due"),
        pytest.param(["orders"], ALL - {"orders", "report"}, {"orders": BUILDING, "report": BELOW}, id="a run of one"),
        pytest.param(
            ["stg"],
            {"beside"},
            {"stg": BUILDING, "orders": BELOW, "customers": BELOW, "report": BELOW},
            id="a run of what is above",
        ),
        pytest.param(["report"], ALL - {"report"}, {"report": BUILDING}, id="a run of what is below"),
        pytest.param(["beside"], ALL - {"beside"}, {"beside": BUILDING}, id="a run of what is beside"),
        pytest.param(["gone"], ALL, {}, id="a run of what the project no longer has"),
    ],
)
def test_what_a_run_builds_and_what_is_below_it_waits_for_the_run(building, requested, waits):
    tick = Tick()
    building = [uid for uid in building if uid in tick.world.project.graph.nodes]
    choices = tick.choose(building=building)
    assert {uid for uid, choice in choices.items() if choice.requested} == requested
    assert {uid: choice.waits for uid, choice in choices.items() if choice.waits} == waits


@pytest.mark.parametrize(
    ("minutes", "is_requested"),
    [(0, False), (4, False), (5, True), (60, True), (-4, False), (-5, True)],
)
def test_a_node_that_its_run_left_without_a_record_is_requested_again_after_5_minutes(minutes, is_requested):
    tick = Tick()
    assert "orders" in tick.requested()
    tick.now = START + minutes * MINUTE
    assert tick.choose(ended=ran())["orders"].requested is is_requested


def test_the_wait_names_its_end_and_what_is_below_waits_too():
    tick = Tick()
    tick.requested()
    choices = tick.choose(ended=ran())
    assert choices["orders"].waits == "The last run for it ended without building it. Retries at 12:05:00 UTC"
    assert choices["report"].waits == "Waits for orders"


def test_the_wait_doubles_with_each_run_in_a_row_that_reports_nothing():
    tick, waits = Tick(), []
    tick.requested()
    for number in range(9):
        run = ran(run=str(number))
        minutes = 0
        while not tick.choose(ended=run)["orders"].requested:
            minutes += 5
            tick.now = START + minutes * MINUTE
        waits.append(minutes)
        tick.now = START
    assert waits == [5, 10, 20, 40, 80, 160, 320, 360, 360]


def test_a_run_that_is_no_longer_recent_still_holds_its_nodes():
    tick = Tick()
    tick.requested()
    tick.choose(ended=ran())
    assert not tick.choose()["orders"].requested
    tick.now = START + 5 * MINUTE
    assert tick.choose()["orders"].requested


def test_other_data_ends_the_wait():
    tick = Tick()
    tick.requested()
    tick.choose(ended=ran())
    tick.world.load("src.raw")
    assert tick.choose(ended=ran())["orders"].requested


@pytest.mark.parametrize(
    ("failed", "kind", "run", "is_answered"),
    [
        pytest.param("orders", FailureKind.BUILD, RUN, True, id="it failed in the run"),
        pytest.param("orders", FailureKind.LIMITED, RUN, True, id="the run built a part of it"),
        pytest.param("stg", FailureKind.BUILD, RUN, True, id="what is above it failed in the run"),
        pytest.param("orders", FailureKind.BUILD, "another", False, id="it failed in another run"),
        pytest.param("orders", FailureKind.INTERRUPTED, RUN, False, id="it was interrupted"),
        pytest.param("beside", FailureKind.BUILD, RUN, False, id="what is beside it failed"),
    ],
)
def test_a_failure_that_the_run_recorded_has_a_wait_of_its_own(failed, kind, run, is_answered):
    tick = Tick()
    tick.requested()
    failure = FailedAttempt(START, 1, "other code", kind=kind, run_id=run)
    tick.now = START + MINUTE
    tick.state = replace(tick.world.state, failures={failed: failure})
    waits = tick.choose(ended=ran())["orders"].waits
    assert waits.startswith("The last run for it") is not is_answered


@pytest.mark.parametrize(
    ("reported", "is_answered"),
    [
        pytest.param(Reported(built=frozenset({"orders"})), True, id="it built the node"),
        pytest.param(Reported(failed=frozenset({"orders"})), True, id="it failed at the node"),
        pytest.param(Reported(failed=frozenset({"stg"})), True, id="it failed above the node"),
        pytest.param(Reported(built=frozenset({"stg"}), failed=frozenset({"beside"})), False, id="it built others"),
    ],
)
def test_a_run_is_answered_by_what_it_reported_though_another_run_built_the_node_since(reported, is_answered):
    tick = Tick(reported={RUN: reported})
    tick.world.build()
    tick.world.edit("orders")
    # A code server that was started anew remembers no request.
    waits = tick.choose(ended=ran())["orders"].waits
    assert waits.startswith("The last run for it") is not is_answered


@pytest.mark.parametrize(
    ("wiped", "waits"),
    [(-2, True), (0, False), (1, False)],
    ids=["before the run", "in the run", "after the run"],
)
def test_who_wipes_the_history_of_a_node_after_its_run_asks_for_it_anew(wiped, waits):
    tick = Tick()
    tick.requested()
    tick.wiped_at["orders"] = START + wiped * MINUTE
    assert bool(tick.choose(ended=ran())["orders"].waits) is waits


def test_a_build_that_the_run_recorded_answers_it():
    tick = Tick()
    tick.requested()
    tick.world.build()
    built = tick.world.state.builds["orders"].run_id
    tick.world.load("src.raw")
    assert tick.choose(ended=ran(run=built))["orders"].requested


def test_a_quiet_tick_computes_no_origins():
    tick = Tick()
    tick.world.build()
    state = tick.world.state
    plan = make_plan(tick.world.project, state, now=START)
    facts = Facts(plan, state, RunActivity({}, {}, {}), lambda: pytest.fail("computed"), {}, START)
    assert not any(choice.requested for choice in RequestedNodes().choose(facts).values())


def test_a_tick_that_requests_nothing_counts_what_it_holds_back():
    tick = Tick()
    tick.requested()
    choices = tick.choose(building=["stg", "beside"])
    assert nothing_to_build(choices.values(), 0) == "0 of 5 models to build; 5 waiting for a run."
    assert nothing_to_build([], 2) == "0 of 0 models to build; 2 tests waiting for a run."
