"""How many data tests are proven, beside how many a perfect prover could prove, and what the analysis costs.

    python benchmarks/proven_share.py [--models 100] [--analysed 1000]

The example project and a made-up one are built once by a real dbt on DuckDB. Then `dagster-sao tests` tells how each test would be
answered if everything were rebuilt. The third row is the sample in `tests/sql/proofs/cases/sample.txt`. Properties that follow and are not proven were found by
hand, from the reason why each test is not proven. The analysis is of a made-up project in one process: proofs of five tests per model,
without the questions about columns, which go to the database.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks._support import PROJECT, print_table
from benchmarks.state_aware_job import BIN, make_project, run
from dbt_dagster_sao.data_tests.handover import DataTestRequest
from dbt_dagster_sao.data_tests.proofs import Entry, TestProofs
from tests.sql.proofs.case_files import read_cases

ROOT = Path(__file__).resolve().parents[1]
TESTS_OF_EACH = ("not_null_id", "unique_id", "relationships_id", "not_null_value", "not_null_loaded_at")
MISSED = {
    # Their query has the key, and the strategy keeps one row of each.
    "not_null_fct_orders_order_id",
    "unique_fct_orders_order_id",
}
"""What follows and is not proven in the example and in the made-up project."""
_TESTS = """
import json, sys

import dagster as dg
from dagster_sao import StateAwareProject

project = StateAwareProject(sys.argv[1], instance=dg.DagsterInstance.get())
if not project.build():
    sys.exit("nothing was built")
print("TESTS", json.dumps(project.tests().to_dict()["tests"]))
"""


def answers(folder: Path, home: Path) -> list[Mapping[str, Any]]:
    """Return how each test of a project would be answered after it was built."""
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    environment = {
        "DO_NOT_TRACK": "1",
        "DBT_PROFILES_DIR": str(folder),
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "DAGSTER_HOME": str(home),
        "PYTHONPATH": str(ROOT),
    }
    ran = run([sys.executable, "-c", _TESTS, str(folder)], folder, environment)
    (line,) = [line for line in ran.output.splitlines() if line.startswith("TESTS ")]
    found: list[Mapping[str, Any]] = json.loads(line.split(" ", 1)[1])
    return found


def example(home: Path) -> list[Mapping[str, Any]]:
    """Return the answers of the example project."""
    folder = home / "example"
    ignored = shutil.ignore_patterns("target", "logs", "warehouse", ".dagster_home", "__pycache__")
    shutil.copytree(ROOT / "example_project", folder, ignore=ignored)
    run([sys.executable, "load.py", "init"], folder, {})
    return answers(folder / "jaffle_shop", home)


def made_up(home: Path, models: int) -> list[Mapping[str, Any]]:
    """Return the answers of a made-up project."""
    make_project(home / PROJECT, models, all_tested=True)
    return answers(home / PROJECT, home)


def row(title: str, found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what is proven of a project's tests."""
    for one in found:
        if one["how"] != "proven":
            print(f"{title}: {one['name']}: {one['why_not']}", file=sys.stderr)
    proven = sum(one["how"] == "proven" for one in found)
    missed = sum(one["name"] in MISSED for one in found)
    return _cells(title, len(found), proven, proven + missed)


def row_of_sample() -> list[str]:
    """Return what is proven of the sample."""
    labels = Counter(label for case in read_cases("sample.txt") for label, _ in case.answers)
    return _cells("the sample", sum(labels.values()), labels["proven"], labels["proven"] + labels["missed"])


def _cells(title: str, tests: int, proven: int, provable: int) -> list[str]:
    return [title, str(tests), str(provable), str(proven), f"{proven / provable:.0%}"]


class NoTypes:
    """A warehouse of which only the columns' names are known."""

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self._entries = entries

    def compiled(self, unique_id: str) -> str | None:
        """Return the compiled SQL of a model."""
        return str(self._entries[unique_id]["compiled_code"])

    def columns(self, unique_id: str) -> Mapping[str, str]:
        """Return the columns of a relation."""
        del unique_id
        return {"id": "integer", "value": "integer", "loaded_at": "timestamp"}


def analysis(models: int) -> tuple[float, int, int]:
    """Return the CPU seconds in which all tests of a made-up project are proven or not, and how many are, of how many."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / PROJECT
        make_project(folder, models, all_tested=True)
        entries = _entries(folder)
    tests = [uid for uid in entries if uid.startswith("test.")]
    request = DataTestRequest(
        frozenset(entries) - frozenset(tests), provable=frozenset(tests), premises=frozenset(tests)
    )
    proofs, warehouse = TestProofs(request, "duckdb", entries.get), NoTypes(entries)
    begun, proven = time.process_time(), 0
    for test in tests:
        # As in a run: a test that is not proven passes, and is known to what comes after it.
        proven += not isinstance(proofs.prove(test, warehouse), str)
        proofs.passed(test)
    return time.process_time() - begun, proven, len(tests)


def _entries(folder: Path) -> dict[str, Entry]:
    """Return the models of a made-up project and their tests, as dbt's manifest has them."""
    found: dict[str, Entry] = {}
    for file in sorted((folder / "models").glob("*.sql"), key=lambda path: int(path.stem[1:])):
        uid, text = f"model.{PROJECT}.{file.stem}", file.read_text()
        kind = "view" if "materialized='view'" in text else "table"
        sql = re.sub(r"\{\{ ?config.*?\}\}", "", text)
        parents = [f"model.{PROJECT}.{name}" for name in re.findall(r"ref\('(\w+)'\)", sql)]
        sql = re.sub(r"\{\{ ?ref\('(\w+)'\) ?\}\}", rf'"{PROJECT}"."main"."\1"', sql)
        sql = re.sub(r"\{\{ ?source\('(\w+)', '(\w+)'\) ?\}\}", rf'"{PROJECT}"."\1"."\2"', sql)
        found[uid] = {
            "name": file.stem,
            "resource_type": "model",
            "relation_name": f'"{PROJECT}"."main"."{file.stem}"',
            "config": {"materialized": kind},
            "depends_on": {"nodes": parents},
            "compiled_code": sql,
        }
        for test in TESTS_OF_EACH:
            kind, _, column = test.rpartition("_") if not test.endswith("loaded_at") else ("not_null", "", "loaded_at")
            to = {"to": f"ref('{parents[0].rsplit('.', 1)[1]}')", "field": "id"} if parents else {}
            if kind == "relationships" and not to:
                continue
            found[f"test.{PROJECT}.{test}_{file.stem}"] = {
                "attached_node": uid,
                "depends_on": {
                    "nodes": [uid, *parents[:1]] if kind == "relationships" else [uid],
                    "macros": [f"macro.dbt.test_{kind}"],
                },
                "test_metadata": {
                    "name": kind,
                    "kwargs": {"column_name": column, **(to if kind == "relationships" else {})},
                },
                "config": {},
            }
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", type=int, default=100)
    parser.add_argument("--analysed", type=int, default=1000)
    options = parser.parse_args()
    seconds, proven, tests = analysis(options.analysed)
    print(f"{options.analysed} models: {proven} of {tests} tests proven in {seconds:.1f} CPU seconds")
    rows = [row_of_sample()]
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        rows.append(row("the example project", example(Path(one).resolve())))
        rows.append(row(f"{options.models} made-up models", made_up(Path(other).resolve(), options.models)))
    print_table("Proven tests", ["", "tests", "provable", "proven", "share"], rows)


if __name__ == "__main__":
    main()
