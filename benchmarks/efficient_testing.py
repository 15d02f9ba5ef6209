"""How many queries the data tests of a project send, and how many rows these read: by dbt, and with efficient testing.

    python benchmarks/efficient_testing.py [100 500] [--on duckdb postgres] [--modes off aggregate all] [--repeats 1]

A made-up project with five tests per model is built as a whole, then again with nothing changed, then after an edit of 5 % of
its models, by state-aware runs with each way of `efficient_testing`, and once by `dbt build`, which always does everything. The
queries are those in dbt's log, and the rows are those of the relations that they name. The CPU seconds are those of all
processes. PostgreSQL needs its server programs on this machine, and its own CPU is not counted. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks._support import PROJECT, print_table, synthetic_manifest
from benchmarks.state_aware_job import BIN, ROWS, THREADS, make_project, run
from tests.support.postgres_server import PASSWORD, USER, Server, programs, running_server

ROOT = Path(__file__).resolve().parents[1]
MODES = ("off", "aggregate", "all")
SITUATIONS = ("all rebuilt", "nothing changed", "5 % rebuilt")
HOW = ("run", "merged", "proven", "reused")
_RELATION = re.compile(rf'"{PROJECT}"\."(?:main|raw)"\."\w+"')
_BUILD = """
import json, sys
from collections import Counter

import dagster as dg
from dagster_sao import StateAwareProject

results = StateAwareProject(sys.argv[1], instance=dg.DagsterInstance.get()).build(efficient_testing=sys.argv[2])
how = Counter(test.how for test in results.tests.values())
models = sum(node.status.value == "success" for node in results.values())
print("COUNTED", json.dumps({"how": how, "models": models}))
"""


@dataclass(frozen=True)
class Measured:
    """What one run did and cost."""

    how: Mapping[str, int]
    """How many tests were answered in which way."""
    models: int
    queries: int
    rows: int
    seconds: float

    def cells(self, beside: Measured) -> list[str]:
        """Return the figures, the last ones also as shares of `dbt build`'s."""
        due = sum(self.how.get(how, 0) for how in HOW if how != "reused")
        return [
            str(self.models),
            str(due),
            *(str(self.how.get(how, 0)) for how in HOW),
            f"{self.queries} ({self.queries / beside.queries:.2f})",
            f"{self.rows:,} ({self.rows / beside.rows:.2f})",
            f"{self.seconds:.1f} ({self.seconds / beside.seconds:.2f})",
        ]


class Warehouse:
    """Where the projects are built: a file of DuckDB in each folder."""

    title = "DuckDB"

    def prepare(self, folder: Path, models: int) -> None:
        """Write a project, and fill its sources."""
        make_project(folder, models, all_tested=True)


class Postgres(Warehouse):
    """A PostgreSQL server, in which all folders use one database after the other."""

    title = "PostgreSQL"

    def __init__(self, server: Server) -> None:
        self._server = server

    def prepare(self, folder: Path, models: int) -> None:
        """Write a project, and fill its sources."""
        super().prepare(folder, models)
        target = {
            "type": "postgres",
            "host": "127.0.0.1",
            "port": self._server.port,
            "user": USER,
            "password": PASSWORD,
        }
        target |= {"dbname": PROJECT, "schema": "main", "threads": THREADS}
        (folder / "profiles.yml").write_text(json.dumps({PROJECT: {"target": "pg", "outputs": {"pg": target}}}))
        self._server.ask(f"drop database if exists {PROJECT} with (force)")
        self._server.ask(f"create database {PROJECT}")
        tables = [uid.rsplit(".", 1)[1] for uid in synthetic_manifest(models)["sources"]]
        rows = f"select n as id, n % 7 as value, timestamp '2025-01-01' + n * interval '1 second' as loaded_at from generate_series(1, {ROWS}) n"
        statements = [f"create table raw.{table} as {rows}" for table in tables]
        self._server.ask("create schema raw", *statements, database=PROJECT)


def measure(warehouse: Warehouse, models: int, modes: Sequence[str]) -> dict[tuple[str, str], Measured]:
    """Return what each way of building did in each situation; dbt is in one."""
    found = {}
    for mode in ("dbt", *modes):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name).resolve() / PROJECT
            warehouse.prepare(folder, models)
            (folder.parent / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
            for situation in SITUATIONS[: 1 if mode == "dbt" else None]:
                if situation == "5 % rebuilt":
                    _edit(folder, range(models - models // 20, models))
                found[situation, mode] = _run(folder, mode)
                print(
                    f"{warehouse.title}, {models} models, {situation}, {mode}: {found[situation, mode]}",
                    file=sys.stderr,
                )
    return found


def _edit(folder: Path, numbers: Sequence[int]) -> None:
    """Edit the last models, which no other reads."""
    for n in numbers:
        file = folder / "models" / f"m{n}.sql"
        file.write_text(file.read_text().replace("as value", "+ 0 as value"))


def _run(folder: Path, mode: str) -> Measured:
    environment = {
        "DO_NOT_TRACK": "1",
        "DBT_PROFILES_DIR": str(folder),
        "DBT_LOG_FORMAT_FILE": "json",
        "DBT_LOG_LEVEL_FILE": "debug",
        "DBT_LOG_FILE_MAX_BYTES": str(2**40),
        "DBT_LOG_PATH": str(folder / "logs"),
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "DAGSTER_HOME": str(folder.parent),
        "PYTHONPATH": str(ROOT),
    }
    for file in folder.rglob("dbt.log"):
        file.unlink()
    command = [BIN / "dbt", "build"] if mode == "dbt" else [sys.executable, "-c", _BUILD, str(folder), mode]
    ran = run(command, folder, environment)
    queries = list(_queries_of_tests(folder))
    counted = [line.split(" ", 1)[1] for line in ran.output.splitlines() if line.startswith("COUNTED ")]
    did = json.loads(counted[0]) if counted else _done_by_dbt(folder)
    rows = ROWS * sum(len(_RELATION.findall(sql)) for sql in queries)
    return Measured(did["how"], did["models"], len(queries), rows, ran.seconds)


def _done_by_dbt(folder: Path) -> Mapping[str, Any]:
    results = json.loads((folder / "target" / "run_results.json").read_text())["results"]
    kinds = Counter(
        result["unique_id"].split(".", 1)[0] for result in results if result["status"] in {"success", "pass"}
    )
    return {"how": {"run": kinds["test"]}, "models": kinds["model"]}


def _queries_of_tests(folder: Path) -> Iterator[str]:
    """Yield the queries that dbt's log has for data tests, but for those that begin and end a transaction."""
    for file in folder.rglob("dbt.log"):
        for line in file.read_text(encoding="utf-8").splitlines():
            event: Mapping[str, Any] = json.loads(line)
            if event["info"]["name"] == "SQLQuery":
                data = event["data"]
                if data.get("node_info", {}).get("resource_type") == "test" and _RELATION.search(data["sql"]):
                    yield data["sql"]


def _median(runs: Sequence[Measured]) -> Measured:
    last = runs[-1]
    seconds = statistics.median(one.seconds for one in runs)
    return Measured(last.how, last.models, last.queries, last.rows, seconds)


@contextmanager
def _warehouse(name: str) -> Iterator[Warehouse]:
    if name == "duckdb":
        yield Warehouse()
        return
    binaries = programs()
    if binaries is None:
        sys.exit("There are no programs of a PostgreSQL server here.")
    with running_server(binaries) as server:
        yield Postgres(server)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("models", type=int, nargs="*", default=[100, 500])
    parser.add_argument("--on", nargs="+", choices=["duckdb", "postgres"], default=["duckdb", "postgres"])
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--repeats", type=int, default=1, help="how often all is measured")
    options = parser.parse_args()
    if not sys.platform.startswith("linux"):
        sys.exit("The CPU seconds of processes that outlive their parent are counted on Linux only.")
    with ExitStack() as stack:
        warehouses = [stack.enter_context(_warehouse(name)) for name in options.on]
        for warehouse in warehouses:
            for models in options.models:
                runs = [measure(warehouse, models, options.modes) for _ in range(options.repeats)]
                found = {key: _median([one[key] for one in runs]) for key in runs[0]}
                beside = found[SITUATIONS[0], "dbt"]
                print_table(
                    f"{warehouse.title}: {models} models with five tests each, over sources of {ROWS:,} rows",
                    [
                        "",
                        "",
                        "models built",
                        "tests due",
                        *HOW,
                        "queries of tests",
                        "rows read by tests",
                        "CPU seconds",
                    ],
                    [[*key, *one.cells(beside)] for key, one in found.items()],
                    "In parentheses: of dbt build's",
                )


if __name__ == "__main__":
    main()
