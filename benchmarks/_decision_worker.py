"""A process with one version of the package, which measures on request: part of `decision_with_tests.py`.

    python benchmarks/_decision_worker.py CHECKOUT MANIFEST

Takes the package and the helpers of the benchmarks from the checkout. Reads what to measure from stdin, a line each, and writes
the answers to stdout as JSON, a line each.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

os.environ.update(DO_NOT_TRACK="1", DAGSTER_DISABLE_TELEMETRY="yes", DBT_SEND_ANONYMOUS_USAGE_STATS="false")
# dagster-dbt looks for dbt there.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
sys.path.insert(0, sys.argv[1])

import dagster as dg
from dagster._core.definitions.sensor_definition import SensorExecutionData
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._grpc.impl import get_external_sensor_execution
from dagster_dbt import DbtProject
from dagster_shared.serdes import serialize_value

import dagster_sao
from benchmarks._support import PROJECT, built_state, changed_sources, cpu_seconds, read_project, with_new_tokens
from benchmarks.automation_tick import _report, record_builds
from dagster_sao.core.decision.planner import make_plan
from dagster_sao.orchestration.definitions.build import build_state_aware_definitions

SENSOR = f"{PROJECT}_automation_sensor"
ORIGIN = InProcessCodeLocationOrigin(LoadableTargetOrigin())
NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


class Plans:
    """One pass over all models, without and with new data."""

    def __init__(self, manifest_path: Path) -> None:
        # Since dbt always writes one, a plan looks at the code of each node and test in this very manifest.
        self._project = replace(read_project(json.loads(manifest_path.read_bytes()), {}), manifest_id="manifest")
        self._unchanged = built_state(self._project, NOW)
        self._changed = with_new_tokens(self._unchanged, changed_sources(self._project), NOW)

    def plan(self) -> None:
        self._plan = make_plan(self._project, self._unchanged, now=NOW)

    def plan_with_new_data(self) -> None:
        self._plan = make_plan(self._project, self._changed, now=NOW)

    @property
    def due(self) -> tuple[int, int]:
        """How many models are to be built, and how many tests to be run."""
        return len(self._plan.builds), len(getattr(self._plan, "test_runs", ()))


class Ticks:
    """The automation sensor, asked by the function that the code server calls."""

    def __init__(self, folder: Path, manifest_path: Path, instance: dg.DagsterInstance) -> None:
        self._instance, self._cursor, self._versions = instance, None, itertools.count()
        (folder / "target").mkdir(parents=True)
        (folder / "dbt_project.yml").write_text(f"name: {PROJECT}\nprofile: {PROJECT}\n")
        (folder / "profiles.yml").write_text(
            f"{PROJECT}: {{target: d, outputs: {{d: {{type: duckdb, path: d.duckdb}}}}}}\n"
        )
        (folder / "target" / "manifest.json").write_bytes(manifest_path.read_bytes())
        self.load_seconds = cpu_seconds(lambda: self._load(folder))
        loaded = self._sensor.project.load()
        record_builds(instance, self._sensor.project, built_state(loaded.project, datetime.now(timezone.utc)))
        self._changed = [loaded.keys.by_unique_id[uid] for uid in changed_sources(loaded.project)]

    def _load(self, folder: Path) -> None:
        self._repository = build_state_aware_definitions(DbtProject(folder)).get_repository_def()
        self._sensor = self._repository.get_sensor_def(SENSOR)

    def new_data(self) -> None:
        """Report new data in 1 % of the sources."""
        version = str(next(self._versions))
        for key in self._changed:
            _report(self._instance, key, version)

    def tick(self) -> None:
        """Evaluate one tick, and serialize what is sent to the daemon."""
        self._result = get_external_sensor_execution(
            self._repository, ORIGIN, self._instance.get_ref(), SENSOR, None, None, self._cursor, None, None
        )
        serialize_value(self._result)
        assert isinstance(self._result, SensorExecutionData), self._result
        self._cursor = self._result.cursor

    @property
    def due(self) -> tuple[int, int]:
        """How many models were asked for, and how many tests by their checks."""
        requests = self._result.run_requests or ()
        return (
            sum(len(request.asset_selection or ()) for request in requests),
            sum(len(request.asset_check_keys or ()) for request in requests),
        )


def main() -> None:
    assert Path(dagster_sao.__file__).is_relative_to(sys.argv[1]), dagster_sao.__file__
    warnings.simplefilter("ignore")
    logging.disable(logging.INFO)
    # What others print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with tempfile.TemporaryDirectory() as name, dg.DagsterInstance.local_temp(name) as instance:
        plans = Plans(Path(sys.argv[2]))
        ticks = Ticks(Path(name) / "dbt", Path(sys.argv[2]), instance)
        nothing: Callable[[], None] = lambda: None  # noqa: E731
        works = {
            "plan": (plans, plans.plan, nothing),
            "plan with new data": (plans, plans.plan_with_new_data, nothing),
            "tick": (ticks, ticks.tick, nothing),
            "tick with new data": (ticks, ticks.tick, ticks.new_data),
        }
        for line in sys.stdin:
            if line.strip() == "load":
                answer = [ticks.load_seconds, 0, 0]
            else:
                what, work, before = works[line.strip()]
                before()
                answer = [cpu_seconds(work), *what.due]
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
