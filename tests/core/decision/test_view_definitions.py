"""A view that is created with other SQL from the same code: what reads it may have read other rows."""

from __future__ import annotations

import pytest

from dagster_sao.core.code.evidence import Evidence
from dagster_sao.core.decision.decide import Action, Request
from dagster_sao.core.decision.run_ledger import Ledger
from tests.core.graphs import World, graph


@pytest.mark.parametrize(
    ("before", "now", "is_another"),
    [("select 1", "select 2", True), ("select 1", "select 1", False), ("", "select 2", False), ("select 1", "", False)],
    ids=["other", "same", "first known", "unknown"],
)
def test_what_reads_a_view_with_other_sql_is_built_again(before, now, is_another):
    shop = World(graph("src.raw >> view:v >> view:w >> t"))
    for sql in (before, now):
        shop.build()
        created = Evidence(is_deterministic=True, definition=sql)
        ledger = Ledger(shop.project, shop.state)
        shop.builds["v"] = ledger.record("v", started_at=shop.now, ended_at=shop.now, run_id="run", evidence=created)
    assert (shop.decision("t").action is Action.BUILD) is is_another
    shop.build()
    assert shop.build() == []


def table_of_another_run(*, then=lambda shop: None):
    """Return a project on PostgreSQL in which a run looked, another one built the table `t`, and the first its view `v`."""
    shop = World(graph("src.raw >> t >> view:v >> below", "postgres"))
    shop.build()
    shop.load("src.raw")
    shop.look()
    shop.build(selection=["t"], look=False)
    then(shop)
    shop.build(selection=["v", "below"], look=False)
    return shop


def test_a_view_on_the_table_of_another_run_is_not_created_twice():
    shop = table_of_another_run()
    assert shop.build() == []
    shop.columns["t"] = "others"
    assert shop.decision("v").message == "The columns of t changed"


def test_a_view_on_a_table_that_a_third_run_was_building_is_created_again():
    shop = table_of_another_run(then=lambda shop: shop.interrupt("t"))
    shop.failures.clear()
    shop.writers.clear()
    shop.look()
    assert "t" not in shop.builds["v"].columns


def test_what_was_built_from_a_view_on_other_columns_is_built_again_after_the_view():
    shop = World(graph("src.raw >> t >> view:v >> below"))
    shop.build()
    shop.look()
    shop.edit("t")
    shop.build(selection=["t"], look=False)
    shop.build(selection=["below"], requests={"below": Request.BUILD}, look=False)
    shop.build(selection=["v"], look=False)
    assert shop.build() == ["below"]
    assert shop.build() == []
