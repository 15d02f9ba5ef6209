"""A code location on disk whose jobs run on a real dbt and DuckDB."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import closing

import dagster as dg
import duckdb

from dagster_sao.orchestration import clock
from dagster_sao.orchestration.events.event_schema import DECISION_KEY, reused_nodes
from dagster_sao.orchestration.private.dagster_internals import metadata_of_engine_event
from tests.conftest import run_dbt
from tests.support.polling import wait_for

OP = "shop_dbt_assets"
WAREHOUSE, PROFILES = "shop.duckdb", "dbt/profiles.yml"
FILES = {
    "dbt/dbt_project.yml": "{name: shop, version: 1.0.0, profile: shop, flags: {send_anonymous_usage_stats: false}}",
    PROFILES: "shop: {target: dev, outputs: {dev: {type: duckdb, path: '{folder}/shop.duckdb', threads: 1}}}",
    "dbt/models/sources.yml": "sources: [{name: raw, schema: raw, tables: [{name: orders}]}]",
    "dbt/models/checks.yml": "models: [{name: a, columns: [{name: id, data_tests: [not_null]}]}]",
    "dbt/models/a.sql": """
{{ config(materialized='table', freshness={'build_after': {'count': 1, 'period': 'hour'}}) }}
select * from {{ source('raw', 'orders') }}
""",
    "dbt/models/b.sql": "{{ config(materialized='table') }} select * from {{ ref('a') }}",
    "dbt/models/c.sql": "{{ config(materialized='table') }} select 1 as id",
    "defs.py": """
from pathlib import Path
from dagster_dbt import DbtProject
from dagster_sao import build_state_aware_definitions, build_state_aware_job

defs = build_state_aware_definitions(
    DbtProject(Path(__file__).parent / "dbt"),
    jobs=[
        build_state_aware_job("hourly", select="a+", schedule="0 * * * *"),
        build_state_aware_job("nightly", schedule="0 2 * * *", timezone="Europe/Oslo"),
        build_state_aware_job(
            "changed", select="state:modified", state="state", refresh_sources=False, schedule="0 * * * *"
        ),
        build_state_aware_job("everything", state_aware=False),
        build_state_aware_job("spread", select="a+", in_process=False),
    ],
)
""",
    "home/dagster.yaml": "telemetry: {enabled: false}",
}


class JobShop:
    """A code location on disk, its instance and its warehouse."""

    def __init__(self, folder):
        self.folder = folder
        self._kept = folder.with_name("kept")
        for name, text in FILES.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace("{folder}", str(folder)), encoding="utf-8")
        self.sql("create schema raw; create table raw.orders as select 1 as id")
        run_dbt(folder / "dbt", "parse")

    def keep(self):
        """Keep everything as it is, for `put_back`."""
        shutil.copytree(self.folder, self._kept)

    def put_back(self):
        """Put everything back as it was kept, in the same place: elsewhere, its database would count as another one."""
        wait_for("all to leave the folder", self._is_removed, seconds=60)
        shutil.copytree(self._kept, self.folder)

    def _is_removed(self):
        """Remove the folder, and return whether it is gone: a thread of the last test may still write there."""
        shutil.rmtree(self.folder, ignore_errors=True)
        return not self.folder.exists()

    def sql(self, statement):
        with closing(duckdb.connect(str(self.folder / WAREHOUSE))) as connection:
            return connection.execute(statement).fetchall()

    def execute(self, job, **config):
        """Run a job with `dagster job execute`. Returns the run's id."""
        (self.folder / "given.yaml").write_text(json.dumps({"ops": {OP: {"config": config}}} if config else {}))
        done = subprocess.run(
            [sys.executable, "-m", "dagster", "job", "execute", "-f", "defs.py", "-j", job, "-c", "given.yaml"],
            cwd=self.folder,
            env={**os.environ, "DAGSTER_HOME": str(self.folder / "home")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        with self.instance() as instance:
            return instance.get_run_records(limit=1)[0].dagster_run.run_id

    def execute_here(self, job, hours=0.0):
        """Run a job in this process, some hours from now. Returns the run's id."""
        ahead = round(hours * 3600 * 10**9)
        with self.instance() as instance, clock.simulated(lambda: time.time_ns() + ahead):
            job_def = self.defs.resolve_job_def(job)
            return job_def.execute_in_process(instance=instance).run_id

    @property
    def defs(self):
        scope = {"__file__": str(self.folder / "defs.py")}
        exec((self.folder / "defs.py").read_text(), scope)
        return scope["defs"]

    def instance(self):
        return dg.DagsterInstance.from_config(str(self.folder / "home"))

    def decisions(self, run_id):
        """Return what a run decided of each model, and the metadata and message of its summary."""
        said, summary, message = {}, {}, ""
        with self.instance() as instance:
            for entry in instance.all_logs(run_id):
                event = entry.dagster_event
                if event is None:
                    continue
                if event.is_step_materialization or event.event_type is dg.DagsterEventType.ASSET_OBSERVATION:
                    data = event.event_specific_data
                    told = data.materialization if event.is_step_materialization else data.asset_observation
                    said[told.asset_key.path[-1]] = told.metadata[DECISION_KEY].value
                said |= {
                    node.unique_id.split(".")[-1]: "reused" for node in reused_nodes(metadata_of_engine_event(event))
                }
                if "decisions" in getattr(event.event_specific_data, "metadata", {}):
                    summary = {name: value.value for name, value in event.event_specific_data.metadata.items()}
                    message = entry.message
        return said, summary, message
