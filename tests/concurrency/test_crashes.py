"""A run worker killed at a random point of a build: the state is never ahead of the warehouse, and the next run repairs."""

from __future__ import annotations

import os
import random
import time

import dagster as dg
import pytest

from tests.support import forty_models as shop
from tests.support.polling import wait_for
from tests.support.shop_worlds import DuckDBWorld, PostgresWorld

pytestmark = pytest.mark.slow

POINTS = int(os.environ.get("DAGSTER_SAO_CRASH_POINTS", "4"))
SEED = os.environ.get("DAGSTER_SAO_CONCURRENCY_SEED", "1")
RUN_SECONDS = 300


@pytest.fixture(scope="module", params=["duckdb", "postgres"])
def world(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("crashes")
    if request.param == "duckdb":
        world = DuckDBWorld(folder)
    else:
        world = PostgresWorld(folder, request.getfixturevalue("postgres_server"), "crashes")
    with world.instance:
        yield world


def recorded(world, worker):
    """Return the models whose build the worker's run recorded."""
    # Not the run's own log: on SQLite an event is there an instant before it is where the state is read from.
    events = world.instance.get_latest_materialization_events([dg.AssetKey(model) for model in shop.MODELS])
    return {key.path[-1] for key, event in events.items() if event and event.run_id == worker.run_id}


def wait_for_records(world, worker, count):
    """Return in the midst of the build, which start-up makes a small part of a run."""

    def is_there():
        return not worker.is_running or len(recorded(world, worker)) >= count

    wait_for(f"{count} builds to be recorded", is_there, seconds=RUN_SECONDS)


def test_a_run_that_is_killed_leaves_the_state_at_or_behind_the_warehouse(world):
    chance = random.Random(SEED)
    started = time.monotonic()
    world.start().finish(RUN_SECONDS)
    seconds, kills = time.monotonic() - started, 0
    for number in range(1, POINTS + 1):
        shop.load(world.ask, range(shop.SOURCES), number)
        # Two of four with each way to choose the moment.
        worker = world.start(forks_dbt=number % 4 in {1, 2})
        delay, group = chance.uniform(0, seconds), chance.random() < 0.5
        if number % 2:
            wait_for_records(world, worker, chance.randrange(1, len(shop.MODELS)))
        else:
            worker.process.join(delay)
        if worker.is_running:
            worker.kill(group=group)
            kills += 1
        world.bury(worker)

        kept = recorded(world, worker)
        print(f"point {number}: {'group' if group else 'worker'}, {len(kept)} recorded", flush=True)
        # Their inputs have not changed since, so a record that is not ahead has the rows of a full build.
        assert shop.differing(world.ask, kept) == []
        started = time.monotonic()
        repair = world.start()
        repair.finish(RUN_SECONDS)
        seconds = max(time.monotonic() - started, 5.0) if not kept else seconds
        assert shop.differing(world.ask, shop.MODELS) == []
        assert not recorded(world, repair) & kept
        if kept:
            # The next run found that the killed one gave no sign of life any more.
            assert world.instance.get_run_by_id(worker.run_id).is_finished
    shop.build_all(world.folder, "full")
    assert shop.differing(world.ask, shop.MODELS, "whole") == []
    print(f"{POINTS} points, {kills} kills")
