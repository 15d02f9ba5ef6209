"""What a run of part of a project builds beside it: the views that it drops."""

from __future__ import annotations

import pytest

from dagster_sao.core.decision.decide import Request
from dagster_sao.core.decision.planner import make_run_plan
from dagster_sao.core.state.state import VerdictStatus
from tests.core.graphs import World, graph

ARROWS = "src.raw >> orders >> view:clean >> view:cleaner >> totals ; orders >> view:beside ; other >> view:alone"


@pytest.mark.parametrize(
    ("adapter", "selection", "expected"),
    [
        ("postgres", {"orders"}, ["orders", "beside", "clean", "cleaner"]),
        ("postgres", {"orders", "clean"}, ["orders", "beside", "clean", "cleaner"]),
        ("postgres", {"totals"}, ["totals"]),
        ("duckdb", {"orders"}, ["orders"]),
    ],
)
def test_a_table_that_is_built_by_hand_takes_the_views_along_that_it_drops(adapter, selection, expected):
    world = World(graph(ARROWS, adapter))
    world.apply(world.plan())
    plan = make_run_plan(
        world.project, world.state, now=world.now, selection=selection, requests=dict.fromkeys(selection, Request.BUILD)
    )
    assert sorted(plan.builds) == sorted(expected)
    assert set(plan.decisions) == set(expected)


def test_a_view_that_was_never_built_or_that_stays_is_not_taken_along():
    world = World(graph(ARROWS, "postgres"))
    world.apply(world.plan(selection=["raw", "orders", "clean"]))
    plan = make_run_plan(
        world.project, world.state, now=world.now, selection={"orders"}, requests={"orders": Request.BUILD}
    )
    assert plan.builds == ["orders", "clean"]
    unchanged = make_run_plan(world.project, world.state, now=world.now, selection={"orders"})
    assert unchanged.builds == []
    assert set(unchanged.decisions) == {"orders"}


def test_a_view_that_is_dropped_by_hand_is_taken_along_though_a_failing_test_gates_it():
    world = World(graph(ARROWS, "postgres"))
    world.add_test("ids", "src.raw")
    world.build()
    world.load("src.raw")
    world.answers["ids"] = VerdictStatus.FAIL
    world.build()
    asked = {"orders": Request.BUILD}
    plan = make_run_plan(world.project, world.state, now=world.now, selection={"orders"}, requests=asked)
    assert sorted(plan.builds) == ["beside", "clean", "cleaner", "orders"]
    assert make_run_plan(world.project, world.state, now=world.now, selection={"orders"}).builds == []
