"""The real `dagster dev`, and the end of every process that it started."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import requests

from tests.support.graphql import DagsterClient, GraphQLError, Run, Tick
from tests.support.polling import wait_for

REPOSITORY = Path(__file__).resolve().parents[2]
LOCATION = "jaffle_shop"
FRESHNESS_SENSOR = "jaffle_shop_freshness_sensor"
AUTOMATION_SENSOR = "jaffle_shop_automation_sensor"
SENSORS = (FRESHNESS_SENSOR, AUTOMATION_SENSOR)

# On a machine with other work; an idle one needs a fifth of it.
START_SECONDS = 400
RUN_SECONDS = 400
TICK_SECONDS = 180
STOP_SECONDS = 20

# What a copy of the example leaves behind: made by running it.
_NOT_COPIED = ("target", "logs", "warehouse", ".dagster_home", "__pycache__", "dbt_packages", "*.duckdb*", ".user.yml")
# A run that waits in the queue for five seconds would tell nothing.
_DAGSTER_YAML = """\
telemetry:
  enabled: false
nux:
  enabled: false
run_coordinator:
  module: dagster.core.run_coordinator
  class: QueuedRunCoordinator
  config:
    dequeue_interval_seconds: 1
"""
_INTERVAL = "_interval_seconds=10"


@dataclass
class DagsterDev:
    """A running `dagster dev`, with a folder of its own. What loads and edits is for the example project."""

    folder: Path
    client: DagsterClient
    environment: dict[str, str]
    log_path: Path

    @property
    def dbt_project(self) -> Path:
        """The dbt project, which may be edited."""
        return self.folder / "example_project" / "jaffle_shop"

    @property
    def warehouse(self) -> Path:
        """The DuckDB file."""
        return Path(self.environment["JAFFLE_SHOP_DB"])

    def log(self) -> str:
        """Return all that `dagster dev` printed so far."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def load(self, *arguments: str) -> str:
        """Run the example's loader, as a user would in a second terminal."""
        return self._python("load.py", *arguments)

    def sql(self, statement: str) -> None:
        """Change the raw data in a process of its own, waiting for its turn as the loader does."""
        code = "import sys, jaffle_db\nwith jaffle_db.connect() as db: db.execute(sys.argv[1])"
        self._python("-c", code, statement)

    def value(self, query: str) -> str:
        """Return the one value that a query of the warehouse gives, as text."""
        code = "import sys, jaffle_db\nwith jaffle_db.connect() as db: print(db.execute(sys.argv[1]).fetchone()[0])"
        return self._python("-c", code, query).strip()

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace a text that occurs once in a file of the dbt project."""
        path = self.dbt_project / file
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in {file}"
        path.write_text(text.replace(old, new), encoding="utf-8")

    def _python(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder / "example_project",
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    # Waiting

    def ticks_after(self, moment: float, sensor: str, count: int = 1, *, seconds: float = TICK_SECONDS) -> list[Tick]:
        """Return the ticks of a sensor that began after a moment, once there are `count` of them, the oldest first."""
        return wait_for(
            f"{count} ticks of {sensor}",
            lambda: (ticks := self.client.ticks(sensor, after=moment)) and len(ticks) >= count and ticks[::-1],
            seconds=seconds,
            details=lambda: f"There were {self.client.ticks(sensor, after=moment)}.",
        )

    def a_full_round(self, moment: float, count: int = 1, *, seconds: float = TICK_SECONDS) -> None:
        """Wait until both sensors have ticked `count` times after a moment, and what either of them found is shown.

        The sensors take turns in probing the sources. The freshness sensor shows what the automation sensor found.
        """
        first = self.ticks_after(moment, FRESHNESS_SENSOR, count, seconds=seconds)[-1]
        self.ticks_after(moment, AUTOMATION_SENSOR, count, seconds=seconds)
        planned = self.ticks_after(first.timestamp, AUTOMATION_SENSOR, seconds=seconds)[0]
        self.ticks_after(planned.timestamp, FRESHNESS_SENSOR, seconds=seconds)

    def run_after(self, moment: float, *, seconds: float = RUN_SECONDS) -> Run:
        """Return the first run created after a moment, once it has ended."""

        def ended() -> Run | None:
            runs = self.client.runs(after=moment)
            return runs[0] if runs and runs[0].is_finished else None

        return wait_for("a run to end", ended, seconds=seconds, details=self._recent)

    def ended(self, run_id: str, *, seconds: float = RUN_SECONDS) -> Run:
        """Return a run, once it has ended."""

        def run() -> Run | None:
            return next((r for r in self.client.runs() if r.id == run_id and r.is_finished), None)

        return wait_for(f"run {run_id} to end", run, seconds=seconds, details=self._recent)

    def _recent(self) -> str:
        ticks = {sensor: self.client.ticks(sensor, limit=3) for sensor in SENSORS}
        return f"Runs: {self.client.runs()[-3:]}. Ticks: {ticks}. The end of the log:\n{self.log()[-3000:]}"


@contextmanager
def dagster_dev(folder: Path, *, interval_seconds: int | None = None) -> Iterator[DagsterDev]:
    """Start `dagster dev` for a copy of the example in `folder`, with fresh data, and end it with all its processes.

    `interval_seconds` replaces the example's own interval of both sensors.
    """
    dev = _described(folder, _copy_example(folder, interval_seconds), LOCATION)
    dev.load("init")
    with _running(dev, "-w", "workspace.yaml"):
        yield dev


@contextmanager
def dagster_dev_of(definitions: Path, environment: Mapping[str, str]) -> Iterator[DagsterDev]:
    """Start `dagster dev` for a file of definitions, in its folder, and end it with all its processes.

    The file's name is the code location's. The instance is in the folder, too.
    """
    dev = _described(
        definitions.parent, {**_clean_environment(definitions.parent), **environment}, location=definitions.name
    )
    with _running(dev, "-f", definitions.name):
        yield dev


def _described(folder: Path, environment: dict[str, str], location: str) -> DagsterDev:
    client = DagsterClient(f"http://127.0.0.1:{free_port()}", location)
    return DagsterDev(folder, client, environment, folder / "dagster_dev.log")


@contextmanager
def _running(dev: DagsterDev, *target: str) -> Iterator[None]:
    port = str(urlsplit(dev.client.url).port)
    command = [sys.executable, "-m", "dagster", "dev", *target, "-h", "127.0.0.1", "-p", port]
    with dev.log_path.open("wb") as log:
        process = subprocess.Popen(
            command, cwd=dev.folder, env=dev.environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        _wait_until_loaded(dev, process)
        yield
    finally:
        end_with_children(process, Path(dev.environment["DAGSTER_HOME"]))


def _copy_example(folder: Path, interval_seconds: int | None) -> dict[str, str]:
    """Copy the example and return the environment that everything about it runs in."""
    shutil.copytree(
        REPOSITORY / "example_project", folder / "example_project", ignore=shutil.ignore_patterns(*_NOT_COPIED)
    )
    shutil.copy(REPOSITORY / "workspace.yaml", folder)
    if interval_seconds is not None:
        definitions = folder / "example_project" / "definitions.py"
        text = definitions.read_text(encoding="utf-8")
        assert text.count(_INTERVAL) == 2, "The example's intervals moved"
        definitions.write_text(text.replace(_INTERVAL, f"_interval_seconds={interval_seconds}"), encoding="utf-8")
    return {
        **_clean_environment(folder),
        "JAFFLE_SHOP_DB": str(folder / "data" / "jaffle_shop.duckdb"),
        "JAFFLE_SHOP_LANDING": str(folder / "data" / "landing"),
    }


def _clean_environment(folder: Path) -> dict[str, str]:
    """Return an environment with an empty Dagster instance, without what a developer's own environment says."""
    home = folder / "dagster_home"
    home.mkdir()
    (home / "dagster.yaml").write_text(_DAGSTER_YAML, encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DAGSTER_", "DBT_", "JAFFLE_"))}
    return {
        **kept,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "DAGSTER_HOME": str(home),
        "DAGSTER_DISABLE_TELEMETRY": "yes",
        "DO_NOT_TRACK": "1",
    }


def free_port() -> int:
    """Return a port that nothing listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _wait_until_loaded(dev: DagsterDev, process: subprocess.Popen[bytes]) -> None:
    def loaded() -> bool:
        assert process.poll() is None, f"dagster dev ended by itself:\n{dev.log()[-3000:]}"
        try:
            errors = dev.client.location_errors()
        except (requests.RequestException, GraphQLError):
            return False
        assert not errors, f"The code location did not load: {errors}"
        return errors is not None

    wait_for("the code location to load", loaded, seconds=START_SECONDS, details=lambda: dev.log()[-3000:])


def end_with_children(process: subprocess.Popen[bytes], home: Path) -> None:
    """End a service of Dagster, which ignores a polite request for longer than anybody waits, with all it started."""
    deadline = time.monotonic() + STOP_SECONDS
    while left := _processes_of(process.pid, home):
        assert time.monotonic() < deadline, f"Still running: {left}"
        for child in left:
            try:
                child.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(left, timeout=5)
        process.poll()


def _processes_of(session: int, home: Path) -> Sequence[psutil.Process]:
    """Return the processes that a service started: those of its session, and those with its instance."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if os.getsid(process.pid) == session or process.environ().get("DAGSTER_HOME") == str(home):
                found.append(process)
        except (psutil.Error, ProcessLookupError, PermissionError):
            continue
    return found
