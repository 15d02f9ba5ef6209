"""CPU of loading, planning, ticking and building, beside an older version of this package.

    python benchmarks/cost.py [1000] --before CHECKOUT [--repeats 5]

Each version gets its own copy of one made-up project, with a DuckDB file and an instance on SQLite, and a process of its own. Both
build everything once, and are then measured by turns. CPU seconds include those of dbt. Linux and macOS.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks._support import print_table
from benchmarks.state_aware_job import make_project, parse

ROOT = Path(__file__).resolve().parents[1]
NEW_DATA = "insert into raw.s{n} select 1000000, 1, max(loaded_at) + interval 1 second from raw.s{n}"


@dataclass
class Version:
    """A checkout in a process of its own, on its own copy of the project."""

    checkout: Path
    folder: Path
    spent: dict[str, list[float]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def start(self) -> None:
        """Start the process anew: nothing is cached in it."""
        command = [sys.executable, str(ROOT / "benchmarks" / "_cost_worker.py"), str(self.checkout)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=self.folder,
        )

    def end(self) -> None:
        self._process.stdin.close()
        self._process.wait()

    def do(self, what: str, label: str = "") -> None:
        """Let it do something, and keep what that cost under `label`."""
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        seconds, count = json.loads(self._process.stdout.readline())
        if label:
            self.spent.setdefault(label, []).append(seconds)
            self.counts[label] = count

    def load_data(self, source: int) -> None:
        with closing(duckdb.connect(str(self.folder / "bench.duckdb"))) as warehouse:
            warehouse.execute(NEW_DATA.format(n=source))


def measure(versions: list[Version], repeats: int) -> None:
    """Let the versions do the same by turns."""
    for version in versions:
        version.start()
        version.do("plan")  # which may parse the project first
        version.do("build", "building all")
        version.do("record_bytes", "bytes of a build's record")
        version.end()
    for number in range(repeats):
        for version in versions:
            version.start()
            version.do("load", "loading the definitions")
            version.do("plan", "opening and planning")
            version.do("freshness", "first freshness tick")
            version.do("automation", "first automation tick")
            for _ in range(5):
                version.do("freshness", "freshness tick, nothing changed")
                version.do("automation", "automation tick, nothing changed")
            version.load_data(number)
            version.do("build", "building after new data in one source")
            version.end()


def rows(versions: list[Version]) -> list[list[str]]:
    """Return the cells of the table: medians, the ratio, and what was counted."""
    found = []
    for label, counts in ((label, [version.counts[label] for version in versions]) for label in versions[0].spent):
        ours, *before = (statistics.median(version.spent[label]) for version in versions)
        found.append([label, f"{ours:.2f}", *(f"{one:.2f}" for one in before), f"{ours / before[0]:.2f}", str(counts)])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("models", type=int, nargs="?", default=1000)
    parser.add_argument("--before", type=Path, required=True, metavar="CHECKOUT", help="the older version")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        versions = []
        for label, checkout in (("now", ROOT), ("before", options.before.resolve())):
            folder = Path(name) / label
            make_project(folder, options.models)
            parse(folder)
            versions.append(Version(checkout, folder))
        measure(versions, options.repeats)
        print_table(
            f"{options.models} models, CPU seconds",
            ["", "this version", "before", "ratio", "nodes, or bytes"],
            rows(versions),
        )


if __name__ == "__main__":
    main()
