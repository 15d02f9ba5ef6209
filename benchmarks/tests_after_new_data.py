"""How many models are built and tests run after new data in one source, by `dbt build` and by a state-aware job.

    python benchmarks/tests_after_new_data.py [--before CHECKOUT] [--repeats 3]

On the example project and on a made-up one of 100 models over ten sources with five tests each, both with a real dbt on DuckDB.
Each tool has a copy of the project and builds everything. Then, repeatedly, one source gets new rows and the tool runs. What it
built and tested is read from the `run_results.json` of all invocations of dbt since, and the CPU seconds are those of all its
processes. With `--before`, a checkout of an older version of this package runs too. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks._support import PROJECT, print_table
from benchmarks.state_aware_job import BIN, DEFINITIONS, ROWS, make_project, run

ROOT = Path(__file__).resolve().parents[1]
MODELS = 100
NEW_ROWS = 10
# What dbt says of what it ran: it skips what is below a failure.
RAN = frozenset({"success", "pass", "fail", "warn", "error"})


@dataclass(frozen=True)
class Subject:
    """A dbt project, and how its data comes about."""

    title: str
    make: Callable[[Path], None]
    load: Callable[[Path], None]
    """Adds rows to one source."""
    project_dir: str
    """Of dbt, in the folder that `make` fills."""
    below: str
    """What a careful person selects then."""
    job: str


@dataclass
class Row:
    """One tool, and what it did each time."""

    name: str
    command: Sequence[str | Path]
    in_dbt: bool
    checkout: Path | None = None
    seconds: list[float] = field(default_factory=list)
    done: list[Counter[str]] = field(default_factory=list)

    def cells(self) -> list[str]:
        return [
            self.name,
            _span(done["models"] for done in self.done),
            _span(done["tests"] for done in self.done),
            _span(done["failed"] for done in self.done),
            f"{statistics.median(self.seconds):.1f}",
        ]


def example() -> Subject:
    """Return the example project. Of its sources, payments have the median number of models below them."""

    def make(folder: Path) -> None:
        ignored = shutil.ignore_patterns("target", "logs", "warehouse", ".dagster_home", "__pycache__")
        shutil.copytree(ROOT / "example_project", folder, ignore=ignored)
        run([sys.executable, "load.py", "init"], folder, {})

    def load(folder: Path) -> None:
        run([sys.executable, "load.py", "append", "payments", "--rows", str(NEW_ROWS)], folder, {})

    return Subject("The example project", make, load, "jaffle_shop", "source:payments.payments+", "hourly")


def made_up() -> Subject:
    """Return a project of 100 models in 8 layers over ten sources."""

    def make(folder: Path) -> None:
        make_project(folder / PROJECT, MODELS, all_tested=True)
        (folder / "definitions.py").write_text(DEFINITIONS.format(folder=folder / PROJECT))

    def load(folder: Path) -> None:
        with closing(duckdb.connect(str(folder / PROJECT / "bench.duckdb"))) as warehouse:
            warehouse.execute(
                "insert into raw.s4 select n + range, range % 7, latest + interval 1 minute"
                f" from range({NEW_ROWS}), (select count(*) as n, max(loaded_at) as latest from raw.s4)"
            )

    title = f"A made-up project of {MODELS} models over 10 sources with {ROWS:,} rows, five tests per model"
    return Subject(title, make, load, PROJECT, "source:raw.s4+", "nightly")


def rows(subject: Subject, before: Path | None) -> list[Row]:
    """Return the tools that are compared."""
    job = [BIN / "dagster", "job", "execute", "-f", "definitions.py", "-j", subject.job]
    found = [
        Row("dbt build", [BIN / "dbt", "build"], in_dbt=True),
        Row(f"dbt build -s {subject.below}", [BIN / "dbt", "build", "-s", subject.below], in_dbt=True),
        Row("state-aware job", job, in_dbt=False, checkout=ROOT),
    ]
    if before is not None:
        found.append(Row("state-aware job, before", job, in_dbt=False, checkout=before))
    return found


def measure(subject: Subject, before: Path | None, repeats: int) -> list[Row]:
    found = rows(subject, before)
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name).resolve() / str(n) for n in range(len(found))]
        for row, folder in zip(found, folders, strict=True):
            subject.make(folder)
            (folder / "home").mkdir()
            (folder / "home" / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
            build_all = Row("", [BIN / "dbt", "build"], in_dbt=True) if row.in_dbt else row
            _run(build_all, subject, folder)
        # By turns, since a machine is not equally fast for the whole time.
        for _ in range(repeats):
            for row, folder in zip(found, folders, strict=True):
                subject.load(folder)
                started_at = time.time_ns()
                row.seconds.append(_run(row, subject, folder))
                row.done.append(_done_since(folder / subject.project_dir / "target", started_at))
                print(f"{row.name}: {dict(row.done[-1])}, {row.seconds[-1]:.1f} s", file=sys.stderr)
    return found


def _run(row: Row, subject: Subject, folder: Path) -> float:
    project_dir = folder / subject.project_dir
    environment: Mapping[str, str] = {
        "DO_NOT_TRACK": "1",
        "DBT_PROFILES_DIR": str(project_dir),
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "DAGSTER_HOME": str(folder / "home"),
        "PYTHONPATH": str(row.checkout or ""),
    }
    return run(row.command, project_dir if row.in_dbt else folder, environment).seconds


def _done_since(target: Path, started_at: int) -> Counter[str]:
    """Return how many models dbt has built and how many tests it has run, by what each invocation wrote."""
    files = [path for path in target.rglob("run_results.json") if path.stat().st_mtime_ns >= started_at]
    results = [result for path in files for result in json.loads(path.read_text())["results"]]
    ran = [(r["unique_id"].split(".", 1)[0], r["status"]) for r in results if r["status"] in RAN]
    is_test = {"test", "unit_test"}
    return Counter(
        models=sum(kind not in is_test for kind, _ in ran),
        tests=sum(kind in is_test for kind, _ in ran),
        failed=sum(status in {"fail", "error"} for _, status in ran),
    )


def _span(counts: Sequence[int] | map[int]) -> str:
    found = sorted(set(counts))
    return f"{found[0]}" if len(found) == 1 else f"{found[0]} to {found[-1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="an older version, to be compared with")
    parser.add_argument("--repeats", type=int, default=3, help="how often the source gets new data")
    options = parser.parse_args()
    if not sys.platform.startswith("linux"):
        sys.exit("The CPU seconds of processes that outlive their parent are counted on Linux only.")
    before = options.before.resolve() if options.before else None
    for subject in (example(), made_up()):
        print_table(
            f"{subject.title}: after new data in one source",
            ["", "models built", "tests run", "of them failed", f"CPU seconds (median of {options.repeats})"],
            [row.cells() for row in measure(subject, before, options.repeats)],
        )


if __name__ == "__main__":
    main()
