"""Random histories on a real PostgreSQL server: no update is missed, and views can be read after each run."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.histories.kinds import BOUND_COLUMNS, FUNCTIONS, MATERIALIZED_VIEWS, VIEWS
from tests.histories.living import live, live_random_histories
from tests.histories.postgres_world import Works, postgres_histories
from tests.histories.steps import History

MANY, SHARDS = 3, 14
pytestmark = pytest.mark.slow

KNOWN: dict[str, History] = {
    "views follow a table that is rebuilt": [("statement", "insert into raw.orders values ({id}, {id})"), ("cycle",)],
    "views follow a source that gains a column": [
        ("statement", "alter table raw.orders add column more_{id} int default {id}"),
        ("cycle",),
    ],
    "views on views follow a table that is rebuilt by hand": [("materialize", ["t_orders"]), ("cycle",)],
    "a truncated table is a change": [("statement", "truncate raw.orders"), ("cycle",)],
    "a partition that comes and goes is a change": [("partition",), ("cycle",), ("partition",), ("cycle",)],
    "counters that a crash resets hide nothing": [
        ("statement", "insert into raw.orders values ({id}, {id})"),
        ("restart server", "immediate"),
        ("cycle",),
        ("kill backend",),
        ("cycle",),
    ],
    "a table that is dropped is built again with its views": [("lose", "t_orders"), ("cycle",)],
    "rows that were altered by hand are replaced": [
        ("advance", 6),
        ("freshness",),
        ("alter",),
        ("advance", 6),
        ("cycle",),
    ],
}
OF_KINDS: Mapping[str, Mapping[str, History]] = {
    FUNCTIONS: {"the body of a function is code of what calls it": [("edit function",), ("cycle",)]},
    f"{VIEWS}, on PostgreSQL": {
        "a view that somebody replaced is created anew": [("replace view", "v_orders"), ("materialize", ["t_orders"])],
        "what was built from a replaced view before it was noticed is built again": [
            ("replace view", "v_orders"),
            ("restart server", "immediate"),
            ("cycle",),
        ],
    },
    MATERIALIZED_VIEWS: {"other SQL replaces a materialized view": [("edit materialized view",), ("cycle",)]},
    f"{BOUND_COLUMNS}, on PostgreSQL": {"a view with a star follows a new column": [("add column",), ("cycle",)]},
}
KNOWN.update({promise: history for known in OF_KINDS.values() for promise, history in known.items()})


@pytest.fixture(scope="session")
def works(tmp_path_factory, postgres_server):
    return Works(tmp_path_factory.mktemp("works").resolve(), postgres_server)


@pytest.mark.parametrize("promise", KNOWN)
def test_known_histories_keep_every_promise_on_postgres(works, promise):
    live(works, KNOWN[promise])


@pytest.mark.parametrize("shard", [0, *(pytest.param(shard, marks=pytest.mark.rare) for shard in range(1, SHARDS))])
def test_many_random_histories_keep_every_promise_on_postgres(works, shard):
    live_random_histories(works, postgres_histories, MANY, shard=shard)
