"""All imports from the internals of Dagster and dagster-dbt, except those in `automation` and `dbt_commands`.

`tests/orchestration/private/test_dagster_internals.py` names each of them, so that an upgrade which moves one fails there first.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, nullcontext
from typing import Any

import dagster as dg
import sqlalchemy as sa
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.event_api import EventRecordsFilter
from dagster._core.events import BATCH_WRITABLE_EVENTS, DagsterEventType, EngineEventData
from dagster._core.execution.context.system import StepExecutionContext
from dagster._core.execution.stats import StepEventStatus
from dagster._core.instance.utils import RUNLESS_RUN_ID
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecord
from dagster._core.storage.dagster_run import FINISHED_STATUSES, NOT_FINISHED_STATUSES, RunsFilter
from dagster._core.storage.event_log import EventLogStorage, SqliteEventLogStorage
from dagster._core.storage.runs.sql_run_storage import SqlRunStorage
from dagster_dbt import DagsterDbtTranslator
from dagster_dbt.asset_utils import (
    DAGSTER_DBT_MANIFEST_METADATA_KEY,
    DAGSTER_DBT_UNIQUE_ID_METADATA_KEY,
    build_dbt_specs,
    get_asset_check_key_for_test,
)
from dagster_dbt.components.dbt_project.scaffolder import DbtProjectComponentScaffolder
from dagster_dbt.core.dbt_event_iterator import DbtEventIterator
from dagster_dbt.dbt_manifest import validate_manifest
from dagster_dbt.dbt_project import DagsterDbtProjectPreparer, DbtProject, using_dagster_dev
from dagster_dbt.dbt_project_manager import DbtProjectManager, RemoteGitDbtProjectManager
from dagster_dbt.utils import select_unique_ids
from dagster_shared.check import CheckError

__all__ = [
    "BATCH_WRITABLE_EVENTS",
    "FINISHED_STATUSES",
    "NOT_FINISHED_STATUSES",
    "DagsterEventType",
    "DbtEventIterator",
    "DbtProjectComponentScaffolder",
    "DbtProjectManager",
    "EventLogStorage",
    "RemoteGitDbtProjectManager",
    "RunsFilter",
    "SqliteEventLogStorage",
    "StepEventStatus",
    "all_check_keys",
    "build_dbt_specs",
    "database_engine",
    "dbt_resource",
    "events_after",
    "events_of_run",
    "expect_no_check_results",
    "forget_translations",
    "fresh_translator",
    "get_asset_check_key_for_test",
    "last_check_evaluations",
    "lend_instance",
    "listen_to_run",
    "maximum_event_id",
    "metadata_of_engine_event",
    "on_one_connection",
    "one_process_config",
    "planned_assets",
    "prepare_arguments",
    "read_value",
    "remember_outputs",
    "report_engine_event",
    "repository_of",
    "repository_of_tick",
    "schema_revisions",
    "select_unique_ids",
    "step_context",
    "step_key",
    "switched_sensors",
    "tell_listeners",
    "using_dagster_dev",
    "validate_manifest",
    "wipes_after",
    "with_specs",
    "write_value",
]

_PAGE = 1000


def maximum_event_id(instance: dg.DagsterInstance) -> int:
    """Return the id of the newest event of the instance, 0 where there is none."""
    return instance.event_log_storage.get_maximum_record_id() or 0


def events_after(
    instance: dg.DagsterInstance, event_type: DagsterEventType, after_id: int
) -> Iterator[dg.EventLogRecord]:
    """Yield the events of a type after an id, oldest first. Reads them in pages of a thousand."""
    is_last = False
    while not is_last:
        events = EventRecordsFilter(event_type, after_cursor=after_id)
        page = instance.event_log_storage.get_event_records(events, limit=_PAGE, ascending=True)
        yield from page
        is_last = len(page) < _PAGE
        after_id = page[-1].storage_id if page else after_id


def events_of_run(instance: dg.DagsterInstance, run_id: str) -> Sequence[dg.EventLogRecord]:
    """Return the events of a run about itself, its materializations and its observations, oldest first."""
    types = {
        DagsterEventType.ENGINE_EVENT,
        DagsterEventType.ASSET_MATERIALIZATION,
        DagsterEventType.ASSET_OBSERVATION,
    }
    return instance.get_records_for_run(run_id, of_type=types).records


def wipes_after(instance: dg.DagsterInstance, cursor: str | None) -> tuple[Mapping[dg.AssetKey, float], str]:
    """Return when assets' histories were wiped after `cursor` (None: ever), and the cursor for the next time.

    Unlike other asset events, on SQLite a wipe is only in the log of events without a run, which has its own ids.
    """
    found = instance.get_records_for_run(RUNLESS_RUN_ID, cursor, of_type=DagsterEventType.ASSET_WIPED)
    return {record.asset_key: record.timestamp for record in found.records if record.asset_key}, found.cursor


def read_value(instance: dg.DagsterInstance, key: str) -> str | None:
    """Return the value of a key in the instance's key-value store, None for no value."""
    return instance.daemon_cursor_storage.get_cursor_values({key}).get(key)


def write_value(instance: dg.DagsterInstance, key: str, value: str) -> None:
    """Keep a value in the instance's key-value store, for all processes."""
    instance.daemon_cursor_storage.set_cursor_values({key: value})


def schema_revisions(instance: dg.DagsterInstance) -> tuple[str | None, str | None]:
    """Return the revision of the schema of the instance's storage, and the one that this Dagster writes.

    Both are None where the storage has no schema.
    """
    found, head = instance.run_storage.alembic_version() or (None, None)
    return found, str(head) if head is not None else None


def switched_sensors(instance: dg.DagsterInstance) -> Mapping[str, bool]:
    """Return, by name, whether each sensor runs that was ever switched on or off, or that ran already."""
    if instance.schedule_storage is None:  # an ephemeral instance
        return {}
    states = instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)
    return {state.instigator_name: state.is_running for state in states}


def lend_instance(context: dg.ScheduleEvaluationContext, instance: dg.DagsterInstance) -> None:
    """Let a schedule's tick use an open instance. Dagster would open another one after it, to look for dynamic partitions."""
    context._instance = instance  # type: ignore[assignment]  # it has no type there


def listen_to_run(instance: dg.DagsterInstance, run_id: str, listener: Callable[[dg.DagsterEvent], None]) -> None:
    """Call `listener` with each event of a run that this process executes, when it is recorded."""

    def hear(entry: dg.EventLogEntry) -> None:
        if entry.dagster_event is not None:
            listener(entry.dagster_event)

    instance.add_event_listener(run_id, hear)


def tell_listeners(instance: dg.DagsterInstance, entry: dg.EventLogEntry) -> None:
    """Pass an event that was stored directly to the listeners of its run."""
    for hear in instance._subscribers[entry.run_id]:
        hear(entry)


def database_engine(instance: dg.DagsterInstance, *, keeps_open: bool = False) -> sa.Engine | None:
    """Return the database that the instance keeps its runs in, None where it is not a SQL database.

    Its transactions span several statements: Dagster's own connections to PostgreSQL commit each statement. With `keeps_open`,
    an SQLite file stays open between transactions, until `dispose` is called.
    """
    storage = instance.run_storage
    if not isinstance(storage, SqlRunStorage):
        return None
    with storage.connect() as connection:
        engine = connection.engine
    if keeps_open and engine.dialect.name == "sqlite":
        return sa.create_engine(engine.url, poolclass=sa.QueuePool, connect_args={"check_same_thread": False})
    return engine if engine.dialect.name == "sqlite" else engine.execution_options(isolation_level="READ COMMITTED")


def repository_of(context: dg.AssetExecutionContext) -> dg.RepositoryDefinition | None:
    """Return the code location of a run, None for a run without one, as `dagster.materialize` starts it."""
    try:
        return context.repository_def
    except CheckError:
        return None


def one_process_config(repository: dg.RepositoryDefinition) -> Mapping[str, Any]:
    """Return the config with which a run of assets is one process; empty where the user chose an executor."""
    job = repository.get_job(repository.get_implicit_asset_job_names()[0])
    if job.has_specified_executor:
        return {}
    return {"execution": {"config": {"in_process": {}}}}


def repository_of_tick(context: dg.ScheduleEvaluationContext) -> dg.RepositoryDefinition | None:
    """Return the code location of a schedule's tick, None for a tick without one."""
    return context._repository_def


def dbt_resource(metadata: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the properties of the dbt model that the metadata of an asset names, None for any other asset."""
    unique_id = metadata.get(DAGSTER_DBT_UNIQUE_ID_METADATA_KEY)
    wrapper = metadata.get(DAGSTER_DBT_MANIFEST_METADATA_KEY)
    manifest = getattr(wrapper, "manifest", None)
    return manifest["nodes"].get(unique_id) if isinstance(manifest, Mapping) else None


def with_specs(
    assets: dg.AssetsDefinition, specs: Sequence[dg.AssetSpec], check: Callable[[Iterable[dg.AssetSpec]], None]
) -> dg.AssetsDefinition:
    """Return assets with other specs, which have the same keys and dependencies.

    The specs are checked, also when Dagster derives others from them: `check` raises an error.
    """

    class Checked(dg.AssetsDefinition):
        @staticmethod
        def dagster_internal_init(**attributes: Any) -> dg.AssetsDefinition:  # noqa: ANN401 (Dagster's own)
            with warnings.catch_warnings():
                # Dagster passes these arguments on itself.
                warnings.simplefilter("ignore", dg.BetaWarning)
                made = Checked(**attributes)
            check(made.specs)
            return made

    return Checked.dagster_internal_init(**{**assets.get_attributes_dict(), "specs": specs})


def fresh_translator(translator: DagsterDbtTranslator) -> DagsterDbtTranslator:
    """Return a copy of a translator without its memory.

    dagster-dbt keeps in a translator every spec that it ever made, by the address of its manifest. A copy for each manifest
    ends with the manifest, and leaves the user's translator as it is.
    """
    fresh = copy.copy(translator)
    forget_translations(fresh)
    return fresh


def forget_translations(translator: DagsterDbtTranslator) -> None:
    """Empty the memory of a translator that is ours."""
    for name in ("_resolved_specs", "_colliding_source_keys_cache", "_state_aware_specs"):
        vars(translator).pop(name, None)


def prepare_arguments(project: DbtProject) -> list[str]:
    """Return the dbt command that parses a project; dagster-dbt's own for a preparer that somebody wrote."""
    preparer = project.preparer
    return list(getattr(preparer, "_prepare_project_cli_args", DagsterDbtProjectPreparer()._prepare_project_cli_args))


def all_check_keys(context: dg.AssetExecutionContext) -> AbstractSet[dg.AssetCheckKey]:
    """Return the asset checks of everything that is defined together with the job of a run, selected or not."""
    return context.job_def.asset_layer.asset_graph.source_asset_graph.asset_check_keys


def step_key(context: dg.AssetExecutionContext) -> str:
    """Return the key of the step that executes."""
    return str(context.op_execution_context.op_handle)


def step_context(context: dg.AssetExecutionContext) -> StepExecutionContext:
    """Return the step that executes, as Dagster's own code sees it."""
    return context.op_execution_context.get_step_execution_context()


def report_engine_event(
    instance: dg.DagsterInstance, run: dg.DagsterRun, message: str, metadata: Mapping[str, Any]
) -> None:
    """Write a message with metadata into a run's log: the only kind of event that is about the run, not an asset."""
    instance.report_engine_event(message, run, EngineEventData(metadata=metadata))


def expect_no_check_results(context: dg.AssetExecutionContext) -> None:
    """Keep Dagster from logging the checks of a step without a result of their own as missing outputs."""
    context.log.addFilter(lambda record: "did not yield or return expected outputs" not in record.getMessage())


def remember_outputs(context: dg.AssetExecutionContext) -> None:
    """Keep Dagster from listing all assets of a step for each of them, which takes time by more than the square of their number."""
    step = step_context(context)
    keys = frozenset(step.get_output_asset_keys())
    vars(step)["get_output_asset_keys"] = lambda: keys


def metadata_of_engine_event(event: dg.DagsterEvent) -> Mapping[str, Any]:
    """Return the metadata of an event about a run; nothing for any other event."""
    data = event.event_specific_data
    return data.metadata if isinstance(data, EngineEventData) else {}


_MOST_PLANNED = 20
_PLANNED: dict[str, AbstractSet[dg.AssetKey]] = {}
"""By the snapshot's id, which is a hash of its content: reading one takes the longer the more assets a job has, at each tick."""


def planned_assets(instance: dg.DagsterInstance, run: dg.DagsterRun) -> AbstractSet[dg.AssetKey] | None:
    """Return the assets that a run materializes, by its execution plan; None where it has none that is stored."""
    snapshot_id = run.execution_plan_snapshot_id
    if snapshot_id is None:
        return None
    if snapshot_id not in _PLANNED:
        plan = instance.get_execution_plan_snapshot(snapshot_id)
        outputs = (output.properties for step in plan.steps for output in step.outputs)
        keys = frozenset(found.asset_key for found in outputs if found is not None and found.asset_key is not None)
        if len(_PLANNED) >= _MOST_PLANNED:
            _PLANNED.clear()
        _PLANNED[snapshot_id] = keys
    return _PLANNED[snapshot_id]


def last_check_evaluations(
    instance: dg.DagsterInstance, keys: Iterable[dg.AssetCheckKey]
) -> Mapping[dg.AssetCheckKey, dg.AssetCheckEvaluation]:
    """Return the latest result of each check that was ever run, in one read."""
    latest = instance.event_log_storage.get_latest_asset_check_execution_by_key(list(keys))
    evaluations = {key: _evaluation(record) for key, record in latest.items()}
    return {key: evaluation for key, evaluation in evaluations.items() if evaluation is not None}


def _evaluation(record: AssetCheckExecutionRecord) -> dg.AssetCheckEvaluation | None:
    """Return the result that a record of a check holds, None where it is only planned."""
    event = record.event.dagster_event if record.event else None
    data = event.event_specific_data if event else None
    return data if isinstance(data, dg.AssetCheckEvaluation) else None


@contextmanager
def on_one_connection(storage: SqliteEventLogStorage) -> Iterator[SqliteEventLogStorage]:
    """Yield an event storage that does all its work on the index across runs in one transaction.

    Dagster opens the file for each query and each event, which takes longer than the query or event.
    """
    with storage.index_connection() as connection:
        shared = copy.copy(storage)
        shared.index_connection = lambda: nullcontext(connection)  # type: ignore[method-assign]
        yield shared
