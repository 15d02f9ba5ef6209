"""CPU of a run that the code server of `dagster dev` launches and that builds one model, with `warm_runs` and without.

    python benchmarks/warm_runs.py [100] [--all] [--repeats 3]

Each has its own copy of one made-up project, on DuckDB. CPU seconds of the code server and of
all that it starts, dbt too, from the request until the run has ended; and the wall time until dbt is started, because it is what
people wait for. With `--all`, the run builds all models. Linux only.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks._support import print_table, time_of_dbt
from benchmarks.state_aware_job import BIN, _dbt_environment, make_project
from tests.support.dagster_dev import DagsterDev, dagster_dev_of
from tests.support.polling import wait_for

DEFINITIONS = """
import dagster as dg
from dagster_dbt import DbtProject
from dagster_sao import build_state_aware_definitions, build_state_aware_job

@dg.multi_asset(specs=[dg.AssetSpec(f"bare_{{number}}") for number in range({models})])
def bare():
    for number in range({models}):
        yield dg.MaterializeResult(f"bare_{{number}}")

defs = dg.Definitions.merge(
    build_state_aware_definitions(DbtProject("{folder}"), warm_runs={warm}, jobs=[build_state_aware_job("nightly")]),
    dg.Definitions(assets=[bare], jobs=[dg.define_asset_job("bare_job", dg.AssetSelection.assets(bare))]),
)
"""
SECONDS = 300
LASTING = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")


@dataclass
class Deployment:
    """A `dagster dev` with one project."""

    name: str
    dev: DagsterDev
    folder: Path
    seconds: list[float] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)

    def measure(self, selection: str) -> None:
        """Measure a run of the job that builds a selection, though nothing has changed."""
        config = {"ops": {"bench_dbt_assets": {"config": {"force": [selection]}}}}
        started = time.time()
        seconds, run_id = self._run("nightly", config)
        self.seconds.append(seconds)
        with dg.DagsterInstance.from_config(self.dev.environment["DAGSTER_HOME"]) as instance:
            self.waited.append(time_of_dbt(instance, run_id) - started)
        print(f"{self.name}: {self.seconds[-1]:.2f}, dbt after {self.waited[-1]:.1f} s", file=sys.stderr)

    def measure_bare(self) -> None:
        """Measure a run that only records materializations."""
        self.bare.append(self._run("bare_job", {})[0])

    def _run(self, job: str, config: dict[str, Any]) -> tuple[float, str]:
        before = self._cpu_seconds()
        done = self.dev.ended(self.dev.client.launch_job(job, config))
        wait_for("the run's process to end", lambda: not self._is_at_work(), seconds=SECONDS)
        assert done.status == "SUCCESS", self.dev.log()[-3000:]
        return self._cpu_seconds() - before, done.id

    def _servers(self) -> list[psutil.Process]:
        home = self.dev.environment["DAGSTER_HOME"]
        servers = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if "grpc" in process.cmdline() and process.environ().get("DAGSTER_HOME") == home:
                    servers.append(process)
        return servers

    def _cpu_seconds(self) -> float:
        (server,) = self._servers()
        return sum(sum(p.cpu_times()[:4]) for p in [server, *server.children(recursive=True)])

    def _is_at_work(self) -> bool:
        """Whether the process of a run, or its dbt, goes on."""
        (server,) = self._servers()
        return any(_is_at_work(process, server.pid) for process in server.children(recursive=True))


def _is_at_work(process: psutil.Process, server: int) -> bool:
    try:
        command = " ".join(process.cmdline())
    except psutil.ZombieProcess:
        return False
    return process.ppid() != server or not any(name in command for name in LASTING)


def dbt(folder: Path, *arguments: str) -> float:
    """Run dbt in a project, and return its CPU seconds.

    `state_aware_job.run` would also end what this process has started before: `dagster dev`.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, **_dbt_environment(folder)}
    subprocess.run([BIN / "dbt", "-q", *arguments], cwd=folder, env=environment, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("models", nargs="?", type=int, default=100)
    parser.add_argument("--all", action="store_true", help="build all models instead of one")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    selection = "fqn:*" if options.all else f"m{options.models - 1}"
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        deployments, alone = [], []
        for warm in (False, True):
            folder = Path(name).resolve() / str(warm)
            make_project(folder, options.models)
            dbt(folder, "parse")
            definitions = folder / "definitions.py"
            definitions.write_text(DEFINITIONS.format(folder=folder, warm=warm, models=options.models))
            dev = stack.enter_context(dagster_dev_of(definitions, _dbt_environment(folder)))
            deployments.append(Deployment(f"warm_runs={warm}", dev, folder))
        plain = Path(name).resolve() / "dbt"
        make_project(plain, options.models)
        dbt(plain, "build")
        for _ in range(options.repeats + 1):
            for deployment in deployments:
                deployment.measure(selection)
                if options.all:
                    deployment.measure_bare()
            alone.append(dbt(plain, "build", "--select", selection))
    print_table(
        f"A run of {options.models} models that builds {selection}, launched by a code server (medians of {options.repeats})",
        ["", "CPU seconds", "ratio to dbt build", "seconds until dbt"],
        [
            *(
                [one.name, *_ratio(one.seconds, alone), f"{statistics.median(one.waited[1:]):.1f}"]
                for one in deployments
            ),
            *([f"{one.name}, only events", *_ratio(one.bare, alone), ""] for one in deployments if one.bare),
            [f"`dbt build --select {selection}`", *_ratio(alone, alone), ""],
        ],
        "The first run of each, which builds all models, is not counted.",
    )


def _ratio(seconds: Sequence[float], alone: Sequence[float]) -> tuple[str, str]:
    """Return the median without the first, and its ratio to dbt's in the same turn."""
    ratios = [one / other for one, other in zip(seconds[1:], alone[1:], strict=True)]
    return f"{statistics.median(seconds[1:]):.2f}", f"{statistics.median(ratios):.2f} ×"


if __name__ == "__main__":
    main()
