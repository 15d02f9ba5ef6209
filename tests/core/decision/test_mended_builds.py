"""What another project is told of a build: whether the relation may have held other rows before it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dagster_sao.core.decision.run_ledger import Ledger
from dagster_sao.core.state.state import FailedAttempt, StateSnapshot, Writer
from tests.core.graphs import DETERMINISTIC, START, World, graph

OTHER = Writer("other", "t", "run o", START)
UNKNOWN = {
    "failed": {"failures": {"t": FailedAttempt(START, 1)}},
    "altered": {"altered_relations": {"t": "1"}},
    "restored": {"restored_relations": frozenset({"t"})},
    "moved": {"moved_relations": frozenset({"t"})},
    "overwritten": {"writers": {"t": OTHER}},
    "never built": {"builds": {}},
}


@pytest.fixture
def shop():
    shop = World(graph("src.a >> t"))
    shop.build()
    return shop


def build(shop, state: StateSnapshot, run_id: str):
    return Ledger(shop.project, state).record(
        "t", started_at=START, ended_at=START, run_id=run_id, evidence=DETERMINISTIC
    )


@pytest.mark.parametrize("state", UNKNOWN.values(), ids=UNKNOWN)
def test_a_build_tells_from_then_on_that_it_mended_a_relation(shop, state):
    before = shop.state.builds["t"]
    mended = build(shop, replace(shop.state, **state), "run x")
    assert (mended.data_version, mended.mended_by) == (before.data_version, "run x")
    after = build(shop, replace(shop.state, builds={"t": mended}, writers={}), "run y")
    assert after.mended_by == "run x"


def test_a_build_of_known_rows_mends_nothing(shop):
    written = replace(OTHER, data_version=shop.state.builds["t"].data_version)
    again = build(shop, replace(shop.state, writers={"t": written}), "run x")
    assert again.mended_by == shop.state.builds["t"].mended_by
