"""The folders that dbt writes for each time that a run starts it: marked as ours, and removed when enough newer ones are there.

Each holds a manifest, compiled code, results and a log: some megabytes in a project of hundreds of models.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import dagster as dg

from dagster_sao.orchestration.private.dagster_internals import RunsFilter

MARK = "dagster_sao_run.json"
"""The file in each folder that names its run. A folder without it is not ours to remove."""
DEFAULT_KEPT = 20
MOST_KEPT = 1000
# Databases limit the parameters of a statement.
_RUNS_AT_ONCE = 200


def mark_folder(folder: Path, run_id: str) -> None:
    """Note the run that dbt writes a folder for. When the folder cannot be written, dbt reports it."""
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARK).write_text(json.dumps({"run_id": run_id}), encoding="utf-8")


def remove_old_folders(target: Path, instance: dg.DagsterInstance, kept: int) -> None:
    """Remove the folders of ended runs below `target`, but for the newest `kept`, and as many of runs that failed."""
    with suppress(OSError):
        folders = sorted(_marked(target), reverse=True)
        if len(folders) <= kept:
            return
        statuses = _statuses(instance, sorted({run_id for _, run_id, _ in folders}))
        left = {True: kept, False: kept}
        for _, run_id, folder in folders:
            status = statuses.get(run_id)
            if status is not None and status not in _ENDED:
                continue
            has_failed = status in _FAILED
            left[has_failed] -= 1
            if left[has_failed] < 0:
                shutil.rmtree(folder, ignore_errors=True)


_FAILED = frozenset({dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED})
_ENDED = _FAILED | {dg.DagsterRunStatus.SUCCESS}


def _marked(target: Path) -> Iterator[tuple[float, str, Path]]:
    for mark in target.glob(f"*/{MARK}"):
        # Another run may remove it in this instant.
        with suppress(OSError, ValueError, KeyError, TypeError):
            yield mark.stat().st_mtime, str(json.loads(mark.read_text(encoding="utf-8"))["run_id"]), mark.parent


def _statuses(instance: dg.DagsterInstance, run_ids: list[str]) -> dict[str, dg.DagsterRunStatus]:
    found = {}
    for start in range(0, len(run_ids), _RUNS_AT_ONCE):
        runs = instance.get_runs(RunsFilter(run_ids=run_ids[start : start + _RUNS_AT_ONCE]))
        found.update({run.run_id: run.status for run in runs})
    return found
