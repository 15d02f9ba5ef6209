"""`run_results.json` as dbt writes it, for a whole run: what dbt built, and what it was not asked to build.

A run may start dbt several times or not at all, each time with separate artifacts. So tools that read dbt's target folder find
the whole run there.
https://docs.getdbt.com/reference/artifacts/run-results-json
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from dagster_sao.api.request import BuildRequest
from dagster_sao.api.results.dbt_artifacts import RUN_RESULTS, target_folder
from dagster_sao.api.results.values import BuildResults, NodeResult, NodeStatus, TestResult, TestStatus
from dagster_sao.orchestration.files import write_json
from dagster_sao.orchestration.project.loaded import LoadedProject
from dagster_sao.orchestration.project.orchestrated import OrchestratedProject
from dagster_sao.orchestration.runs.config import RUN_OPTIONS
from dagster_sao.warehouse.redaction import learn, masked_values, secrets_in

_SCHEMA = "https://schemas.getdbt.com/dbt/run-results/v6.json"
_THREAD = "Thread-1"
# dbt has no words for these. To a reader of the file a held node was not built because of a failure, and a test whose
# verdict stands was not run: it must not count as a new pass.
_NODE_STATUSES = {NodeStatus.HELD: "skipped"}
_TEST_STATUSES = {TestStatus.REUSED: "skipped"}


def write_run_results(
    results: BuildResults,
    project: OrchestratedProject,
    loaded: LoadedProject,
    request: BuildRequest,
    said: Mapping[str, Mapping[str, Any]],
) -> Path:
    """Write the results of a run into the target folder of the dbt project, and return the file.

    `said` has dbt's own result for each node and test that dbt reached.
    """
    document = {
        "metadata": {
            "dbt_schema_version": _SCHEMA,
            "dbt_version": loaded.manifest["metadata"].get("dbt_version"),
            "generated_at": _text(results.ended_at),
            "invocation_id": results.run_id,
            "env": {},
        },
        "results": [
            *(_node_entry(result, loaded, said.get(uid)) for uid, result in results.items()),
            *(_test_entry(test, said.get(uid)) for uid, test in results.tests.items()),
            *(entry for uid, entry in said.items() if uid not in results.nodes and uid not in results.tests),
        ],
        "elapsed_time": results.seconds,
        "args": _arguments(project, request),
    }
    path = target_folder(project) / RUN_RESULTS
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, _masked(document))
    return path


def _masked(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document with its words masked: the messages and values, not the names that other tools look up."""
    results = [{**entry, "message": masked_values(entry.get("message"))} for entry in document["results"]]
    args = dict(document["args"])
    learn(secrets_in(args.get("vars", {}), os.environ))
    return {**document, "results": results, "args": masked_values(args)}


def _node_entry(result: NodeResult, loaded: LoadedProject, said: Mapping[str, Any] | None) -> Mapping[str, Any]:
    status = _NODE_STATUSES.get(result.status, result.status.value)
    if said is not None and result.status in (NodeStatus.SUCCESS, NodeStatus.ERROR):
        return said
    node = loaded.project.graph.nodes[result.unique_id]
    entry = _entry(result.unique_id, status, result.message, result.seconds)
    if result.started_at is not None and result.ended_at is not None:
        times = {"started_at": _text(result.started_at), "completed_at": _text(result.ended_at)}
        entry["timing"] = [{"name": "execute", **times}]
    return {**entry, "relation_name": node.relation_name}


def _test_entry(test: TestResult, said: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if said is not None:
        return said
    status = _TEST_STATUSES.get(test.status, test.status.value)
    return {**_entry(test.unique_id, status, test.message or None, 0.0), "failures": test.failures}


def _entry(unique_id: str, status: str, message: str | None, seconds: float) -> dict[str, Any]:
    return {
        "status": status,
        "timing": [],
        "thread_id": _THREAD,
        "execution_time": seconds,
        "adapter_response": {},
        "message": message,
        "failures": None,
        "unique_id": unique_id,
        "compiled": None,
        "compiled_code": None,
        "relation_name": None,
        "batch_results": None,
    }


def _arguments(project: OrchestratedProject, request: BuildRequest) -> dict[str, Any]:
    dbt_project, selection = project.dbt_project, request.selection
    given = {
        "which": "build",
        "invocation_command": "dagster-sao build",
        "project_dir": str(dbt_project.project_dir),
        "profiles_dir": str(dbt_project.profiles_dir),
        "target": dbt_project.target,
        "select": selection.select.split(),
        "exclude": selection.exclude.split(),
        "selector": selection.selector or None,
        **{name: getattr(request.options, name) for name, option in RUN_OPTIONS.items() if option.is_dbts},
        "state": str(selection.state) if selection.state else None,
        "vars": dict(project.variables),
    }
    return {name: value for name, value in given.items() if value is not None}


def _text(moment: datetime) -> str:
    return moment.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")
