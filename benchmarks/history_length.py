"""CPU of ticks and of a plan over an instance with a long history, beside the same instance with a short one.

    python benchmarks/history_length.py [--models 1000] [--days 200] [--engine sqlite postgres] [--repeats 5]

A day has a build of every model, the events in which Dagster plans it, a token of every source, and 50 runs. The last day is
the same in both instances, so that they have the same state. The first tick reads the state, as in a new process.
Nothing changes from then on. CPU seconds of this process, on PostgreSQL together with its server, which needs its programs.
The two instances are measured in turns.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import dagster as dg
import psutil
import sqlalchemy as sa
from dagster._core.events import AssetMaterializationPlannedData, DagsterEventType
from dagster._core.instance.utils import RUNLESS_RUN_ID
from dagster._core.storage.event_log import SqlEventLogStorageTable, SqliteEventLogStorage
from dagster._core.storage.runs.schema import RunsTable, RunTagsTable

from benchmarks._support import built_state, print_table
from benchmarks.automation_tick import StateAware, record_builds, without_waiting_for_the_disk
from dagster_sao import StateAwareProject
from dagster_sao.orchestration.events.event_schema import unsettled_tag
from tests.support.postgres_instance import write_instance
from tests.support.postgres_server import programs, running_server

SHORT = 2
RUNS_A_DAY = 50
WARM = 5
STEPS = ("first tick of a process", "warm tick", "plan")


@dataclass
class World:
    """An instance with a history of some days, and what it costs to read."""

    days: int
    instance: dg.DagsterInstance
    folder: Path
    server: psutil.Process | None
    seconds: dict[str, list[float]] = field(default_factory=lambda: {step: [] for step in STEPS})

    def prepare(self, models: int) -> None:
        """Write the history, a day through Dagster, the days after it as copies of its rows, and the last day through Dagster."""
        ours = StateAware(self.folder / "written", models, self.instance)
        state = built_state(ours.project.load().project, datetime.now(timezone.utc))
        first = self._run()
        record_builds(self.instance, ours.project, state)
        self._plan_assets(ours, first)
        copy_day(self.instance, first.run_id, self.days - 2, unsettled_tag(ours.project.state_name))
        record_builds(self.instance, ours.project, state)
        self._plan_assets(ours, self._run())

    def measure(self, models: int, number: int) -> None:
        """Measure each step once, in this process, with nothing that an earlier tick has kept."""
        ours = StateAware(self.folder / f"read {number}", models, self.instance)
        self._note(STEPS[0], ours.tick)
        assert not ours.requested, ours.result
        for _ in range(WARM):
            self._note(STEPS[1], ours.tick)
        project = StateAwareProject(ours.project.dbt_project, instance=self.instance)
        self._note(STEPS[2], lambda: project.plan(refresh_sources=False))

    def _note(self, step: str, work: Callable[[], object]) -> None:
        start = self._cpu()
        work()
        self.seconds[step].append(self._cpu() - start)

    def _cpu(self) -> float:
        return time.process_time() + (_tree_seconds(self.server) if self.server else 0.0)

    def _run(self) -> dg.DagsterRun:
        return self.instance.run_storage.add_run(
            dg.DagsterRun(job_name="nightly", run_id=str(uuid.uuid4()), status=dg.DagsterRunStatus.SUCCESS)
        )

    def _plan_assets(self, ours: StateAware, run: dg.DagsterRun) -> None:
        keys = ours.project.load().keys
        for uid in keys.nodes:
            event = dg.DagsterEvent(
                DagsterEventType.ASSET_MATERIALIZATION_PLANNED.value,
                run.job_name,
                event_specific_data=AssetMaterializationPlannedData(keys.by_unique_id[uid]),
            )
            self.instance.report_dagster_event(event, run.run_id, logging.DEBUG)


def _tree_seconds(server: psutil.Process) -> float:
    spent = server.cpu_times()
    seconds = spent.user + spent.system + spent.children_user + spent.children_system
    for backend in server.children():
        try:
            seconds += sum(backend.cpu_times()[:2])
        except psutil.NoSuchProcess:  # its time is the server's children's at the next look
            continue
    return seconds


def copy_day(instance: dg.DagsterInstance, run_id: str, times: int, tag: str) -> None:
    """Repeat the events of a run and those without a run, and as many days of other runs, by SQL."""
    storage, events = instance.event_log_storage, SqlEventLogStorageTable
    others = [column for column in events.c if column.name not in {"id", "run_id"}]
    shards = [storage.index_connection]
    if isinstance(storage, SqliteEventLogStorage):
        shards.append(lambda: storage.run_connection(RUNLESS_RUN_ID))
    for shard in shards:
        with shard() as connection:
            last = connection.execute(sa.select(sa.func.max(events.c.id))).scalar_one()
            for _ in range(times):
                for name, copy in ((RUNLESS_RUN_ID, RUNLESS_RUN_ID), (run_id, str(uuid.uuid4()))):
                    rows = sa.select(sa.literal(copy), *others).where(events.c.run_id == name, events.c.id <= last)
                    into = ["run_id", *(column.name for column in others)]
                    connection.execute(events.insert().from_select(into, rows.order_by(events.c.id)))
    others = [column for column in RunsTable.c if column.name not in {"id", "run_id"}]
    with instance.run_storage.connect() as connection:
        row = connection.execute(sa.select(*others).where(RunsTable.c.run_id == run_id)).one()
        ids = [str(uuid.uuid4()) for _ in range(times * RUNS_A_DAY)]
        for first in range(0, len(ids), 500):
            page = ids[first : first + 500]
            connection.execute(RunsTable.insert().values([{**row._asdict(), "run_id": one} for one in page]))
            connection.execute(
                RunTagsTable.insert().values([{"run_id": one, "key": tag, "value": "no"} for one in page])
            )
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text("analyze"))


@contextmanager
def sqlite_instances(folder: Path) -> Iterator[tuple[Callable[[str], dg.DagsterInstance], None]]:
    def make(name: str) -> dg.DagsterInstance:
        (folder / name).mkdir()
        return dg.DagsterInstance.local_temp(str(folder / name))

    yield make, None


@contextmanager
def postgres_instances(
    folder: Path,
) -> Iterator[tuple[Callable[[str], dg.DagsterInstance], psutil.Process]]:
    binaries = programs()
    if binaries is None:
        sys.exit("PostgreSQL's programs are not here: leave it out with --engine sqlite, or install them.")
    with running_server(binaries) as server:

        def make(name: str) -> dg.DagsterInstance:
            server.connect().cursor().execute(f"create database {name}")
            return dg.DagsterInstance.from_config(str(write_instance(folder / name, server, name)))

        yield make, psutil.Process(int((server.folder / "db" / "postmaster.pid").read_text().split()[0]))


ENGINES: Mapping[str, Callable[[Path], object]] = {"sqlite": sqlite_instances, "postgres": postgres_instances}


def measure(engine: str, models: int, days: int, repeats: int) -> list[list[str]]:
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name).resolve()
        make, server = stack.enter_context(ENGINES[engine](folder))
        worlds = []
        for label, length in (("short", SHORT), ("long", days)):
            instance = stack.enter_context(make(label))
            worlds.append(World(length, instance, folder / f"projects {label}", server))
            with without_waiting_for_the_disk():
                worlds[-1].prepare(models)
            print(engine, length, "days are written", file=sys.stderr)
        for number in range(repeats + 1):
            for world in worlds:
                world.measure(models, number)
                print(
                    engine,
                    world.days,
                    {step: round(found[-1], 3) for step, found in world.seconds.items()},
                    file=sys.stderr,
                )
    short, long = worlds
    rows = []
    for step in STEPS:
        # Those of the first turn are not counted: imports and caches.
        skipped = WARM if step == STEPS[1] else 1
        pairs = list(zip(short.seconds[step][skipped:], long.seconds[step][skipped:], strict=True))
        few, many = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(b / a for a, b in pairs)
        rows.append([engine, step, f"{few:.3f}", f"{many:.3f}", f"{ratio:.2f} ×"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--days", type=int, default=200)
    parser.add_argument("--engine", nargs="+", choices=sorted(ENGINES), default=sorted(ENGINES))
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.INFO)
    rows = [row for engine in options.engine for row in measure(engine, options.models, options.days, options.repeats)]
    print_table(
        f"{options.models:,} models, CPU seconds (medians of {options.repeats})",
        ["", "", f"{SHORT} days", f"{options.days} days", "ratio"],
        rows,
    )


if __name__ == "__main__":
    main()
