"""What a run records of data that moved while dbt read it: the ledger's rules, and what the next decision does."""

from __future__ import annotations

from datetime import timedelta

import pytest

from dagster_sao.core.code.versions import captured_version, times_moved
from dagster_sao.core.decision.decide import Action
from dagster_sao.core.decision.run_ledger import Ledger
from dagster_sao.core.manifest.policy import Policy
from dagster_sao.core.state.state import VerdictStatus
from tests.core.graphs import START, World, graph

ARROWS = "src.a >> view:v >> view:w >> t; src.a >> direct >> below; src.b >> other"
BELOW_A = {"t", "direct"}
"""The nodes that read `src.a` themselves or through views."""


@pytest.fixture
def shop():
    shop = World(graph(ARROWS))
    shop.build()
    return shop


def record(shop, node, *moved, ledger=None):
    ledger = ledger or Ledger(shop.project, shop.state)
    ledger.moved(moved)
    build = ledger.record(node, started_at=shop.now, ended_at=shop.now, run_id="run x")
    shop.builds[node] = build
    return build


@pytest.mark.parametrize("node", ["t", "direct", "below", "other"])
def test_only_what_reads_a_source_that_moved_is_built_again(shop, node):
    record(shop, node, "src.a")
    assert (shop.decision(node).action is Action.BUILD) == (node in BELOW_A)


def test_what_is_built_on_it_in_the_same_run_is_built_again_with_it(shop):
    ledger = Ledger(shop.project, shop.state)
    before = shop.builds["direct"].data_version
    record(shop, "direct", "src.a", ledger=ledger)
    record(shop, "below", ledger=ledger)
    assert shop.builds["direct"].data_version != before
    assert set(shop.build()) == {"direct", "below"}
    # The source stands still now, and the versions are what they would be without the accident.
    assert shop.builds["direct"].data_version == before
    assert shop.build() == []


def test_a_view_reads_nothing_when_it_is_created(shop):
    assert times_moved(record(shop, "v", "src.a").consumed["src.a"]) == 0


def test_a_version_that_moved_is_another_in_each_run(shop):
    first = record(shop, "direct", "src.a").consumed["src.a"]
    second = record(shop, "direct", "src.a").consumed["src.a"]
    captured = shop.state.sources["src.a"].version
    assert (captured_version(first), times_moved(first), times_moved(second)) == (captured, 1, 2)


def test_what_moves_under_each_build_is_built_at_once_and_then_later_and_later(shop):
    record(shop, "direct", "src.a")
    assert shop.decision("direct").action is Action.BUILD
    record(shop, "direct", "src.a")
    for minutes in (5, 10, 20):
        assert shop.decision("direct").action is Action.REUSE
        shop.now += timedelta(minutes=minutes, seconds=-1)
        assert shop.decision("direct").action is Action.REUSE
        shop.now += timedelta(seconds=1)
        assert shop.decision("direct").action is Action.BUILD
        record(shop, "direct", "src.a")
    shop.load("src.a", "2")  # what is new does not wait
    assert shop.decision("direct").action is Action.BUILD


def test_what_nobody_could_look_at_again_is_news_when_it_can_be(shop):
    ledger = Ledger(shop.project, shop.state)
    ledger.unknown({"src.a": "first moved in run x (1)"})
    for node in ("direct", "t"):
        record(shop, node, ledger=ledger)
    shop.load("src.a", "first moved in run x (1)")
    assert {shop.decision(node).action for node in BELOW_A} == {Action.REUSE}
    shop.load("src.a", "first")
    assert {shop.decision(node).action for node in BELOW_A} == {Action.BUILD}


@pytest.mark.parametrize(
    ("status", "is_marked"), [(VerdictStatus.PASS, True), (VerdictStatus.FAIL, True), (VerdictStatus.ERROR, False)]
)
def test_a_verdict_on_what_moved_stands_for_nothing(shop, status, is_marked):
    """One that could not be run is tried again after a while: a warehouse that is down moves everything."""
    shop.add_test("there", "w")
    test = shop.graph.tests["there"]
    ledger = Ledger(shop.project, shop.state)
    ledger.moved(["src.a"])
    verdict = ledger.verdict(test, status, at=START, run_id="run x")
    assert (times_moved(verdict.versions["w"]) == 1) == is_marked


def test_lag_is_counted_from_the_build_that_saw_it_move(shop):
    shop.policies["direct"] = Policy(lag_tolerance=timedelta(hours=1))
    record(shop, "direct", "src.a")
    assert shop.decision("direct").action is Action.REUSE
    shop.now += timedelta(hours=1)
    assert shop.decision("direct").action is Action.BUILD


@pytest.mark.parametrize(
    ("written", "node", "is_marked"),
    [
        ("direct", "below", True),
        ("direct", "t", False),
        ("w", "t", True),
        ("v", "t", True),  # through another view
        ("below", "below", False),
    ],
)
def test_what_reads_a_node_that_another_run_wrote_is_built_again(shop, written, node, is_marked):
    consumed = record(shop, node, written).consumed
    assert any(times_moved(version) for version in consumed.values()) is is_marked
    assert (shop.decision(node).action is Action.BUILD) is is_marked


def test_what_the_run_itself_builds_after_another_run_has_a_known_version(shop):
    ledger = Ledger(shop.project, shop.state)
    record(shop, "direct", "direct", ledger=ledger)
    assert not times_moved(record(shop, "below", ledger=ledger).consumed["direct"])
