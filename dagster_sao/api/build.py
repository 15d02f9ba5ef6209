"""A build as a Dagster run in this process, with its results for the caller."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import dagster as dg

from dagster_sao.api.request import BuildRequest
from dagster_sao.api.results.dbt_artifacts import RUN_RESULTS, marked_artifacts, said_by_dbt, target_folder
from dagster_sao.api.results.read_results import heard_results, read_results
from dagster_sao.api.results.values import BuildResults, NodeResult, TestResult
from dagster_sao.api.run_results import write_run_results
from dagster_sao.orchestration import clock
from dagster_sao.orchestration.messages import one_line, sentence
from dagster_sao.orchestration.private.dagster_internals import events_of_run, listen_to_run
from dagster_sao.orchestration.project.loaded import LoadedProject
from dagster_sao.orchestration.project.orchestrated import OrchestratedProject
from dagster_sao.orchestration.selection.resolve import resolve_selection

_INTERRUPTED = "DagsterExecutionInterruptedError"
_CLASS = re.compile(r"^(?:\w+\.)+\w+: ")

Listener = Callable[[NodeResult | TestResult], None]


def run_build(  # noqa: PLR0913 (what a run is given)
    project: OrchestratedProject,
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    request: BuildRequest,
    *,
    variables: Mapping[str, Any],
    listener: Listener | None = None,
    log_level: str = "INFO",
) -> BuildResults:
    """Build as `request` says, and return the result of each node and test.

    `listener` is called with each result as soon as it is known.
    """
    loaded, started_at = project.load(), clock.now()
    selected = resolve_selection(project, loaded, request.selection)
    run_id = str(uuid.uuid4())
    if not selected:
        # To Dagster, a run without a selection would be a run of everything.
        return read_results((), loaded, (), run_id=run_id, started_at=started_at, ended_at=started_at)
    if listener is not None:
        _listen(instance, run_id, loaded, listener)
    job = definitions.resolve_implicit_global_asset_job_def()
    config = request.run_config(project, variables)
    # Definitions with their own loggers decide what is logged where.
    loggers = {} if job.has_specified_loggers else {"console": {"config": {"log_level": log_level}}}
    with marked_artifacts(run_id):
        result = job.execute_in_process(
            run_config=dg.RunConfig(ops=dict.fromkeys(_op_names(definitions, loaded), config), loggers=loggers),
            instance=instance,
            asset_selection=[loaded.keys.by_unique_id[uid] for uid in selected],
            run_id=run_id,
            raise_on_error=False,
        )
    said = said_by_dbt(target_folder(project), run_id, started_at)
    recorded = [record.event_log_entry.dagster_event for record in events_of_run(instance, run_id)]
    results = read_results(
        filter(None, recorded),
        loaded,
        selected,
        run_id=run_id,
        started_at=started_at,
        ended_at=clock.now(),
        error="" if result.success else _failure_of(result),
        said=said,
    )
    try:
        write_run_results(results, project, loaded, request, said)
    except OSError as error:
        # The run is over. What became of it must not be lost with a file for other tools.
        path = target_folder(project) / RUN_RESULTS
        warning = f"{path} could not be written, so it does not describe this run: {sentence(error)}"
        return replace(results, warnings=(*results.warnings, warning))
    return results


def _op_names(definitions: dg.Definitions, loaded: LoadedProject) -> set[str]:
    nodes = {loaded.keys.by_unique_id[uid] for uid in loaded.keys.nodes}
    found = definitions.get_repository_def().assets_defs_by_key
    return {found[key].op.name for key in nodes if key in found}


def _listen(instance: dg.DagsterInstance, run_id: str, loaded: LoadedProject, listener: Listener) -> None:
    tests = {key: uid for uid, key in loaded.check_keys.items()}

    def hear(event: dg.DagsterEvent) -> None:
        for result in heard_results(event, loaded, tests):
            listener(result)

    listen_to_run(instance, run_id, hear)


def _failure_of(result: dg.ExecuteInProcessResult) -> str:
    """Return why a run failed, as one line."""
    for event in result.all_events:
        if event.is_step_failure:
            failure, error = event.step_failure_data.user_failure_data, event.step_failure_data.error
            while error is not None and error.cause is not None and error.cls_name != _INTERRUPTED:
                error = error.cause
            if error is not None and error.cls_name == _INTERRUPTED:
                return "Interrupted"
            text = (failure.description if failure else None) or (error.message if error else "")
            # The class of an error is for programmers.
            return _CLASS.sub("", one_line(text))
    return "The run failed before any model was built"
