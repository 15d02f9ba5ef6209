"""A run worker killed at a random point of a build: the state is never ahead of the warehouse, and the next run repairs."""

from __future__ import annotations

import os
import random
import time
from contextlib import closing

import dagster as dg
import duckdb
import pytest

from tests.support import forty_models as shop
from tests.support.polling import wait_for
from tests.support.run_worker import Worker

pytestmark = pytest.mark.slow

POINTS = int(os.environ.get("DAGSTER_SAO_CRASH_POINTS", "4"))
SEED = os.environ.get("DAGSTER_SAO_CONCURRENCY_SEED", "1")
RUN_SECONDS = 300


class World:
    """The project in DuckDB, and an instance on SQLite."""

    def __init__(self, folder):
        self.folder, self.home, self.database = folder / "shop", folder / "home", folder / "warehouse.duckdb"
        self.home.mkdir()
        (self.home / "dagster.yaml").write_text("telemetry: {enabled: false}")
        shop.create_sources(self.ask)
        shop.write_project(self.folder, "dev", f"type: duckdb, path: '{self.database}'")
        shop.build_all(self.folder, "truth")
        self.instance = dg.DagsterInstance.from_config(str(self.home))

    def ask(self, statement):
        with closing(duckdb.connect(str(self.database))) as connection:
            return connection.execute(statement).fetchall()

    def recorded(self, worker):
        """Return the models whose build the worker's run recorded."""
        # Not the run's own log: on SQLite an event is there an instant before it is where the state is read from.
        events = self.instance.get_latest_materialization_events([dg.AssetKey(model) for model in shop.MODELS])
        return {key.path[-1] for key, event in events.items() if event and event.run_id == worker.run_id}

    def wait_for_records(self, worker, count):
        """Return in the midst of the build, which start-up makes a small part of a run."""

        def is_there():
            return not worker.is_running or len(self.recorded(worker)) >= count

        wait_for(f"{count} builds to be recorded", is_there, seconds=RUN_SECONDS)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    world = World(tmp_path_factory.mktemp("crashes"))
    with world.instance:
        yield world


def test_a_run_that_is_killed_leaves_the_state_at_or_behind_the_warehouse(world):
    chance = random.Random(SEED)
    started = time.monotonic()
    Worker(world.folder, world.home).finish(RUN_SECONDS)
    seconds, kills = time.monotonic() - started, 0
    for number in range(1, POINTS + 1):
        shop.load(world.ask, range(shop.SOURCES), number)
        worker = Worker(world.folder, world.home)
        delay, group = chance.uniform(0, seconds), chance.random() < 0.5
        if number % 2:
            world.wait_for_records(worker, chance.randrange(1, len(shop.MODELS)))
        else:
            worker.process.join(delay)
        if worker.is_running:
            worker.kill(group=group)
            kills += 1
        worker.bury(world.instance)

        recorded = world.recorded(worker)
        print(f"point {number}: {'group' if group else 'worker'}, {len(recorded)} recorded")
        # Their inputs have not changed since, so a record that is not ahead has the rows of a full build.
        assert shop.differing(world.ask, recorded) == []
        started = time.monotonic()
        repair = Worker(world.folder, world.home)
        repair.finish(RUN_SECONDS)
        seconds = max(time.monotonic() - started, 5.0) if not recorded else seconds
        assert shop.differing(world.ask, shop.MODELS) == []
        assert not world.recorded(repair) & recorded
    shop.build_all(world.folder, "full")
    assert shop.differing(world.ask, shop.MODELS, "whole") == []
    print(f"{POINTS} points, {kills} kills")
