"""CPU of one look at N unchanged sources: a warm `SourceProber` against `dbt source freshness`.

    python benchmarks/freshness_tick.py [10 100 1000]

Half of the sources have a `loaded_at_field`, half a `loaded_at_query`, on DuckDB. CPU seconds, not wall time, so that
a busy machine changes little.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import duckdb
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dagster_sao.core.manifest.read_graph import build_graph
from dagster_sao.warehouse import SourceProber, WarehouseSession

TICKS = 7
ROWS = 1000
DBT = str(Path(sys.executable).parent / "dbt")


def make_project(folder: Path, sources: int) -> None:
    (folder / "models").mkdir(parents=True)
    (folder / "dbt_project.yml").write_text("name: bench\nprofile: bench\nflags: {send_anonymous_usage_stats: false}\n")
    (folder / "profiles.yml").write_text(
        "bench: {target: duck, outputs: {duck: {type: duckdb, path: bench.duckdb, threads: 1}}}\n"
    )
    tables = []
    for n in range(sources):
        how = (
            "loaded_at_field: loaded_at"
            if n % 2
            else 'loaded_at_query: "select max(loaded_at) from {{ this }} where id >= 0"'
        )
        freshness = "freshness: {warn_after: {count: 100, period: day}}"
        tables.append(f"      - {{name: t{n}, config: {{{how}, {freshness}}}}}")
    head = ["sources:", "  - name: raw", "    schema: raw", "    tables:"]
    (folder / "models" / "sources.yml").write_text("\n".join([*head, *tables]))
    with closing(duckdb.connect(str(folder / "bench.duckdb"))) as warehouse:
        warehouse.execute("create schema raw")
        for n in range(sources):
            warehouse.execute(
                f"create table raw.t{n} as select range as id,"
                f" now()::timestamp - range * interval 1 second as loaded_at from range({ROWS})"
            )


def dbt(folder: Path, *command: str) -> float:
    """Run dbt in a process of its own and return the CPU seconds it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    arguments = ["--quiet", *command, "--project-dir", str(folder), "--profiles-dir", str(folder)]
    environment = {**os.environ, "DO_NOT_TRACK": "1"}
    done = subprocess.run([DBT, *arguments], cwd=folder, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(f"dbt failed:\n{done.stdout}{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def warm_ticks(folder: Path) -> list[float]:
    manifest = json.loads((folder / "target" / "manifest.json").read_text())
    sources = list(build_graph(manifest).sources.values())
    session = WarehouseSession.open(project_dir=folder, profiles_dir=folder, manifest=manifest)
    prober = SourceProber(session)
    spent = []
    for _ in range(TICKS + 1):
        start = time.process_time()
        seen = dict(prober.observe(sources))
        spent.append(time.process_time() - start)
        assert len(seen) == len(sources)
        assert all(one.token and not one.error for one in seen.values())
    return spent[1:]  # the first one renders the queries


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sizes", nargs="*", type=int, default=[10, 100, 1000])
    table = Table(title="One look at unchanged sources, CPU seconds (DuckDB)")
    for column in ("sources", f"warm tick (median of {TICKS})", "dbt source freshness", "ratio"):
        table.add_column(column, justify="right")
    for size in parser.parse_args().sizes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "bench"
            make_project(folder, size)
            dbt(folder, "parse")
            tick = statistics.median(warm_ticks(folder))
            theirs = dbt(folder, "source", "freshness")
        table.add_row(str(size), f"{tick:.3f}", f"{theirs:.1f}", f"{theirs / tick:.0f}×")
    Console().print(table)


if __name__ == "__main__":
    main()
