"""Random histories against real dbt, DuckDB and Dagster: whatever happens, what must never happen does not.

A failure prints the history. Paste it into `regressions.py`, and it is replayed from then on.
"""

from __future__ import annotations

import pytest

from tests.histories.living import live, live_random_histories
from tests.histories.regressions import OF_KINDS, REGRESSIONS
from tests.histories.steps import histories

FEW, MANY, SHARDS = 2, 5, 20

AT_EACH_CHANGE = {
    "dbt dies in the midst of a build",
    "new rows pass through views",
}
"""What a developer's suite replays."""

OFTEN = {promise for promise in REGRESSIONS if not any(promise in known for known in OF_KINDS.values())}
"""What CI replays: of each kind of thing that a build reads, one history is enough."""
OFTEN |= {next(iter(known)) for known in OF_KINDS.values()}
OFTEN -= {
    "a broken model is left alone for longer and longer",
    "a build ends a failure from before the clock was set back",
    "a child that was built by hand on rows that failed a test follows their repair",
    "a failure counts though the clock was set back since the build before",
    "a run that dies is not repeated at once for what it built itself",
    "a test that is edited there and back shows its own answer",
    "a verdict outlives its run",
    "code that was built but not recorded is taken back after its run is deleted",
    "code whose test failed is taken back",
    "files that are newer than the manifest are no change at every look",
    "what a run by hand was interrupted in is built",
    "what a run is building is not asked for again",
}
"""Others of these are like them."""


def marks(promise):
    if promise in AT_EACH_CHANGE:
        return ()
    return pytest.mark.slow if promise in OFTEN else (pytest.mark.slow, pytest.mark.rare)


@pytest.mark.parametrize("promise", [pytest.param(promise, marks=marks(promise)) for promise in REGRESSIONS])
def test_known_histories_keep_every_promise(shop, promise):
    live(shop, REGRESSIONS[promise])


def test_a_few_random_histories_keep_every_promise(shop):
    live_random_histories(shop, histories, FEW)


@pytest.mark.slow
@pytest.mark.parametrize("shard", [0, *(pytest.param(shard, marks=pytest.mark.rare) for shard in range(1, SHARDS))])
def test_many_random_histories_keep_every_promise(shop, shard):
    live_random_histories(shop, histories, MANY, shard=shard)
