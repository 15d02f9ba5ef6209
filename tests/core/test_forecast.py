"""What a plan is predicted to cost: by hand for small projects, and properties of every forecast."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagster_sao.core.decision.decide import Action, Decision, Reason
from dagster_sao.core.decision.plan import Plan
from dagster_sao.core.decision.plan_tests import TestDecisions
from dagster_sao.core.forecast import make_forecast
from dagster_sao.core.manifest.graph import ProjectGraph
from dagster_sao.core.state.state import LastBuild, StateSnapshot
from tests.core.graphs import START, _node, code, graph

QUICK = settings(max_examples=200, deadline=None)


def took(seconds):
    return LastBuild(START, START + timedelta(seconds=seconds), code(), {}, "v", "run")


def plan_of(project, actions):
    """Return a plan in which every node is built that `actions` says nothing else of."""
    decided = {n: Decision(actions.get(n, Action.BUILD), Reason.NEW_DATA, "") for n in project.nodes}
    return Plan(decided, {}, project, TestDecisions({}, {}, START))


def forecast_of(arrows, seconds, threads=1, *, longest_first=False, **actions):
    states = StateSnapshot(builds={name: took(s) for name, s in seconds.items()})
    plan = plan_of(graph(arrows), {name: Action(action) for name, action in actions.items()})
    return make_forecast(plan, states, threads, longest_first=longest_first)


@pytest.mark.parametrize(
    ("arrows", "threads", "wall", "critical"),
    [
        pytest.param("src.raw >> a", 1, 1, 1, id="one node"),
        pytest.param("src.raw >> a >> b >> c", 4, 7, 7, id="a chain cannot be shortened"),
        pytest.param("src.raw >> a, b, c", 1, 7, 4, id="one thread needs the sum"),
        pytest.param("src.raw >> a, b, c", 3, 4, 4, id="a thread for each needs the longest"),
        pytest.param("src.raw >> a, b, c", 2, 5, 4, id="two threads for three nodes"),
        pytest.param("src.raw >> a >> c; src.raw >> b", 2, 5, 5, id="a branch beside a chain"),
        pytest.param("src.raw >> a, b >> c", 2, 6, 6, id="a join waits for the slowest"),
    ],
)
def test_the_predicted_time_is_that_of_the_threads(arrows, threads, wall, critical):
    found = forecast_of(arrows, {"a": 1, "b": 2, "c": 4}, threads)
    assert (found.wall_seconds, found.critical_path_seconds) == (wall, critical)


@pytest.mark.parametrize(("longest_first", "wall"), [(False, 12), (True, 8)])
def test_a_long_chain_beside_short_models_ends_earlier_if_it_is_begun_first(longest_first, wall):
    seconds = {**dict.fromkeys("abcd", 2), "x": 4, "y": 4}
    found = forecast_of("src.raw >> a, b, c, d, x; x >> y", seconds, 2, longest_first=longest_first)
    assert (found.wall_seconds, found.critical_path_seconds) == (wall, 8)


def test_order_holds_through_what_is_reused():
    found = forecast_of("src.raw >> a >> b >> c", {"a": 1, "b": 2, "c": 4}, 4, b="reuse")
    assert (found.wall_seconds, found.critical_path_seconds, found.total_seconds) == (5, 5, 5)


def test_a_node_never_built_takes_the_median_and_is_counted_as_a_guess():
    found = forecast_of("src.raw >> a, b, c, new, newer", {"a": 1, "b": 3, "c": 100}, b="reuse")
    assert found.node_seconds == {"a": 1, "c": 100, "new": 3, "newer": 3}
    assert found.guessed == {"new", "newer"}


def test_a_project_never_built_takes_an_unknown_time():
    found = forecast_of("src.raw >> a >> b", {}, 2)
    assert (found.wall_seconds, found.parallelism, found.guessed) == (0, 0, {"a", "b"})


def test_reuse_saves_what_the_last_builds_took():
    found = forecast_of("src.raw >> a >> b, c, d", {"a": 1, "b": 2, "c": 4, "d": 8}, a="reuse", b="reuse", d="hold")
    assert found.saved_seconds == 3


def test_nothing_to_build_takes_no_time():
    found = forecast_of("src.raw >> a", {"a": 5}, a="reuse")
    assert (found.wall_seconds, found.total_seconds, found.widest_wave, found.parallelism) == (0, 0, 0, 0)
    assert found.saved_seconds == 5


def test_parallelism_is_told_by_the_widest_wave_and_the_critical_path():
    found = forecast_of("src.raw >> a >> b, c, d", {"a": 1, "b": 1, "c": 1, "d": 1}, 2)
    assert (found.widest_wave, found.parallelism) == (3, 2)


def test_what_the_manifest_no_longer_has_is_no_measure():
    assert forecast_of("src.raw >> a", {"gone": 100}).node_seconds == {"a": 0}


def test_a_clock_that_was_set_back_gives_no_negative_time():
    assert forecast_of("src.raw >> a", {"a": -5}).wall_seconds == 0


@pytest.mark.parametrize("threads", [0, -1])
def test_there_is_at_least_one_thread(threads):
    with pytest.raises(ValueError, match="at least one thread"):
        forecast_of("src.raw >> a", {}, threads)


@st.composite
def plans(draw):
    """A project, which of its nodes are built, and how long some took: whole seconds, so that sums are exact."""
    names = [f"n{i}" for i in range(draw(st.integers(1, 12)))]
    nodes = {}
    for index, name in enumerate(names):
        parents = draw(st.lists(st.sampled_from(names[:index]), max_size=3, unique=True)) if index else []
        nodes[name] = _node(name, draw(st.sampled_from(["table", "view"])), tuple(parents))
    actions = {n: draw(st.sampled_from([Action.BUILD, Action.BUILD, Action.REUSE, Action.SKIP])) for n in names}
    known = draw(st.sets(st.sampled_from(names)))
    state = StateSnapshot(builds={n: took(draw(st.integers(0, 100))) for n in sorted(known)})
    return plan_of(ProjectGraph("shop", "duckdb", nodes, {}), actions), state


@QUICK
@given(plans(), st.integers(1, 6))
def test_the_time_is_between_the_critical_path_and_the_sum(drawn, threads):
    found = make_forecast(*drawn, threads)
    assert found.critical_path_seconds <= found.wall_seconds <= found.total_seconds
    assert found.wall_seconds >= found.total_seconds / threads - 1e-9


@QUICK
@given(plans(), st.integers(1, 6))
def test_no_thread_idles_while_a_node_could_be_built(drawn, threads):
    """Graham's bound, which holds for every schedule that leaves no thread idle."""
    found = make_forecast(*drawn, threads)
    bound = found.total_seconds / threads + found.critical_path_seconds * (1 - 1 / threads)
    assert found.wall_seconds <= bound + 1e-9


@QUICK
@given(plans())
def test_the_extremes_are_the_sum_and_the_critical_path(drawn):
    plan, _ = drawn
    one, enough = make_forecast(*drawn, 1), make_forecast(*drawn, len(plan.graph.nodes))
    assert one.wall_seconds == one.total_seconds
    assert enough.wall_seconds == enough.critical_path_seconds


@QUICK
@given(plans(), st.integers(1, 6))
def test_every_node_to_build_is_told_of_once_and_nothing_else_is(drawn, threads):
    plan, state = drawn
    found = make_forecast(plan, state, threads)
    assert list(found.node_seconds) == plan.builds
    assert found.guessed == set(plan.builds) - set(state.builds)
    assert found.widest_wave <= len(plan.builds)
