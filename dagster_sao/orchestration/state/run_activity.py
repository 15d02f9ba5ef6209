"""What the runs of a project are doing, and what ended runs were requested for."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

import dagster as dg

from dagster_sao.core.state.state import FailureKind
from dagster_sao.orchestration.events.event_schema import (
    CARRIERS_TAG,
    FAILURE_KEY,
    PROJECT_TAG,
    TESTS_TAG,
    from_timestamp,
    plain,
)
from dagster_sao.orchestration.events.record_json import failure_from_json
from dagster_sao.orchestration.private.dagster_internals import (
    NOT_FINISHED_STATUSES,
    RunsFilter,
    events_of_run,
    planned_assets,
)
from dagster_sao.orchestration.project.loaded import LoadedProject

FAILURES_WITH_A_WAIT = frozenset({FailureKind.BUILD, FailureKind.LIMITED})
"""The kinds of failures with a wait of their own. After an interruption, the run had no outcome."""


@dataclass(frozen=True, slots=True)
class EndedRun:
    """A run that a sensor of this package asked for and that has ended."""

    created_at: datetime
    ended_at: datetime
    run_id: str = ""


@dataclass(frozen=True, slots=True)
class RunActivity:
    """What runs of the project are doing, and what they just did."""

    building: Mapping[str, str]
    """The nodes in the selection of an unfinished run, with the run's id."""
    testing: Mapping[str, str]
    """The tests that an unfinished run was asked for by name, with the run's id."""
    ended: Mapping[str, EndedRun]
    """The nodes that a recently ended run of the sensor was asked for, with the latest such run."""


@dataclass(frozen=True, slots=True)
class Reported:
    """What a run reported of nodes, whatever other runs did since."""

    built: frozenset[str] = frozenset()
    failed: frozenset[str] = frozenset()


def run_activity(
    instance: dg.DagsterInstance,
    loaded: LoadedProject,
    project_name: str,
    repository: dg.RepositoryDefinition | None,
    since: datetime,
) -> RunActivity:
    """Return what unfinished runs will write and test, and what runs that ended after `since` were asked for."""
    keys, check_keys = loaded.keys, loaded.check_keys
    building: dict[str, str] = {}
    testing: dict[str, str] = {}
    for run in instance.get_runs(RunsFilter(statuses=NOT_FINISHED_STATUSES)):
        for key in _selected_keys(instance, run, repository):
            if key in keys.unique_ids:
                building[keys.unique_ids[key]] = run.run_id
        testing.update(dict.fromkeys(_tests_of(run, check_keys), run.run_id))
    ended: dict[str, EndedRun] = {}
    recent = RunsFilter(tags={PROJECT_TAG: project_name}, updated_after=since)
    for record in reversed(instance.get_run_records(recent)):
        is_asked_for_nodes = CARRIERS_TAG not in record.dagster_run.tags
        if record.dagster_run.is_finished and record.end_time is not None and is_asked_for_nodes:
            answer = EndedRun(record.create_timestamp, from_timestamp(record.end_time), record.dagster_run.run_id)
            ended.update(
                {keys.unique_ids[k]: answer for k in record.dagster_run.asset_selection or () if k in keys.unique_ids}
            )
    return RunActivity(building, testing, ended)


def reported_by(instance: dg.DagsterInstance, loaded: LoadedProject, run_id: str) -> Reported:
    """Return what a run reported of the project's nodes."""
    built, failed = set(), set()
    for record in events_of_run(instance, run_id):
        event = record.event_log_entry.dagster_event
        uid = loaded.keys.unique_ids.get(event.asset_key) if event is not None and event.asset_key is not None else None
        if uid is None:
            continue
        if record.asset_materialization is not None:
            built.add(uid)
        elif (observation := record.event_log_entry.asset_observation) is not None:
            failure = failure_from_json(plain(observation.metadata).get(FAILURE_KEY))
            if failure is not None and failure.kind in FAILURES_WITH_A_WAIT:
                failed.add(uid)
    return Reported(frozenset(built), frozenset(failed))


def asked_at(instance: dg.DagsterInstance, run_ids: Collection[str]) -> dict[str, datetime]:
    """Return when runs were created, by id, without those that were deleted since."""
    records = instance.get_run_records(RunsFilter(run_ids=list(run_ids)))
    return {record.dagster_run.run_id: record.create_timestamp for record in records}


def _tests_of(run: dg.DagsterRun, check_keys: Mapping[str, dg.AssetCheckKey]) -> Iterator[str]:
    """Yield the tests that a run was asked for by name."""
    yield from json.loads(run.tags.get(TESTS_TAG, "[]"))
    if run.asset_check_selection:
        yield from (uid for uid, key in check_keys.items() if key in run.asset_check_selection)


def _selected_keys(
    instance: dg.DagsterInstance, run: dg.DagsterRun, repository: dg.RepositoryDefinition | None
) -> Iterable[dg.AssetKey]:
    if run.asset_selection:
        return run.asset_selection
    if repository is None or not repository.has_job(run.job_name):
        return ()
    # A job of another code location may have the same name, and a run of checks has no assets either.
    planned = planned_assets(instance, run)
    if planned is not None:
        return planned
    return repository.get_job(run.job_name).asset_layer.executable_asset_keys
