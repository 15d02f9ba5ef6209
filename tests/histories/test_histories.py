"""Random histories against real dbt, DuckDB and Dagster: whatever happens, what must never happen does not.

A failure prints the history. Paste it into `regressions.py`, and it is replayed from then on.
"""

from __future__ import annotations

import pytest

from tests.histories.living import live, live_random_histories
from tests.histories.regressions import OF_KINDS, REGRESSIONS
from tests.histories.steps import histories

FEW, MANY, SHARDS = 4, 10, 10


OFTEN = {promise for promise in REGRESSIONS if not any(promise in known for known in OF_KINDS.values())}
"""What is replayed at each change: of each kind of thing that a build reads, one history is enough."""
OFTEN |= {next(iter(known)) for known in OF_KINDS.values()}


@pytest.mark.parametrize(
    "promise", [pytest.param(p, marks=() if p in OFTEN else pytest.mark.slow) for p in REGRESSIONS]
)
def test_known_histories_keep_every_promise(shop, promise):
    live(shop, REGRESSIONS[promise])


def test_a_few_random_histories_keep_every_promise(shop):
    live_random_histories(shop, histories, FEW)


@pytest.mark.slow
@pytest.mark.parametrize("shard", range(SHARDS))
def test_many_random_histories_keep_every_promise(shop, shard):
    live_random_histories(shop, histories, MANY, shard=shard)
