"""How long a new row waits for its run, under `dagster dev` with both sensors on.

    python benchmarks/latency.py [--changes 30] [--intervals 5 30] [--queue-seconds 5] [--cold-runs]

A project of ten models over ten sources, on PostgreSQL. After each run, and a random part of an interval, a row is inserted into one
source. *requested* is the time from its commit until the run is in the instance, *building* until dbt is started for it. Wall time:
it is what people wait for. `--queue-seconds` is how often Dagster's run queue looks, and `--cold-runs` switches `warm_runs` off. Needs PostgreSQL's server programs.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks._support import print_table, time_of_dbt
from tests.conftest import run_dbt
from tests.support.dagster_dev import end_with_children, free_port
from tests.support.polling import wait_for
from tests.support.postgres_server import PASSWORD, USER, Server, programs, running_server

ROOT = Path(__file__).resolve().parents[1]
SOURCES = 10
SECONDS = 300
DEFINITIONS = """
import dagster as dg
from dagster_dbt import DbtProject
from dagster_sao import build_state_aware_definitions

defs = build_state_aware_definitions(
    DbtProject({folder!r}),
    default_sensor_status=dg.DefaultSensorStatus.RUNNING,
    freshness_interval_seconds={interval},
    automation_interval_seconds={interval},
    warm_runs={warm},
)
"""
INSTANCE = """
telemetry: {{enabled: false}}
run_coordinator:
  module: dagster.core.run_coordinator
  class: QueuedRunCoordinator
  config: {{dequeue_interval_seconds: {queue_seconds}}}
"""


@dataclass(frozen=True)
class Latency:
    """Seconds from the commit of a row."""

    requested: float
    building: float


def make_project(folder: Path, server: Server, database: str) -> None:
    """Write a project of one model for each source."""
    server.ask(f"create database {database}")
    tables = [f"create table raw.s{n} as select 1 as id" for n in range(SOURCES)]
    server.ask("create schema raw", *tables, database=database)
    (folder / "models").mkdir(parents=True)
    (folder / "dbt_project.yml").write_text("name: latency\nprofile: latency\nmodels: {+materialized: table}\n")
    (folder / "profiles.yml").write_text(
        f"latency: {{target: dev, outputs: {{dev: {{type: postgres, host: 127.0.0.1, port: {server.port}, user: {USER},"
        f" password: {PASSWORD}, dbname: {database}, schema: shop, threads: 2}}}}}}\n"
    )
    names = ", ".join(f"{{name: s{n}}}" for n in range(SOURCES))
    (folder / "models" / "sources.yml").write_text(f"sources: [{{name: raw, schema: raw, tables: [{names}]}}]")
    for n in range(SOURCES):
        (folder / "models" / f"m{n}.sql").write_text(f"select * from {{{{ source('raw', 's{n}') }}}}")
    run_dbt(folder, "parse")


@contextmanager
def dagster_dev(folder: Path, interval: int, options: argparse.Namespace) -> Iterator[dg.DagsterInstance]:
    """Run `dagster dev` on the project, and yield its instance."""
    home = folder / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text(INSTANCE.format(queue_seconds=options.queue_seconds))
    text = DEFINITIONS.format(folder=str(folder / "project"), interval=interval, warm=not options.cold_runs)
    (folder / "defs.py").write_text(text)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "DAGSTER_HOME": str(home), "PATH": path, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "dagster", "dev", "-f", "defs.py", "-h", "127.0.0.1", "-p", str(free_port())]
    with (
        # Before `dagster dev`: two processes cannot create one instance.
        dg.DagsterInstance.from_config(str(home)) as instance,
        (folder / "dev.log").open("w") as log,
        subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        ) as process,
    ):
        instance.get_runs_count()
        try:
            yield instance
        finally:
            end_with_children(process, home)


def measure(interval: int, server: Server, options: argparse.Namespace) -> list[Latency]:
    """Return the latency of each change."""
    chance, database, found = random.Random(interval), f"latency_{interval}", []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        make_project(folder / "project", server, database)
        with dagster_dev(folder, interval, options) as instance:
            wait_for("the first run", lambda: _finished(instance) == 1, seconds=SECONDS)
            for number in range(options.changes):
                # A row lands at any moment between two ticks.
                time.sleep(chance.uniform(0, interval))
                server.ask(f"insert into raw.s{number % SOURCES} values ({number})", database=database)
                inserted = time.time()
                wait_for("its run", lambda done=number + 2: _finished(instance) == done, seconds=SECONDS)
                record = instance.get_run_records(limit=1)[0]
                started = time_of_dbt(instance, record.dagster_run.run_id)
                found.append(Latency(record.create_timestamp.timestamp() - inserted, started - inserted))
    return found


def _finished(instance: dg.DagsterInstance) -> int:
    return instance.get_runs_count(dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--changes", type=int, default=30)
    parser.add_argument("--intervals", type=int, nargs="+", default=[5, 30])
    parser.add_argument("--queue-seconds", type=int, default=5)
    parser.add_argument("--cold-runs", action="store_true")
    args = parser.parse_args()
    binaries = programs()
    if binaries is None:
        sys.exit("PostgreSQL's server programs are needed.")
    rows = []
    with running_server(binaries) as server:
        for interval in args.intervals:
            found = measure(interval, server, args)
            for what in ("requested", "building"):
                seconds = sorted(getattr(one, what) for one in found)
                p95 = seconds[min(len(seconds) - 1, round(0.95 * len(seconds)))]
                figures = (statistics.median(seconds), p95, seconds[-1])
                rows.append([f"{interval} s", what, *(f"{figure:.1f}" for figure in figures)])
    print_table(
        f"Seconds from a new row to its run, {args.changes} changes, {'cold' if args.cold_runs else 'warm'} runs,"
        f" a queue that looks every {args.queue_seconds} s",
        ["interval", "until", "median", "p95", "max"],
        rows,
    )


if __name__ == "__main__":
    main()
