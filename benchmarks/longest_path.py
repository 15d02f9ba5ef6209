"""Wall time of a build of a skewed graph on PostgreSQL, by dbt's own order and by the longest path first.

    python benchmarks/longest_path.py [--leaves 24] [--chain 8] [--seconds 2] [--threads 4]

The models only sleep: many leaves, and a chain whose names come last. The first build of the state-aware project goes by dbt's
own order, since no durations are known; the second, after new data, by the longest path. `dbt build` beside them. The time is
that from the start of dbt's first model to the end of its last one. Needs PostgreSQL's server programs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from contextlib import closing
from datetime import datetime
from pathlib import Path

os.environ.update(DO_NOT_TRACK="1", DAGSTER_DISABLE_TELEMETRY="yes", DBT_SEND_ANONYMOUS_USAGE_STATS="false")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import dagster as dg
from dagster_dbt import DbtProject

from benchmarks._support import print_table
from dagster_sao import StateAwareProject
from tests.support.postgres_server import PASSWORD, USER, Server, programs, running_server

BIN = Path(sys.executable).parent
_SOURCES = "sources: [{name: raw, schema: raw, tables: [{name: orders}]}]"


def write_project(folder: Path, server: Server, options: argparse.Namespace) -> None:
    (folder / "models").mkdir(parents=True)
    target = f"host: 127.0.0.1, port: {server.port}, user: {USER}, password: {PASSWORD}, dbname: postgres"
    profile = f"{{type: postgres, {target}, schema: public, threads: {options.threads}}}"
    (folder / "dbt_project.yml").write_text("{name: bench, profile: bench, models: {+materialized: table}}")
    (folder / "profiles.yml").write_text(f"bench: {{target: it, outputs: {{it: {profile}}}}}\n")
    (folder / "models" / "sources.yml").write_text(_SOURCES)
    sleeps = f"cross join (select pg_sleep({options.seconds}) as slept) as s"
    source = "{{ source('raw', 'orders') }}"
    for n in range(options.leaves):
        (folder / "models" / f"leaf_{n:03}.sql").write_text(f"select o.id from {source} as o {sleeps}")
    for n in range(options.chain):
        read = source if n == 0 else f"{{{{ ref('z_{n - 1:03}') }}}}"
        (folder / "models" / f"z_{n:03}.sql").write_text(f"select o.id from {read} as o {sleeps}")


def dbt_seconds(target: Path) -> float:
    """Return the seconds from the start of the first to the end of the last model, from dbt's newest results."""
    newest = max(target.rglob("run_results.json"), key=lambda path: path.stat().st_mtime_ns)
    timings = [timing for result in json.loads(newest.read_text())["results"] for timing in result["timing"]]
    moments = [datetime.fromisoformat(timing[end]) for timing in timings for end in ("started_at", "completed_at")]
    return (max(moments) - min(moments)).total_seconds()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name, default in (("leaves", 24), ("chain", 8), ("threads", 4)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    binaries = programs()
    if binaries is None:
        sys.exit("PostgreSQL's programs are not here.")
    with tempfile.TemporaryDirectory() as name, running_server(binaries) as server:
        folder = Path(name).resolve() / "bench"
        write_project(folder, server, options)
        with closing(server.connect()) as connection:
            connection.cursor().execute("create schema raw; create table raw.orders as select 1 as id")
        dbt = [BIN / "dbt", "build", "--project-dir", folder, "--profiles-dir", folder]
        subprocess.run(dbt, check=True, stdout=subprocess.DEVNULL)
        found = {"`dbt build`": dbt_seconds(folder / "target")}
        with dg.DagsterInstance.local_temp(name) as instance:
            project = StateAwareProject(DbtProject(folder), instance=instance)
            for what in ("first build, dbt's own order", "second build, the longest path first"):
                results = project.build()
                assert results.counts() == {"success": options.leaves + options.chain}, results
                found[what] = dbt_seconds(folder / "target")
                with closing(server.connect()) as connection:
                    connection.cursor().execute("delete from raw.orders; insert into raw.orders values (1)")
    models = options.leaves + options.chain
    least = max(options.chain, models / options.threads) * options.seconds
    print_table(
        f"{models} models of {options.seconds:g} s, {options.chain} of them in a chain, {options.threads} threads, wall seconds",
        ["", "seconds", "ratio", "at best"],
        [
            [what, f"{seconds:.1f}", f"{seconds / found['`dbt build`']:.2f} ×", f"{least:.1f}"]
            for what, seconds in found.items()
        ],
    )


if __name__ == "__main__":
    main()
