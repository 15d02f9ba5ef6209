"""A run worker that is frozen while its dbt goes on: it writes nothing beside the run that takes over, nor after it."""

from __future__ import annotations

import itertools
import os
import signal

import dagster as dg
import pytest

from tests.support import forty_models as shop
from tests.support.polling import wait_for
from tests.support.run_worker import How
from tests.support.shop_worlds import PostgresWorld

pytestmark = pytest.mark.slow

RUN_SECONDS = 300
MODEL = "m0_0"
LOADS = itertools.count(1)


@pytest.fixture(scope="module")
def world(tmp_path_factory, postgres_server):
    world = PostgresWorld(tmp_path_factory.mktemp("frozen"), postgres_server, "frozen")
    with world.instance:
        yield world


def last_run(world):
    """Return the run that recorded the last build of the model."""
    (event,) = world.instance.get_latest_materialization_events([dg.AssetKey(MODEL)]).values()
    return event.run_id


# That the next run builds nothing failed once in three times, in a run of the whole folder: it built all models once more.
@pytest.mark.parametrize(
    ("next_run_too", "forks_dbt"),
    [(False, False), (False, True), pytest.param(True, False, marks=pytest.mark.rare)],
)
def test_a_frozen_worker_whose_leases_lapsed_writes_nothing_beside_another(world, request, next_run_too, forks_dbt):
    world.start().finish(RUN_SECONDS)
    shop.load(world.ask, range(shop.SOURCES), next(LOADS))
    since = world.now()
    with world.locked(f"shop.{MODEL}"):
        frozen = world.start(how=How.SHORT_LEASES, forks_dbt=forks_dbt)
        request.addfinalizer(frozen.end)
        wait_for(
            "dbt to be at the model", lambda: (frozen.run_id, MODEL, None) in world.builds(since), seconds=RUN_SECONDS
        )
        os.kill(frozen.process.pid, signal.SIGSTOP)
        wait_for("dbt to be ended, before others may build", lambda: not frozen.has_dbt, seconds=18)
    # A dbt that had no time to cancel its query leaves a session that waits for the lock, and then commits nothing.
    sessions = f"select 1 from pg_stat_activity where application_name = '{frozen.run_id}'"
    wait_for("dbt's sessions to end", lambda: not world.ask(sessions), seconds=60)
    world.start(how=How.SHORT_LEASES).finish(RUN_SECONDS)
    taken_over_by = last_run(world)
    assert taken_over_by != frozen.run_id
    os.kill(frozen.process.pid, signal.SIGCONT)
    frozen.process.join(RUN_SECONDS)
    assert frozen.process.exitcode == 1
    run = world.instance.get_run_by_id(frozen.run_id)
    assert run is not None
    assert run.is_finished
    assert last_run(world) == taken_over_by
    assert world.meetings() == []
    assert shop.differing(world.ask, shop.MODELS) == []
    if next_run_too:
        # What it left is no failure of a model.
        before = world.now()
        world.start().finish(RUN_SECONDS)
        assert world.builds(before) == []
