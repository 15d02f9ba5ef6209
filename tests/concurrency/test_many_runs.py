"""Four run workers at once on PostgreSQL, some killed: one writer per model, no deadlock, and nothing built in vain.

Who writes is noted in the warehouse itself, not in a log of ours.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter

import pytest

from tests.support import forty_models as shop
from tests.support.polling import wait_for
from tests.support.run_worker import How
from tests.support.shop_worlds import PostgresWorld

pytestmark = pytest.mark.slow

ROUNDS = int(os.environ.get("DAGSTER_SAO_CONCURRENCY_ROUNDS", "3"))
SEED = os.environ.get("DAGSTER_SAO_CONCURRENCY_SEED", "1")
WORKERS = 4
WAYS = [(How.ONE_PROCESS, False), (How.ONE_PROCESS, True), (How.STEP_IN_ITS_OWN_PROCESS, False)]
"""How a worker executes its run, and whether it forks its dbt."""
ROUND_SECONDS = 300


@pytest.fixture(scope="module")
def world(tmp_path_factory, postgres_server):
    world = PostgresWorld(tmp_path_factory.mktemp("many"), postgres_server, "many_runs")
    with world.instance:
        yield world


def selection(chance):
    """Return some models of the last two layers with all that is above them, so that nothing needs a second build."""
    return " ".join(f"+{model}" for model in chance.sample(list(shop.MODELS)[-2 * shop.WIDTH :], 4))


def moment_to_kill(world, chance, worker, since, seconds):
    """Return a question whether it is time to kill a worker: at any moment of its run, or in the midst of its builds."""
    if chance.random() < 0.3:
        at = time.monotonic() + chance.uniform(0, seconds)
        return lambda: time.monotonic() >= at
    count = chance.randint(1, 8)
    return lambda: sum(builder == worker.run_id for builder, _, _ in world.builds(since)) >= count


def kill_some(world, workers, chance, since, seconds):
    """Wait for the workers' end, and kill up to three of them on the way."""
    fates = {
        worker.run_id: (worker, moment_to_kill(world, chance, worker, since, seconds), chance.random() < 0.5)
        for worker in workers[: chance.randint(0, 3)]
    }

    def are_met():
        for worker, is_due, group in list(fates.values()):
            if worker.is_running and not is_due():
                continue
            del fates[worker.run_id]
            if worker.is_running:
                worker.kill(group=group)
                world.bury(worker)
        return not fates

    wait_for("the workers' end", are_met, seconds=ROUND_SECONDS)
    for worker in workers:
        if not worker.was_killed:
            worker.finish(ROUND_SECONDS)


def in_vain(builds, killed):
    """Return what surviving runs built more often than they had to.

    PostgreSQL drops a view with the table under it. So each run that builds such a table costs another build of the view,
    in whichever run comes to it first. A killed run costs another build of what it was at.
    """
    builders = {model: [worker for worker, built, _ in builds if built == model] for _, model, _ in builds}

    def needed(model):
        parents = shop.MODELS[model] if model in shop.VIEWS else ()
        return max(1, len({worker for parent in parents for worker in builders.get(parent, ())})) + len(killed)

    survivors = {model: [worker for worker in workers if worker not in killed] for model, workers in builders.items()}
    return {model: workers for model, workers in survivors.items() if len(workers) > needed(model)}


def test_runs_at_once_never_meet_and_leave_every_model_current(world):
    chance = random.Random(SEED)
    seconds, kills = 30.0, Counter()
    for number in range(1, ROUNDS + 1):
        loaded = chance.sample(range(shop.SOURCES), chance.randint(1, shop.SOURCES)) if number > 1 else range(4)
        shop.load(world.ask, loaded, number)
        since, began = world.now(), time.monotonic()
        hows = chance.choices(WAYS, k=WORKERS)
        workers = [world.start(selection(chance), how, forks_dbt=forks_dbt) for how, forks_dbt in hows]
        kill_some(world, workers, chance, since, seconds)
        world.start().finish(ROUND_SECONDS)
        taken = time.monotonic() - began
        # Moments of the next round: most of it, the first of which is start-up.
        seconds = taken * 0.6

        killed = {worker.run_id for worker in workers if worker.was_killed}
        builds = world.builds(since)
        by_killed = Counter(worker for worker, _, _ in builds if worker in killed)
        kills.update("in a build" if by_killed[run_id] else "before a build" for run_id in killed)
        print(
            f"round {number}: {taken:.1f} s, {len(killed)} killed, {len(builds)} builds,"
            f" {by_killed.total()} of killed runs",
            flush=True,
        )
        assert world.meetings() == []
        assert shop.differing(world.ask, shop.MODELS) == []
        assert not in_vain(builds, killed)
        assert {model for _, model, _ in builds} <= shop.below(loaded)
        assert all(ended for worker, _, ended in builds if worker not in killed)
    shop.build_all(world.folder, "full")
    assert shop.differing(world.ask, shop.MODELS, "whole") == []
    print(f"{ROUNDS} rounds, workers killed: {dict(kills)}")


def test_without_leases_runs_do_meet(tmp_path, postgres_server):
    """So the other test can fail."""
    world = PostgresWorld(tmp_path, postgres_server, "lawless_runs")
    with world.instance:
        shop.load(world.ask, range(shop.SOURCES), 1)
        world.start().finish(ROUND_SECONDS)
        shop.load(world.ask, range(shop.SOURCES), 2)
        since = world.now()
        with world.locked("shop.m0_0"):
            workers = [world.start("m0_0", How.WITHOUT_LEASES) for _ in range(2)]
            wait_for("both to build one model", lambda: len(world.builds(since)) == len(workers), seconds=ROUND_SECONDS)
        for worker in workers:
            worker.process.join(ROUND_SECONDS)
        assert [model for _, model in world.meetings()] == ["m0_0"]
