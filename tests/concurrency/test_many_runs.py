"""Four run workers at once on PostgreSQL, some killed: one writer per model, no deadlock, and nothing built in vain.

Who writes is noted in the warehouse itself. Hooks around each build take and release an advisory lock of the session,
outside of the build's transaction, so that it is held from before the first statement until after the commit, or until
the session of a killed dbt has ended.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter

import dagster as dg
import pytest

from tests.support import forty_models as shop
from tests.support.polling import wait_for
from tests.support.postgres_instance import write_instance
from tests.support.postgres_server import PASSWORD, USER
from tests.support.run_worker import Worker

pytestmark = pytest.mark.slow

ROUNDS = int(os.environ.get("DAGSTER_SAO_CONCURRENCY_ROUNDS", "3"))
SEED = os.environ.get("DAGSTER_SAO_CONCURRENCY_SEED", "1")
WORKERS = 4
ROUND_SECONDS = 300
AUDIT = """
create schema audit;
create table audit.builds (worker text, model text, started_at timestamptz default clock_timestamp(), ended_at timestamptz);
create table audit.meetings (worker text, model text, at timestamptz default clock_timestamp());
create function audit.enter(name text) returns void language plpgsql as $$ begin
  if not pg_try_advisory_lock(hashtext(name)) then
    insert into audit.meetings values (current_setting('application_name'), name);
  end if;
  insert into audit.builds values (current_setting('application_name'), name);
end $$;
create function audit.leave(name text) returns void language plpgsql as $$ begin
  update audit.builds set ended_at = clock_timestamp()
  where worker = current_setting('application_name') and model = name and ended_at is null;
  perform pg_advisory_unlock(hashtext(name));
end $$;
"""


class World:
    """The project, its warehouse and its instance, on one server."""

    def __init__(self, folder, server):
        self.server, self.folder = server, folder / "shop"
        server.ask("create database many_runs")
        self.home = write_instance(folder / "home", server, "many_runs")
        self.ask(AUDIT)
        shop.create_sources(self.ask)
        shop.write_project(
            self.folder,
            "audited",
            f"type: postgres, host: 127.0.0.1, port: {server.port}, user: {USER}, password: {PASSWORD},"
            " dbname: many_runs, application_name: \"{{ env_var('SHOP_WORKER', 'tests') }}\"",
        )
        shop.build_all(self.folder, "truth")
        self.instance = dg.DagsterInstance.from_config(str(self.home))

    def ask(self, statement):
        return self.server.ask(statement, database="many_runs")

    def start(self, select=""):
        return Worker(self.folder, self.home, {"select": select})

    def bury(self, worker):
        sessions = f"select 1 from pg_stat_activity where application_name = '{worker.run_id}'"
        worker.bury(self.instance)
        wait_for("the sessions of a killed dbt to end", lambda: not self.ask(sessions), seconds=60)

    def builds(self, since):
        return self.ask(f"select worker, model, ended_at from audit.builds where started_at > '{since}'")


@pytest.fixture(scope="module")
def world(tmp_path_factory, postgres_server):
    world = World(tmp_path_factory.mktemp("many"), postgres_server)
    with world.instance:
        yield world


def selection(chance):
    """Return some models of the last two layers with all that is above them, so that nothing needs a second build."""
    return " ".join(f"+{model}" for model in chance.sample(list(shop.MODELS)[-2 * shop.WIDTH :], 4))


def kill_some(world, workers, chance, seconds):
    """Wait for the workers' end, and kill up to three of them on the way."""
    started = time.monotonic()
    fates = [(chance.uniform(0, seconds), chance.random() < 0.5, worker) for worker in workers[: chance.randint(0, 3)]]
    for delay, group, worker in sorted(fates, key=lambda fate: fate[0]):
        worker.process.join(max(0.0, delay - (time.monotonic() - started)))
        if worker.is_running:
            worker.kill(group=group)
            world.bury(worker)
    for worker in workers:
        if not worker.was_killed:
            worker.finish(ROUND_SECONDS - (time.monotonic() - started))


def test_runs_at_once_never_meet_and_leave_every_model_current(world):
    chance = random.Random(SEED)
    seconds, kills = 30.0, 0
    for number in range(1, ROUNDS + 1):
        loaded = chance.sample(range(shop.SOURCES), chance.randint(1, shop.SOURCES)) if number > 1 else range(4)
        shop.load(world.ask, loaded, number)
        ((since,),) = world.ask("select clock_timestamp()")
        began = time.monotonic()
        workers = [world.start(selection(chance)) for _ in range(WORKERS)]
        kill_some(world, workers, chance, seconds)
        last = world.start()
        last.finish(ROUND_SECONDS)
        taken = time.monotonic() - began
        # Moments of the next round: most of it, the first of which is start-up.
        seconds = taken * 0.6

        killed = {worker.run_id for worker in workers if worker.was_killed}
        builds = world.builds(since)
        by_survivors = Counter(model for worker, model, _ in builds if worker not in killed)
        kills += len(killed)
        in_vain = len(builds) - by_survivors.total()
        print(f"round {number}: {taken:.1f} s, {len(killed)} killed, {len(builds)} builds, {in_vain} of killed runs")
        assert world.ask("select * from audit.meetings") == []
        assert shop.differing(world.ask, shop.MODELS) == []
        assert set(by_survivors.values()) <= {1}, by_survivors
        assert {model for _, model, _ in builds} <= shop.below(loaded)
        assert all(ended for worker, _, ended in builds if worker not in killed)
    shop.build_all(world.folder, "full")
    assert shop.differing(world.ask, shop.MODELS, "whole") == []
    print(f"{ROUNDS} rounds, {kills} workers killed")
