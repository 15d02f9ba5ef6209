"""After the clock was set back by more than a wait, the wait is over: nothing waits until the clock is where it was."""

from __future__ import annotations

from datetime import timedelta

import pytest

from dagster_sao.core.decision.decide import Reason
from dagster_sao.core.decision.plan import Mode
from dagster_sao.core.decision.run_ledger import Ledger
from dagster_sao.core.sources_worth_asking import wanted_sources
from dagster_sao.core.state.state import VerdictStatus
from tests.core.graphs import World, graph

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def shop():
    """Return a shop that was built once, a moment ago."""
    shop = World(graph("src.raw >> orders"))
    shop.add_test("ids", "orders")
    shop.build()
    return shop


def reason_of(shop):
    return shop.decision("orders", mode=Mode.SENSOR).reason


@pytest.mark.parametrize("back", [MINUTE, HOUR, DAY])
def test_new_data_is_built_without_a_setting(shop, back):
    shop.now -= back
    shop.load("src.raw")
    assert reason_of(shop) is Reason.NEW_DATA


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"build_after": HOUR}, Reason.TOO_SOON),
        ({"lag_tolerance": HOUR}, Reason.TOO_SOON),
    ],
)
def test_new_data_waits_no_longer_than_the_setting_says(shop, settings, reason):
    shop.ask("orders", **settings)
    shop.load("src.raw")
    shop.now -= HOUR / 2
    assert reason_of(shop) is reason
    shop.now -= DAY
    assert reason_of(shop) is Reason.NEW_DATA
    assert wanted_sources(shop.project, shop.state, shop.now) == {"src.raw"}


def test_a_model_that_expires_is_built(shop):
    shop.ask("orders", rebuild_every=HOUR)
    shop.now -= DAY
    assert reason_of(shop) is Reason.EXPIRED


def test_a_source_that_moved_while_it_was_read_again_and_again_is_read_again(shop):
    for _ in range(3):
        ledger = Ledger(shop.project, shop.state)
        ledger.moved(["src.raw"])
        shop.builds["orders"] = ledger.record("orders", started_at=shop.now, ended_at=shop.now, run_id="run x")
    assert reason_of(shop) is Reason.NO_NEW_DATA
    shop.now -= DAY
    assert reason_of(shop) is Reason.NEW_DATA


def test_a_failing_test_is_tried_again(shop):
    shop.answers["ids"] = VerdictStatus.FAIL
    shop.load("src.raw")
    shop.build()
    assert not shop.plan(mode=Mode.SENSOR).test_runs
    shop.now -= DAY
    assert shop.plan(mode=Mode.SENSOR).test_runs == ["ids"]
