"""Which sources are worth probing."""

from __future__ import annotations

from datetime import timedelta

import pytest

from dagster_sao.core.code.evidence import Evidence, TracedReads
from dagster_sao.core.sources_worth_asking import wanted_sources
from tests.core.graphs import World, graph

HOUR = timedelta(hours=1)


@pytest.fixture
def world():
    """raw.a is read by one model that waits for an hour and by another that does not; raw.b only by the first."""
    world = World(graph("src.a >> waiting; src.b >> view:stg >> waiting; src.a >> eager; src.c >> view:alone"))
    world.ask("waiting", build_after=HOUR)
    return world


def wanted(world):
    return wanted_sources(world.project, world.state, world.now)


def test_everything_is_asked_for_what_was_never_built(world):
    assert wanted(world) == {"src.a", "src.b", "src.c"}


def test_a_source_is_not_asked_while_all_that_reads_it_waits(world):
    world.build()
    assert wanted(world) == {"src.a", "src.c"}


def test_it_is_asked_again_when_the_window_is_over(world):
    world.build()
    world.now += HOUR
    assert "src.b" in wanted(world)


def test_what_failed_is_asked_for_since_new_data_ends_the_wait(world):
    world.build()
    world.interrupt("waiting")
    assert "src.b" in wanted(world)


def test_what_is_below_a_model_that_waits_asks_for_nothing():
    world = World(graph("src.a >> waiting >> report"))
    world.ask("waiting", build_after=HOUR)
    world.build()
    assert wanted(world) == set()


def test_lag_tolerance_needs_to_know_of_the_first_change():
    world = World(graph("src.a >> lagging"))
    world.ask("lagging", lag_tolerance=HOUR)
    world.build()
    assert wanted(world) == {"src.a"}


def test_a_view_that_is_made_from_rows_asks_for_itself(world):
    world.evidence["stg"] = Evidence(TracedReads({}, asks_rows=True))
    world.build()
    assert "src.b" in wanted(world)
