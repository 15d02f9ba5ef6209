"""What dbt answers: the results and the stored failures of one invocation, with and without fewer queries."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import duckdb

from dbt_dagster_sao import TEST_REQUEST, TRACE_FILE, TRACE_KEY
from dbt_dagster_sao.data_tests.handover import AnsweredTest, DataTestRequest, answered_test
from tests.histories.inprocess_dbt import run_dbt

PROFILE = "shop: {target: warehouse, outputs: {warehouse: {type: duckdb, path: 'FOLDER/warehouse.duckdb', threads: 1}}}"
_COMPARED = ("status", "failures", "message", "compiled_code", "relation_name")
_STORED = "main_dbt_test__audit"
_OF_ONE_BUILD = frozenset({"dbt_scd_id", "dbt_updated_at", "dbt_valid_from", "dbt_valid_to"})
"""The columns of a snapshot that hold the time of its build."""


class DuckDB:
    """The database in the file of a project's profile."""

    adapter = "duckdb"

    def __init__(self, folder: Path) -> None:
        self.profile = PROFILE.replace("FOLDER", str(folder))
        self._file = str(folder / "warehouse.duckdb")

    def execute(self, *statements: str) -> list[tuple[Any, ...]]:
        """Return the rows of the last statement."""
        with closing(duckdb.connect(self._file)) as connection:
            for statement in statements:
                connection.execute(statement)
            return connection.fetchall()


@dataclass(frozen=True)
class Answers:
    """What one invocation left."""

    results: Mapping[str, tuple[Any, ...]]
    """What `run_results.json` tells of each node and test, but for times."""
    stored: Mapping[str, Sequence[Any]]
    """The rows of each table with failures."""
    how: Mapping[str, AnsweredTest]
    """How tests were answered, for those that dbt did not just run."""

    def statuses(self) -> Counter[str]:
        """Return how many results have each status."""
        return Counter(result[0] for result in self.results.values())

    @property
    def skipped(self) -> frozenset[str]:
        """The nodes and tests that dbt skipped."""
        return frozenset(name for name, result in self.results.items() if result[0] == "skipped")

    def without(self, names: Collection[str]) -> Answers:
        """Return the same without the results of some nodes and tests."""
        return replace(self, results={name: value for name, value in self.results.items() if name not in names})

    def differences(self, other: Answers) -> list[str]:
        """Return what an invocation with fewer queries answered differently."""
        return [
            f"{name}: {mine.get(name)} but {others.get(name)}, {other.how.get(name)}"
            for mine, others in ((self.results, other.results), (self.stored, other.stored))
            for name in sorted(mine.keys() | others.keys())
            if mine.get(name) != others.get(name)
        ]


def write(folder: Path, files: Mapping[str, str]) -> None:
    """Write the files of a project."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def dbt(
    folder: Path,
    database: Any,
    *arguments: str,
    request: str | None = None,
    callback: Callable[[Any], None] | None = None,
) -> Answers:
    """Run dbt, on request with fewer queries: `request` is the content of the file."""
    target = folder / "target"
    (target / "run_results.json").unlink(missing_ok=True)
    traces = target / "traces.jsonl"
    traces.unlink(missing_ok=True)
    environment = {}
    if request is not None:
        (folder / "request.json").write_text(request, encoding="utf-8")
        environment = {TRACE_FILE: traces.name, TRACE_KEY: "key", TEST_REQUEST: str(folder / "request.json")}
    with patch.dict(os.environ, environment):
        ended = run_dbt(arguments, folder, target, callback)
    results = json.loads((target / "run_results.json").read_text())["results"] if ended.result else []
    lines = traces.read_text().splitlines() if traces.exists() else ()
    return Answers(
        {result["unique_id"]: _compared(result) for result in results},
        _stored_failures(database, _limited(target)),
        {answer.test: answer for line in lines if (answer := answered_test(line)) is not None},
    )


def everything(folder: Path, *, proves: bool = False, **others: Any) -> DataTestRequest:
    """Return the request to answer all data tests of a project with fewer queries where `dbt build` runs them."""
    nodes = json.loads((folder / "target" / "manifest.json").read_text())["nodes"]
    tests = frozenset(uid for uid, node in nodes.items() if node["resource_type"] == "test")
    provable = tests if proves else frozenset()
    parts = {"builds": frozenset(nodes) - tests, "mergeable": tests, "provable": provable, "premises": provable}
    return DataTestRequest(**{**parts, **others})


def forget(database: Any) -> None:
    """Drop what dbt has built."""
    database.execute("drop schema if exists main_dbt_test__audit cascade")
    tables = database.execute(
        "select table_type, table_name from information_schema.tables where table_schema = 'main'"
    )
    for kind, name in tables:
        database.execute(f"drop {'view' if kind == 'VIEW' else 'table'} if exists main.{name} cascade")


def _compared(result: Mapping[str, Any]) -> tuple[Any, ...]:
    # How far dbt came with a skipped node, and so its message and its code, depends on the turns of threads.
    left_out = {"message", "compiled_code"} if result["status"] == "skipped" else frozenset()
    return tuple(result[name] for name in _COMPARED if name not in left_out)


def _limited(target: Path) -> frozenset[str]:
    """Return the tables with failures of which a `limit` keeps any rows."""
    nodes = json.loads((target / "manifest.json").read_text())["nodes"].values()
    return frozenset(node["alias"] for node in nodes if node["config"].get("limit"))


def _stored_failures(database: Any, limited: Collection[str]) -> Mapping[str, Sequence[Any]]:
    names = [
        name
        for (name,) in database.execute(
            f"select table_name from information_schema.tables where table_schema = '{_STORED}'"
        )
    ]
    found = {name: _rows(database, name) for name in names}
    return {name: [len(rows)] if name in limited else rows for name, rows in found.items()}


def _rows(database: Any, name: str) -> Sequence[Any]:
    try:
        columns = [f'"{column}"' for column in _columns(database, name) if column not in _OF_ONE_BUILD]
        return sorted(map(repr, database.execute(f'select {", ".join(columns) or "*"} from {_STORED}."{name}"')))
    except Exception as error:  # noqa: BLE001 (a view whose query fails)
        return [str(error)]


def _columns(database: Any, name: str) -> list[str]:
    found = database.execute(
        "select column_name from information_schema.columns"
        f" where table_schema = '{_STORED}' and table_name = '{name}' order by ordinal_position"
    )
    return [column for (column,) in found]
