"""When dbt may begin with the longest path: only where all reads and writes are known to be in the graph."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from dagster_sao.core.build_order import seconds_of_builds
from dagster_sao.core.code.evidence import UNSEEN, Evidence, TracedReads
from tests.core.graphs import World, graph

WATCHED = Evidence(TracedReads({"var: x": ""}))


@pytest.fixture
def world():
    """A project in which dbt was watched while everything was built and tested; `b` took three seconds."""
    world = World(graph("raw.orders >> a >> b; seed:s >> a; raw.orders >> python:p; raw.orders >> incremental:i"))
    world.add_test("of_a", "a")
    world.add_test("unit", "b", unit=True)
    world.evidence = dict.fromkeys([*world.graph.nodes, "of_a"], WATCHED)
    world.build()
    build = world.builds["b"]
    world.builds["b"] = replace(build, ended_at=build.started_at + timedelta(seconds=3))
    return world


def seconds(world, nodes=("s", "a", "b", "i"), tests=("of_a", "unit")):
    return seconds_of_builds(world.project, world.state, nodes, tests)


def test_the_last_durations_are_the_predicted_ones(world):
    assert seconds(world) == {"s": 0.0, "a": 0.0, "b": 3.0, "i": 0.0}


def test_new_data_leaves_the_order_to_the_durations(world):
    world.load("raw.orders")
    assert seconds(world)["b"] == 3.0


def seen(evidence):
    return lambda world: world.builds.update(a=replace(world.builds["a"], evidence=evidence))


@pytest.mark.parametrize(
    "happen",
    [
        pytest.param(lambda world: world.builds.pop("a"), id="never built"),
        pytest.param(lambda world: world.edit("a"), id="other code"),
        pytest.param(lambda world: world.values.update({"var: x": "2"}), id="another value of what was read"),
        pytest.param(lambda world: world.edit("of_a"), id="another test"),
        pytest.param(lambda world: world.verdicts.pop("of_a"), id="a test that never ran"),
        pytest.param(seen(UNSEEN), id="nobody watched"),
        pytest.param(seen(replace(WATCHED, untracked=("db.main.hidden",))), id="a relation without ref"),
        pytest.param(seen(Evidence(TracedReads({}, follows_state=True))), id="another path the next time"),
        pytest.param(seen(Evidence(TracedReads({}, asks_rows=True))), id="a path that follows the parents' rows"),
    ],
)
def test_dbt_keeps_its_order_where_a_read_may_be_unknown(world, happen):
    happen(world)
    assert seconds(world) == {}


@pytest.mark.parametrize("part", ["config: pre-hook", "config: post-hook", "macro: materialization_table_default"])
def test_dbt_keeps_its_order_where_something_may_write_elsewhere(world, part):
    parts = {**world.fingerprints["a"].parts, part: "1"}
    world.fingerprints["a"] = replace(world.fingerprints["a"], parts=parts)
    world.builds["a"] = replace(world.builds["a"], fingerprint=world.fingerprints["a"])
    assert seconds(world) == {}


def test_dbt_keeps_its_order_beside_a_python_model(world):
    assert seconds(world, nodes=("a", "p")) == {}
