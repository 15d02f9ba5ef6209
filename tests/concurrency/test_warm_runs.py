"""Runs that the code server forks: they run, are ended and follow one another as those in a new Python are."""

from __future__ import annotations

import psutil
import pytest

from tests.conftest import run_dbt
from tests.support.dagster_dev import dagster_dev_of
from tests.support.polling import wait_for
from tests.support.postgres_server import PASSWORD, USER

pytestmark = pytest.mark.slow

DATABASE = "warm_runs"
DEFINITIONS = """
from dagster_dbt import DbtProject
from dagster_sao import build_state_aware_definitions, build_state_aware_job

jobs = [build_state_aware_job(name, select=name) for name in ("quick", "sleeping")]
defs = build_state_aware_definitions(DbtProject({folder!r}), jobs=jobs)
"""
PROFILE = (
    "shop: {{target: dev, outputs: {{dev: {{type: postgres, host: 127.0.0.1, port: {port}, user: {user},"
    " password: {password}, dbname: {database}, schema: shop, threads: 1}}}}}}"
)
FORKING = "multiprocessing.forkserver"
SECONDS = 120


@pytest.fixture
def ask(postgres_server):
    postgres_server.ask(f"create database {DATABASE}")
    return lambda statement: postgres_server.ask(statement, database=DATABASE)


@pytest.fixture
def dev(tmp_path, postgres_server, ask):
    project = tmp_path / "shop"
    (project / "models").mkdir(parents=True)
    (project / "dbt_project.yml").write_text("name: shop\nprofile: shop\nmodels: {+materialized: table}\n")
    profile = PROFILE.format(port=postgres_server.port, user=USER, password=PASSWORD, database=DATABASE)
    (project / "profiles.yml").write_text(profile)
    (project / "models" / "quick.sql").write_text("select 1 as id")
    (project / "models" / "sleeping.sql").write_text("select 1 as id from pg_sleep(600)")
    run_dbt(project, "parse")
    definitions = tmp_path / "definitions.py"
    definitions.write_text(DEFINITIONS.format(folder=str(project)))
    with dagster_dev_of(definitions, {}) as running:
        yield running


def forked(dev):
    """Return the names of the processes that were forked: they have the command of the one that they are forked from."""
    found = []
    for process in psutil.process_iter():
        try:
            is_of_dev = process.environ().get("DAGSTER_HOME") == dev.environment["DAGSTER_HOME"]
            if is_of_dev and FORKING in " ".join(process.cmdline()) and process.cmdline() == process.parent().cmdline():
                found.append(process.name())
        except psutil.Error:
            continue
    return found


def test_forked_runs_build_and_are_ended_with_their_dbt(dev, ask):
    assert dev.ended(dev.client.launch_job("quick")).status == "SUCCESS"
    assert ask("select id from shop.quick") == [(1,)]
    run = dev.client.launch_job("sleeping")
    sleeps = "select 1 from pg_stat_activity where query like '%pg_sleep(600)%' and pid <> pg_backend_pid()"
    wait_for("dbt to be at the model", lambda: ask(sleeps), seconds=SECONDS, details=dev.log)
    # The run, what it forks dbt from, and dbt.
    assert [name == "dbt" for name in sorted(forked(dev))] == [True, False, False]
    dev.client.terminate(run)
    assert dev.ended(run).status == "CANCELED"
    wait_for("dbt to end", lambda: not ask(sleeps) and not forked(dev), seconds=SECONDS)
    assert dev.ended(dev.client.launch_job("quick")).status == "SUCCESS"
