"""New data leads to a run in the tick that finds it: the two sensors of a project share the probing."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone

import dagster as dg
import pytest
from dagster_dbt import DbtProject

from dagster_sao import build_state_aware_definitions
from dagster_sao.orchestration import clock
from dagster_sao.orchestration.sources.probing_turns import ProbingTurns
from tests.support.corner_shop import open_shop

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


def at(seconds):
    return NOW + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("every", "ticks", "probes"),
    [
        # The freshness sensor alone.
        (30, [("freshness", 0), ("freshness", 30)], ["freshness 0", "freshness 30"]),
        # Only the automation sensor is on: nobody probes, as sources are not to be probed.
        (30, [("plan", 0), ("plan", 30)], []),
        # Both: the first look is the freshness sensor's, all others are the automation sensor's.
        (
            30,
            [("freshness", 0), ("plan", 1), ("freshness", 30), ("plan", 31), ("freshness", 60), ("plan", 61)],
            ["freshness 0", "plan 1", "plan 31", "plan 61"],
        ),
        # It plans more often than sources are to be probed.
        (10, [("freshness", 0), ("plan", 5), ("plan", 15), ("plan", 25), ("freshness", 30)], ["freshness 0", "plan 25"]),
        # It plans too seldom to probe for both, and probes beside the other, so that it plans with what is new.
        (90, [("freshness", 0), ("plan", 1), ("freshness", 30)], ["freshness 0", "plan 1", "freshness 30"]),
        # The automation sensor is switched off.
        (30, [("freshness", 0), ("plan", 1), ("freshness", 30), ("freshness", 61)], ["freshness 0", "plan 1", "freshness 61"]),
        # The clock was set back by a day: nobody waits for it to be where it was.
        (30, [("freshness", 86400), ("plan", 86401), ("freshness", 0), ("plan", 1), ("freshness", 30)], ["freshness 86400", "plan 86401", "freshness 0", "plan 1"]),
        (30, [("freshness", 86400), ("plan", 86401), ("plan", 1), ("freshness", 30), ("plan", 31)], ["freshness 86400", "plan 86401", "freshness 30", "plan 31"]),
        # The freshness sensor is switched off.
        (30, [("freshness", 0), ("plan", 1), ("plan", 89), ("plan", 91)], ["freshness 0", "plan 1", "plan 89"]),
    ],
)  # fmt: skip
def test_sources_are_probed_as_often_as_asked_and_by_the_sensor_that_plans_where_it_can(every, ticks, probes):
    turns = ProbingTurns(timedelta(seconds=30))
    found = []
    for sensor, second in ticks:
        is_turn = (
            turns.is_freshness_turn(at(second))
            if sensor == "freshness"
            else turns.is_planner_turn(at(second), timedelta(seconds=every))
        )
        if is_turn:
            turns.probed_at = at(second)
            found.append(f"{sensor} {second}")
    assert found == probes


@pytest.fixture
def tick(tmp_path, monkeypatch):
    """Let a sensor tick in the process of a code server, and report its events as the daemon does."""
    shop = open_shop(tmp_path)
    for name, value in shop.environment.items():
        monkeypatch.setenv(name, value)
    definitions = build_state_aware_definitions(DbtProject(shop.project_dir))
    repository = definitions.get_repository_def()
    seconds = 0

    with shop.instance() as instance:

        def run(name):
            nonlocal seconds
            seconds += 15
            sensor = next(one for one in definitions.sensors if name in one.name)
            context = dg.build_sensor_context(instance=instance, repository_def=repository)
            monkeypatch.setattr(context, "_instance_ref", instance.get_ref())
            with clock.simulated(lambda: time.time_ns() + seconds * 10**9):
                result = sensor.evaluate_tick(context)
            for event in result.asset_events:
                instance.report_runless_asset_event(event)
            asked = {key.path[-1] for request in result.run_requests for key in request.asset_selection}
            return result.skip_message or "", asked

        run.shop = shop
        yield run


def test_the_tick_that_finds_new_data_requests_the_run_and_the_freshness_sensor_shows_it(tick):
    assert tick("freshness")[0] == "1 of 1 sources have new data: raw.orders."
    assert "orders" in tick("automation")[1]
    assert tick("freshness")[0] == "0 of 1 sources have new data."
    tick.shop.load_orders(2, 2)
    assert "orders" in tick("automation")[1]
    assert tick("freshness")[0] == "1 of 1 sources have new data: raw.orders."
    tick.shop.database.rename(tick.shop.database.with_suffix(".away"))
    # What could not be probed stops no plan.
    assert "orders" in tick("automation")[1]
    assert tick("freshness")[0] == "0 of 1 sources have new data; 1 failing: raw.orders."
