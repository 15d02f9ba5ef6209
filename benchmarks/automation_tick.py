"""CPU of one automation tick: `StateAwareAutomationSensor` beside Dagster's `AutomationCondition.eager()`.

    python benchmarks/automation_tick.py [500 1000 10000] [--eager-up-to 1000]

Both decide about the same asset keys and dependencies from the same events, in an instance on SQLite. Ours is evaluated as the
code server does it, with an instance opened for each tick; `eager()` is evaluated as the daemon evaluates it, in its own
process with its instance open. Both include the serialization of the result.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import os
import sqlite3
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

# Before dbt and Dagster are imported, which read these then.
os.environ.update(DO_NOT_TRACK="1", DAGSTER_DISABLE_TELEMETRY="yes", DBT_SEND_ANONYMOUS_USAGE_STATS="false")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import dagster as dg
import sqlalchemy
from dagster._core.definitions.sensor_definition import SensorExecutionData
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._grpc.impl import get_external_sensor_execution
from dagster_dbt import DbtProject
from dagster_shared.serdes import serialize_value

from benchmarks._support import (
    PROJECT,
    built_state,
    changed_sources,
    cpu_seconds,
    median_cpu,
    print_table,
    synthetic_manifest,
    write_dbt_project,
)
from dagster_sao.core.state.state import StateSnapshot
from dagster_sao.orchestration.definitions.build import build_state_aware_definitions
from dagster_sao.orchestration.events.event_schema import BUILD_KEY, DATA_VERSION_TAG
from dagster_sao.orchestration.events.record_json import build_to_json
from dagster_sao.orchestration.private.automation import evaluate_conditions
from dagster_sao.orchestration.project.orchestrated import OrchestratedProject
from dagster_sao.orchestration.state.verdicts import VerdictTable

REPEATS = 7
EAGER_REPEATS = 3
SENSOR = f"{PROJECT}_automation_sensor"
ORIGIN = InProcessCodeLocationOrigin(LoadableTargetOrigin())


class StateAware:
    """The sensor of a made-up project, in a repository as the code server holds it."""

    def __init__(self, folder: Path, models: int, instance: dg.DagsterInstance) -> None:
        self._instance_ref = instance.get_ref()
        self._cursor: str | None = None
        write_dbt_project(folder, synthetic_manifest(models))
        definitions = build_state_aware_definitions(DbtProject(folder))
        self.repository = definitions.get_repository_def()
        sensor = self.repository.get_sensor_def(SENSOR)
        self.project: OrchestratedProject = sensor.project

    def tick(self) -> None:
        """Let the code server's own function evaluate one tick, and serialize what it sends to the daemon."""
        self.result = get_external_sensor_execution(
            self.repository, ORIGIN, self._instance_ref, SENSOR, None, None, self._cursor, None, None
        )
        self.payload = serialize_value(self.result)
        assert isinstance(self.result, SensorExecutionData), self.result
        self._cursor = self.result.cursor

    @property
    def requested(self) -> int:
        return sum(len(request.asset_selection or ()) for request in self.result.run_requests or ())


class Eager:
    """Dagster's own condition on the same assets."""

    def __init__(self, other: StateAware, instance: dg.DagsterInstance) -> None:
        loaded = other.project.load()
        project, keys = loaded.project, loaded.keys
        specs = [
            dg.AssetSpec(
                keys.by_unique_id[uid],
                deps=[keys.by_unique_id[parent] for parent in node.parents],
                automation_condition=dg.AutomationCondition.eager(),
            )
            for uid, node in project.graph.nodes.items()
        ]

        @dg.multi_asset(specs=specs, can_subset=True)
        def models(): ...

        sources = [dg.AssetSpec(keys.by_unique_id[uid]) for uid in project.graph.sources]
        self._sensor = dg.AutomationConditionSensorDefinition("eager", target="*")
        definitions = dg.Definitions([models, *sources], sensors=[self._sensor])
        self._keys = [keys.by_unique_id[uid] for uid in project.graph.nodes]
        self._context = dg.build_sensor_context(instance, repository_def=definitions.get_repository_def())
        self._context.log.setLevel(logging.WARNING)
        self._cursor: str | None = None

    def tick(self) -> None:
        """Evaluate the conditions, and serialize what the daemon stores."""
        requested, evaluations, self._cursor = evaluate_conditions(
            self._sensor, self._context, self._keys, self._cursor
        )
        self.requested = len(requested)
        self.payload = self._cursor + serialize_value(list(evaluations))


def record_builds(instance: dg.DagsterInstance, project: OrchestratedProject, state: StateSnapshot) -> None:
    """Write the events that a run of the whole project would have left, sources first, and the verdicts of its tests."""
    keys = project.load().keys.by_unique_id
    with without_waiting_for_the_disk():
        for uid, source in state.sources.items():
            _report(instance, keys[uid], source.token)
        for uid, build in state.builds.items():
            _report(instance, keys[uid], build.data_version, {BUILD_KEY: dg.MetadataValue.json(build_to_json(build))})
        VerdictTable(instance, project.state_name).write(state.verdicts)


@contextmanager
def without_waiting_for_the_disk() -> Iterator[None]:
    """Let SQLite's new connections leave it to the system when it writes."""

    def pragma(connection: object, _record: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("pragma synchronous = off")

    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", pragma)
    try:
        yield
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "connect", pragma)


def _report(
    instance: dg.DagsterInstance, key: dg.AssetKey, version: str, metadata: dict[str, dg.MetadataValue] | None = None
) -> None:
    tags = {DATA_VERSION_TAG: version}
    instance.report_runless_asset_event(dg.AssetMaterialization(key, metadata=metadata, tags=tags))


class Figures(NamedTuple):
    """What one kind of tick costs and asks for."""

    seconds: float
    requested: int
    megabytes: float = 0.0


def measure(models: int, *, with_eager: bool) -> list[list[str]]:
    with tempfile.TemporaryDirectory() as name, dg.DagsterInstance.local_temp(name) as instance:
        made: list[StateAware] = []
        load = cpu_seconds(lambda: made.append(StateAware(Path(name) / "dbt", models, instance)))
        ours = made[0]
        project = ours.project.load().project
        record_builds(instance, ours.project, built_state(project, datetime.now(timezone.utc)))
        changed = [ours.project.load().keys.by_unique_id[uid] for uid in changed_sources(project)]
        versions = itertools.count()

        def new_data() -> None:
            version = str(next(versions))
            for key in changed:
                _report(instance, key, version)

        def ticks(sensor: StateAware | Eager, repeats: int) -> list[Figures]:
            """Measure the first tick, one that finds nothing and one that finds new data."""
            figures = []
            for count, before in ((1, lambda: None), (repeats, lambda: None), (repeats, new_data)):
                seconds = median_cpu(sensor.tick, count, before)
                figures.append(Figures(seconds, sensor.requested, len(sensor.payload) / 1e6))
            assert [bool(one.requested) for one in figures] == [False, False, True]
            return figures

        mine = ticks(ours, REPEATS)
        theirs = ticks(Eager(ours, instance), EAGER_REPEATS) if with_eager else [None] * len(mine)
    names = ("first tick of the process", "nothing changed", "1 % of sources changed")
    return [
        ["loading the definitions", f"{load:.2f}"],
        *(_cells(*row) for row in zip(names, mine, theirs, strict=True)),
    ]


def _cells(name: str, mine: Figures, theirs: Figures | None) -> list[str]:
    cells = [name, f"{mine.seconds:.3f}", f"{mine.requested:,}", f"{mine.megabytes:.2f}"]
    if theirs is None:
        return cells
    ratio = f"{theirs.seconds / mine.seconds:,.0f} ×"
    return [*cells, f"{theirs.seconds:.2f}", f"{theirs.requested:,}", f"{theirs.megabytes:.2f}", ratio]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sizes", nargs="*", type=int, default=[500, 1000, 10000])
    parser.add_argument("--eager-up-to", type=int, default=1000, metavar="N", help="measure eager() up to N models")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.INFO)
    for models in options.sizes:
        print_table(
            f"One automation tick, {models:,} models, CPU seconds (median of {REPEATS}; of {EAGER_REPEATS} for eager)",
            ["tick", "state-aware", "requested", "MB", "eager()", "requested", "MB", "ratio"],
            measure(models, with_eager=models <= options.eager_up_to),
        )


if __name__ == "__main__":
    main()
