"""Views that are not there: they are created if all that they read is there, whatever failed above them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_sao.core.decision.decide import Action, Reason, Request
from dagster_sao.core.decision.planner import make_run_plan
from dagster_sao.core.decision.view_rules import is_dropped
from dagster_sao.core.state.state import VerdictStatus
from tests.core.decision.test_plan_properties import LONG, QUICK, Contents, everything_built, settle
from tests.core.graphs import World, graph

TWO_PARENTS = "src.a >> big ; src.b >> small ; big, small >> view:both >> view:top ; both >> total"
VIEWS_ON_VIEWS = "src.a >> big >> view:v ; src.b >> small ; v, small >> view:both, matview:m >> view:x ; both >> total"


class Catalog:
    """The relations that a PostgreSQL server would list."""

    def __init__(self):
        self._there = set()

    def built(self, world, node):
        if world.builds[node].replaced_in == f"run {world.runs}":
            self._there -= self._views_on(world, node)
        self._there.add(node)

    def _views_on(self, world, node):
        found = set()
        for name, other in world.graph.nodes.items():
            if is_dropped(name, world.graph) and not {node, *found}.isdisjoint(other.parents):
                found.add(name)
        return found

    def broke(self, node):
        """PostgreSQL keeps the relation of a build that failed."""

    def answer(self, world, test):
        return world.answers.get(test.unique_id, VerdictStatus.PASS)

    def lost(self, world):
        """Return the views that are not there, though all that they read is."""
        there = {*self._there, *world.graph.sources} - world.missing
        views = (world.graph.nodes[uid] for uid in world.builds if world.graph.nodes[uid].is_view)
        return {view.unique_id for view in views if view.unique_id not in there and there.issuperset(view.parents)}


def run_plan(world, *selection, asked=False):
    requests = dict.fromkeys(selection, Request.BUILD) if asked else {}
    return make_run_plan(world.project, world.state, now=world.now, selection=selection, requests=requests)


def failed(world, node):
    world.build()
    world.load("src.b")
    world.apply(world.plan(), failing=[node])


def interrupted(world, node):
    world.build()
    world.interrupt(node)


@pytest.mark.parametrize("befalls", [failed, interrupted])
def test_a_run_creates_the_views_that_it_drops_though_something_else_that_they_read_failed(befalls):
    world = World(graph(TWO_PARENTS, "postgres"))
    befalls(world, "small")
    world.load("src.a")
    plan = run_plan(world, "big")
    assert plan.builds == ["big", "both", "top"]
    assert (plan.decisions["both"].reason, plan.decisions["both"].is_restored) == (Reason.VIEW_INVALIDATED, True)
    # What stores rows waits for the parent that failed, also in the run that creates the view.
    plan = run_plan(world, "big", "total")
    assert plan.builds == ["big", "both", "top"]
    assert plan.decisions["total"].message == "Upstream failed: small"


def test_what_is_built_from_a_view_that_was_created_on_a_failure_is_built_again_after_it():
    """The view consumed no known version, and no more did those who asked for what reads it."""
    world = World(graph(TWO_PARENTS, "postgres"))
    interrupted(world, "small")
    world.load("src.a")
    world.apply(run_plan(world, "big"))
    world.build(selection=["small"])
    assert world.plan().builds == ["both", "top", "total"]


def test_a_view_that_a_run_finds_dropped_when_it_comes_to_it_is_created():
    """The run waited for another one, which was creating the view, and was killed with one of its parents half built."""
    world = World(graph(TWO_PARENTS, "postgres"))
    world.build()
    world.load("src.a")
    world.apply(world.plan(selection=["big"]))
    world.interrupt("small")
    assert run_plan(world, "both").builds == ["both", "top"]


def test_a_run_creates_the_views_that_it_drops_from_their_new_code():
    world = World(graph(TWO_PARENTS, "postgres"))
    world.build()
    world.load("src.a")
    world.edit("both")
    plan = run_plan(world, "big")
    assert plan.builds == ["big", "both", "top"]
    assert plan.decisions["both"].message == "Code changed: sql"
    # A view that stays keeps its old code until a run selects it.
    world.edit("top")
    assert run_plan(world, "small").builds == []


def test_a_run_does_not_create_a_view_that_reads_what_is_not_there():
    world = World(graph("src.a >> big ; src.b >> small ; big, small >> view:both", "postgres"))
    failed(world, "small")
    world.missing.add("small")
    world.load("src.a")
    assert run_plan(world, "big").builds == ["big"]


def live(draw, warehouse):
    """Return a project on PostgreSQL with a random past, in which builds failed and were interrupted."""
    world = World(graph(draw(st.sampled_from([TWO_PARENTS, VIEWS_ON_VIEWS])), "postgres"), warehouse=warehouse)
    world.add_test("ids", "small")
    world.build()
    for _ in range(draw(st.integers(1, 6))):
        for source in draw(st.sets(st.sampled_from(["src.a", "src.b"]))):
            world.load(source)
        some = draw(st.sets(st.sampled_from(list(world.graph.nodes)), max_size=2))
        event = draw(st.sampled_from(["fail", "interrupt", "drop", "edit", "break", "mend", "wait", "hand", "nothing"]))
        if event == "interrupt":
            for node in some & {"big", "small"}:
                world.interrupt(node)
                warehouse.broke(node)
        elif event == "drop":
            world.missing |= some
        elif event == "edit":
            world.edit(draw(st.sampled_from(list(world.graph.nodes))))
        elif event == "break":
            world.answers["ids"] = VerdictStatus.FAIL
        elif event == "mend":
            world.answers.clear()
        elif event == "wait":
            world.now += timedelta(minutes=6)
        elif event == "hand":
            world.apply(run_plan(world, *some, asked=True))
        if draw(st.booleans()):
            plan, failing = world.plan(), some if event == "fail" else set()
            world.apply(plan, failing=failing)
            for node in failing & set(plan.builds) & world.failures.keys():
                warehouse.broke(node)
        else:
            world.apply(run_plan(world, draw(st.sampled_from(["big", "small", "both", "total"]))))
    return world


def check_no_view_stays_lost(draw):
    world = live(draw, Catalog())
    while world.build():
        pass
    plan = world.plan()
    for view in world.warehouse.lost(world):
        # It could not be created itself: it waits.
        assert (view, plan.decisions[view].action) == (view, Action.HOLD)
        assert view in world.failures


@QUICK
@given(st.data())
def test_no_view_stays_lost_whatever_fails(data):
    check_no_view_stays_lost(data.draw)


@pytest.mark.slow
@LONG
@given(st.data())
def test_no_view_stays_lost_in_many_histories(data):
    check_no_view_stays_lost(data.draw)


class Rows(Contents):
    """What relations hold: a build that fails or is interrupted leaves anything in the place of stored rows."""

    def __init__(self):
        super().__init__()
        self._broken = 0

    def broke(self, node):
        if node in {"big", "small", "total", "m"}:
            self._broken += 1
            self.held[node] = f"half built {self._broken}"

    def answer(self, world, test):
        return world.answers.get(test.unique_id, VerdictStatus.PASS)


def check_nothing_keeps_what_a_failure_left(draw):
    world = live(draw, Rows())
    settle(world)
    expected, _ = everything_built(world)
    assert {name: world.warehouse.content(world, name) for name in world.graph.nodes} == expected


@QUICK
@given(st.data())
def test_nothing_keeps_what_a_failure_left_in_a_view(data):
    check_nothing_keeps_what_a_failure_left(data.draw)


@pytest.mark.slow
@LONG
@given(st.data())
def test_nothing_keeps_what_a_failure_left_in_a_view_in_many_histories(data):
    check_nothing_keeps_what_a_failure_left(data.draw)
