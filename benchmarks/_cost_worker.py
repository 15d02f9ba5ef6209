"""A process with one version of the package, which executes commands and counts CPU seconds: part of `cost.py`.

    python benchmarks/_cost_worker.py CHECKOUT

Runs in the folder of a dbt project and takes the package from the checkout. Reads one command per line from stdin, executes it, and
answers with a line of JSON on stdout: the CPU seconds of the process and of what it started, and a count.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import statistics
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ.update(DO_NOT_TRACK="1", DAGSTER_DISABLE_TELEMETRY="yes", DBT_SEND_ANONYMOUS_USAGE_STATS="false")
os.environ["DBT_PROFILES_DIR"] = str(Path.cwd())
# dagster-dbt looks for dbt there.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
os.environ["PYTHONPATH"] = sys.argv[1]
sys.path.insert(0, sys.argv[1])

import dagster as dg
from dagster._core.definitions.sensor_definition import SensorExecutionData
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._grpc.impl import get_external_sensor_execution
from dagster_dbt import DbtProject

import dagster_sao
from dagster_sao import StateAwareProject, build_state_aware_definitions

# The name is stored, so it is the same in every version.
BUILD_KEY = "dagster_sao/build"
ORIGIN = InProcessCodeLocationOrigin(LoadableTargetOrigin())


class Version:
    """The version at work on one project and instance."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._cursors: dict[str, str | None] = {}
        self._definitions: dg.RepositoryDefinition | None = None

    def build(self) -> int:
        """Build what is due, as `dagster-sao build` does."""
        results = self._project().build(test_strategy="skip")
        return sum(node.status.value == "success" for node in results.values())

    def plan(self) -> int:
        """Open the project and plan, as `dagster-sao plan` does."""
        return len(self._project().plan(test_strategy="skip").builds)

    def load(self) -> int:
        """Load the definitions, as a code server does."""
        repository = build_state_aware_definitions(DbtProject(Path.cwd())).get_repository_def()
        self._definitions = repository
        return len(repository.asset_graph.get_all_asset_keys())

    def freshness(self) -> int:
        """Evaluate a tick of the freshness sensor."""
        return self._tick("freshness_sensor")

    def automation(self) -> int:
        """Evaluate a tick of the automation sensor."""
        return self._tick("automation_sensor")

    def record_bytes(self) -> int:
        """Return how long the record of a build is on average."""
        keys = self._instance.get_asset_keys()
        events = self._instance.get_latest_materialization_events(keys).values()
        found = [event.asset_materialization.metadata.get(BUILD_KEY) for event in events if event]
        return round(statistics.mean(len(json.dumps(one.value, separators=(",", ":"))) for one in found if one))

    def _project(self) -> StateAwareProject:
        return StateAwareProject(Path.cwd(), instance=self._instance)

    def _tick(self, kind: str) -> int:
        (name,) = (one.name for one in self._definitions.sensor_defs if one.name.endswith(kind))
        found = get_external_sensor_execution(
            self._definitions, ORIGIN, self._instance.get_ref(), name, None, None, self._cursors.get(name), None, None
        )
        assert isinstance(found, SensorExecutionData), found
        self._cursors[name] = found.cursor
        return sum(len(request.asset_selection or ()) for request in found.run_requests or ())


def cpu(work: Callable[[], int]) -> tuple[float, int]:
    """Return the CPU seconds of this process and its children during `work`, and what it returned."""

    def spent() -> float:
        return sum(
            usage.ru_utime + usage.ru_stime
            for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        )

    before = spent()
    count = work()
    return spent() - before, count


def main() -> None:
    assert Path(dagster_sao.__file__).is_relative_to(sys.argv[1]), dagster_sao.__file__
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    # What others print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    home = Path("home")
    home.mkdir(exist_ok=True)
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        version = Version(instance)
        for line in sys.stdin:
            print(json.dumps(cpu(getattr(version, line.strip()))), file=answers, flush=True)


if __name__ == "__main__":
    main()
