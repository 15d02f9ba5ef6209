"""Jobs of two code locations through Dagster's own queue, launcher and executors, on PostgreSQL."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest

from tests.conftest import run_dbt
from tests.support import forty_models as shop
from tests.support.dagster_dev import end_with_children
from tests.support.polling import wait_for
from tests.support.shop_worlds import PostgresWorld

pytestmark = pytest.mark.slow

SECONDS = 300
LOCATION = """
from dagster_dbt import DbtProject
from dagster_sao import build_state_aware_definitions, build_state_aware_job

defs = build_state_aware_definitions(DbtProject({folder!r}), warm_runs={warm}, jobs=[{jobs}])
"""
JOBS = {
    "shop.py": """
    build_state_aware_job("left", select="+m4_0 +m4_1", in_process=False),
    build_state_aware_job("right", select="+m4_1 +m4_2"),
""",
    "kiosk.py": 'build_state_aware_job("kiosk")',
}


class Deployment:
    """Two code locations, the daemon that runs their jobs, and the warehouse that they share."""

    def __init__(self, folder: Path, server) -> None:
        self.world = PostgresWorld(folder, server, "daemon_jobs")
        self.folder = folder
        kiosk = folder / "kiosk"
        (kiosk / "models").mkdir(parents=True)
        profiles = (self.world.folder / "profiles.yml").read_text()
        (kiosk / "profiles.yml").write_text(
            profiles.replace("shop:", "kiosk:", 1).replace("schema: shop", "schema: kiosk")
        )
        (kiosk / "dbt_project.yml").write_text("name: kiosk\nprofile: kiosk\n")
        (kiosk / "models" / "newspapers.sql").write_text("select 1 as id")
        run_dbt(kiosk, "parse")
        for file, jobs in JOBS.items():
            project = self.world.folder if file == "shop.py" else kiosk
            # One code server forks its runs, the other starts a new Python for each.
            warm = file == "shop.py"
            (folder / file).write_text(LOCATION.format(folder=str(project), warm=warm, jobs=jobs))
        (folder / "workspace.yaml").write_text("load_from: [python_file: shop.py, python_file: kiosk.py]")

    @property
    def _environment(self):
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "DAGSTER_HOME": str(self.world.home)}

    @contextmanager
    def daemon(self):
        """Run the daemon, with a code server for each location."""
        command = [sys.executable, "-m", "dagster._daemon", "run", "-w", "workspace.yaml"]
        with (self.folder / "daemon.log").open("wb") as log:
            process = subprocess.Popen(
                command, cwd=self.folder, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        try:
            yield
        finally:
            end_with_children(process, self.world.home)

    def launch(self, location, job):
        """Put a run into the queue."""
        command = [sys.executable, "-m", "dagster", "job", "launch", "-w", "workspace.yaml", "-l", location, "-j", job]
        subprocess.run(command, cwd=self.folder, env=self._environment, check=True, capture_output=True)

    def runs(self):
        return {record.dagster_run.job_name: record.dagster_run for record in self.world.instance.get_run_records()}

    def all_ended(self, count):
        runs = self.runs()
        return len(runs) == count and all(run.is_finished for run in runs.values()) and runs


def test_runs_of_two_code_locations_go_through_the_queue_and_build_each_model_once(tmp_path, postgres_server):
    deployment = Deployment(tmp_path, postgres_server)
    world = deployment.world
    with world.instance:
        shop.load(world.ask, range(shop.SOURCES), 1)
        since = world.now()
        for location, job in (("shop.py", "left"), ("shop.py", "right"), ("kiosk.py", "kiosk")):
            deployment.launch(location, job)
        assert {run.status for run in deployment.runs().values()} == {dg.DagsterRunStatus.QUEUED}
        with deployment.daemon():
            runs = wait_for(
                "the runs to end",
                lambda: deployment.all_ended(len(("left", "right", "kiosk"))),
                seconds=SECONDS,
                details=lambda: (tmp_path / "daemon.log").read_text()[-3000:],
            )
        assert {run.status for run in runs.values()} == {dg.DagsterRunStatus.SUCCESS}
        built = Counter(model for _, model, _ in world.builds(since))
        assert world.meetings() == []
        # Each run needs both of these models, and what is above them.
        assert {"m4_0", "m4_1", "m4_2"} <= set(built)
        assert {model: count for model, count in built.items() if count > 1 and model not in shop.VIEWS} == {}
        assert shop.differing(world.ask, set(built)) == []
        assert world.ask("select id from kiosk.newspapers") == [(1,)]
