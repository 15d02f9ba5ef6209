"""dbt's own result for each node and test of a run, from the `run_results.json` of each dbt command of the run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from dagster_sao.orchestration.environment import temporary_environment
from dagster_sao.orchestration.project.orchestrated import OrchestratedProject

RUN_RESULTS = "run_results.json"
# dbt copies variables with this prefix into the metadata of its artifacts.
# https://docs.getdbt.com/reference/artifacts/dbt-artifacts
_PREFIX = "DBT_ENV_CUSTOM_ENV_"
_MARK = "DAGSTER_SAO_RUN"
_DEFAULT_TARGET_PATH = "target"
# The clock of a file system may be coarser than ours.
_CLOCK_SECONDS = 2.0


def target_folder(project: OrchestratedProject) -> Path:
    """Return the folder that dbt, started by Dagster, puts its artifacts below."""
    return project.dbt_project.project_dir / (os.environ.get("DBT_TARGET_PATH") or _DEFAULT_TARGET_PATH)


@contextmanager
def marked_artifacts(run_id: str) -> Iterator[None]:
    """Let dbt write the id of the run into its artifacts."""
    with temporary_environment({_PREFIX + _MARK: run_id}):
        yield


def said_by_dbt(folder: Path, run_id: str, since: datetime) -> dict[str, Mapping[str, Any]]:
    """Return dbt's last entry for each node and test of a run, by unique id."""
    found = []
    for path in folder.glob(f"*/{RUN_RESULTS}"):
        document = _read(path, since)
        if document is not None and (document["metadata"].get("env") or {}).get(_MARK) == run_id:
            found.append(document)
    found.sort(key=lambda document: str(document["metadata"].get("generated_at")))
    return {entry["unique_id"]: entry for document in found for entry in document["results"]}


def _read(path: Path, since: datetime) -> dict[str, Any] | None:
    try:
        if path.stat().st_mtime < since.timestamp() - _CLOCK_SECONDS:
            return None
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) and {"metadata", "results"} <= document.keys() else None
