"""A small project under the sensors, jobs and hands of a history, for one case at a time. dbt runs in this process."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb

from dagster_sao.orchestration.events.event_schema import DECISION_KEY, REASON_KEY, TESTS_KEY, reused_nodes
from dagster_sao.orchestration.private.dagster_internals import metadata_of_engine_event
from tests.histories.inprocess_dbt import InProcessDbt, run_dbt
from tests.histories.schedules import Answer
from tests.histories.simulated_time import SimulatedTime
from tests.histories.station import Run, Station

TABLE, VIEW = "{{ config(materialized='table') }} ", "{{ config(materialized='view') }} "
_FILES = {
    "dbt_project.yml": "{name: shop, version: 1.0.0, profile: shop, flags: {send_anonymous_usage_stats: false}}",
    "profiles.yml": """
shop:
  target: warehouse
  outputs: {warehouse: {type: duckdb, path: "FOLDER/warehouse.duckdb", threads: 1}}
""",
}


@dataclass
class Told:
    """What a run told."""

    run_id: str
    success: bool
    failure: str = ""
    """Why the run failed."""
    nodes: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """By name: the decision and the reason."""
    tests: Mapping[str, str] = field(default_factory=dict)
    """By name: the result."""
    checks: Mapping[str, list[dg.AssetCheckEvaluation]] = field(default_factory=dict)
    """By name: what Dagster was told of it in the run, with the asset it is shown on."""


def built(told: Told) -> set[str]:
    """Return the names of the nodes that a run built."""
    return {name for name, (what, _) in told.nodes.items() if what == "build"}


class Lab(Station):
    """One case in progress."""

    def __init__(
        self, folder: Path, instance: dg.DagsterInstance, time: SimulatedTime, files: Mapping[str, str], options: Any
    ) -> None:
        self._files_folder = folder
        self.told: list[Told] = []
        self._write({**_FILES, **files})
        super().__init__(folder, folder / "target" / "current", instance, time, options=options)

    # What others do

    def edit(self, files: Mapping[str, str]) -> None:
        """Change files of the project, and parse it."""
        self._write(files)
        self.watch.learned(self._names)

    def _write(self, files: Mapping[str, str]) -> None:
        for name, text in files.items():
            path = self._files_folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace("FOLDER", str(self._files_folder)), encoding="utf-8")
        parsed = self._files_folder / "target" / "current"
        result = run_dbt(["parse", "--target", "warehouse"], self._files_folder, parsed)
        assert result.success, result.exception
        temporary = self._files_folder / "target" / "manifest.json.new"
        shutil.copyfile(parsed / "manifest.json", temporary)
        temporary.replace(self._files_folder / "target" / "manifest.json")

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(self._folder / "warehouse.duckdb")) as db:
            return db.execute(statement).fetchall()

    def advance(self, **duration: float) -> None:
        self._time.advance(timedelta(**duration))
        self.watch.advances += 1

    # What Dagster does

    def start_anew(self, **options: Any) -> None:
        """Start a code server whose definitions have other options."""
        self._options = options
        self.restart()

    def cycle(self) -> list[Told]:
        """Tick both sensors and execute what they ask for. Returns what its runs told."""
        before = len(self.told)
        self._cycle()
        return self.told[before:]

    def settle(self) -> None:
        """Go on until nothing is asked for."""
        self.quiesce()

    def look(self) -> None:
        """Tick the freshness sensor."""
        self._freshness()

    def job(self, *names: str) -> Told:
        """Run a state-aware job."""
        self._look_as_jobs_do()
        self._job(list(names))
        return self.told[-1]

    def terminate_next(self) -> None:
        """Let somebody terminate the next run in Dagster, before dbt has written anything."""

        self._terminate(1)

    def again(self, told: Told) -> Told:
        """Execute a state-aware run again as "re-execute from failure" and run retries do."""
        parent = self._instance.get_run_by_id(told.run_id)
        assert parent is not None
        tags = {
            "dagster/parent_run_id": told.run_id,
            "dagster/root_run_id": told.run_id,
            "dagster/is_resume_retry": "true",
        }
        self._execute(self._new_run(self._names, tags, decides=True))
        return self.told[-1]

    def materialize(self, *names: str) -> Told:
        self._materialize(list(names))
        return self.told[-1]

    def materialize_beside(self, *names: str) -> Told:
        """Materialize nodes while another run is under way."""
        running, self._running = self._running, None
        told = self.materialize(*names)
        self._running = running
        return told

    def check(self, *names: str) -> Told:
        """Run checks by hand, without their assets."""
        keys = {key for key in self._repository.asset_graph.asset_check_keys if key.name in names}
        self._execute(self._new_run((), checks=keys))
        return self.told[-1]

    def delete_last_run(self) -> None:
        self._instance.delete_run(self.told[-1].run_id)

    @property
    def folder(self) -> Path:
        """The dbt project's folder."""
        return self._files_folder

    @property
    def definitions(self) -> dg.Definitions:
        """The definitions of the code server that runs now."""
        return self._definitions

    @property
    def instance(self) -> dg.DagsterInstance:
        """The Dagster instance."""
        return self._instance

    @property
    def invocations(self) -> int:
        """How often runs have started dbt."""
        return InProcessDbt.stage.count

    @property
    def verdicts(self) -> dict[str, str]:
        return {name: verdict.status.value for name, verdict in self._verdicts().items()}

    def decision(self, name: str) -> tuple[str, str]:
        """Return what would become of a node now."""
        decision = self._decisions()[name]
        return decision.action.value, decision.message

    def _look_as_jobs_do(self) -> None:
        self._has_unseen_data = False

    def _execute(self, asked: Run, tick: Answer | None = None) -> None:
        super()._execute(asked, tick)
        self.told.append(self._read(asked.run.run_id))

    def _read(self, run_id: str) -> Told:
        run = self._instance.get_run_by_id(run_id)
        nodes: dict[str, tuple[str, str]] = {}
        tests: dict[str, str] = {}
        checks: dict[str, list[dg.AssetCheckEvaluation]] = {}
        failure = ""
        loaded = self.project.load()
        labels, keys = loaded.project.graph.tests, loaded.keys.by_unique_id
        for entry in self._instance.all_logs(run_id):
            event = entry.dagster_event
            data = event.event_specific_data if event is not None else None
            if event is not None and event.is_step_failure and data.user_failure_data is not None:
                failure = str(data.user_failure_data.description)
            if isinstance(data, dg.AssetCheckEvaluation):
                checks.setdefault(data.check_name, []).append(data)
            elif event is not None and (told := _metadata(event)) is not None and event.asset_key is not None:
                if DECISION_KEY in told:
                    nodes[event.asset_key.path[-1]] = told[DECISION_KEY].value, told[REASON_KEY].value
            elif TESTS_KEY in (getattr(data, "metadata", None) or {}):
                tests = {labels[uid].name: found["result"] for uid, found in data.metadata[TESTS_KEY].value.items()}
            for node in reused_nodes(metadata_of_engine_event(event)) if event is not None else ():
                nodes[keys[node.unique_id].path[-1]] = "reused", node.message
        return Told(run_id, run is not None and run.is_success, failure, nodes, tests, checks)

    def _judge_run(self, asked: Run, built: AbstractSet[str]) -> None:
        del asked, built


def _metadata(event: dg.DagsterEvent) -> Mapping[str, Any] | None:
    if event.is_step_materialization:
        return event.step_materialization_data.materialization.metadata
    if event.event_type is dg.DagsterEventType.ASSET_OBSERVATION:
        return event.asset_observation_data.asset_observation.metadata
    return None


@contextmanager
def lab(folder: Path, files: Mapping[str, str], setup: Iterable[str], **options: Any) -> Iterator[Lab]:
    """Begin a case: a project of `files`, a warehouse after `setup`, and an instance that has seen nothing."""
    with duckdb.connect(str(folder / "warehouse.duckdb")) as db:
        for statement in setup:
            db.execute(statement)
    time = SimulatedTime()
    with time.in_force(), dg.DagsterInstance.ephemeral() as instance:
        yield Lab(folder.resolve(), instance, time, files, options)
