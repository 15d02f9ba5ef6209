"""CPU of one look at N unchanged sources on DuckDB and PostgreSQL, beside raw queries and `dbt source freshness`.

    python benchmarks/warehouse_probes.py [1000 5000] [--without-dbt]

Each source has a `loaded_at_field`. *raw UNION* is the same question put to the driver, a hundred tables in one query;
*raw, one by one* a query per table. The tokens are those of sources without `loaded_at_*`; the last table is about which
of N relations exist. CPU seconds of this process (of dbt: of its process) and of the PostgreSQL server, which does most of
the work there. PostgreSQL needs its programs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import psutil
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.freshness_tick import dbt
from dagster_sao.core.manifest.graph import Node, NodeKind
from dagster_sao.core.manifest.read_graph import build_graph
from dagster_sao.warehouse import SourceProber, WarehouseSession, existing_relations
from tests.support.postgres_server import PASSWORD, USER, programs, running_server

TICKS = 5
RELATIONS = 10_000
CHUNK = 100
ROWS = 100


@dataclass
class Engine:
    """A warehouse under test."""

    name: str
    profile: str
    connect: Callable[[], Any]
    """A DB-API connection of the raw driver."""
    server: psutil.Process | None = None

    def cpu(self) -> float:
        """Return the CPU seconds that this process and the server have spent."""
        if self.server is None:
            return time.process_time()
        spent = self.server.cpu_times()
        total = time.process_time() + spent.user + spent.system + spent.children_user + spent.children_system
        for backend in self.server.children():
            # One may end meanwhile; its time is the server's children's at the next look.
            with suppress(psutil.NoSuchProcess):
                total += sum(backend.cpu_times()[:2])
        return total


@contextmanager
def duckdb_engine(folder: Path) -> Iterator[Engine]:
    path = folder / "bench.duckdb"
    yield Engine("duckdb", f"{{type: duckdb, path: '{path}', threads: 1}}", lambda: duckdb.connect(str(path)))


@contextmanager
def postgres_engine(_folder: Path) -> Iterator[Engine]:
    binaries = programs()
    if binaries is None:
        sys.exit("PostgreSQL's programs are not here: leave it out with --engine duckdb, or install them.")
    with running_server(binaries) as server:
        target = f"host: 127.0.0.1, port: {server.port}, user: {USER}, password: {PASSWORD}, dbname: postgres"
        postmaster = psutil.Process(int((server.folder / "db" / "postmaster.pid").read_text().split()[0]))
        yield Engine("postgres", f"{{type: postgres, {target}, schema: raw, threads: 1}}", server.connect, postmaster)


ENGINES = {"duckdb": duckdb_engine, "postgres": postgres_engine}


def make_project(folder: Path, engine: Engine, sources: int, config: str) -> dict[str, Any]:
    (folder / "models").mkdir(parents=True)
    (folder / "dbt_project.yml").write_text("name: bench\nprofile: bench\nflags: {send_anonymous_usage_stats: false}\n")
    (folder / "profiles.yml").write_text(f"bench: {{target: it, outputs: {{it: {engine.profile}}}}}\n")
    tables = [f"      - {{name: t{n}{config}}}" for n in range(sources)]
    text = "\n".join(["sources:", "  - name: raw", "    schema: raw", "    tables:", *tables])
    (folder / "models" / "sources.yml").write_text(text)
    dbt(folder, "parse")
    return json.loads((folder / "target" / "manifest.json").read_text())


def make_tables(engine: Engine, sources: int) -> None:
    series = "range(0, {0}) s(i)" if engine.name == "duckdb" else "generate_series(1, {0}) s(i)"
    with closing(engine.connect()) as connection:
        cursor = connection.cursor()
        cursor.execute("begin")
        cursor.execute("create schema raw")
        for n in range(sources):
            cursor.execute(
                f"create table raw.t{n} as select i as id, now()::timestamp - i * interval '1 second' as loaded_at"
                f" from {series.format(ROWS)}"
            )
        cursor.execute("commit")


def median_cpu(engine: Engine, work: Callable[[], object]) -> float:
    """Return the median of the CPU seconds that `work` costs here and in the server, without the first time."""
    spent = []
    for _ in range(TICKS + 1):
        start = engine.cpu()
        work()
        spent.append(engine.cpu() - start)
    return statistics.median(spent[1:])


def look(prober: SourceProber, sources: list[Any]) -> None:
    seen = dict(prober.observe(sources))
    assert len(seen) == len(sources)
    assert all(one.token and not one.error for one in seen.values())


def raw(engine: Engine, sources: int, chunk: int) -> None:
    with closing(engine.connect()) as connection:
        cursor = connection.cursor()
        for first in range(0, sources, chunk):
            arms = (
                f"select {n}, cast(max(loaded_at) as varchar) from raw.t{n}"
                for n in range(first, min(sources, first + chunk))
            )
            cursor.execute(" union all ".join(arms))
            assert cursor.fetchall()


def measure_sources(engine: Engine, folder: Path, sizes: list[int], *, with_dbt: bool) -> Table:
    table = Table(title=f"One look at unchanged sources on {engine.name}, CPU seconds, medians of {TICKS}")
    for column in (
        "sources",
        "look",
        "raw UNION",
        "ratio",
        "raw, one by one",
        "dbt source freshness",
        "ratio",
        "tokens",
    ):
        table.add_column(column, justify="right")
    make_tables(engine, max(sizes))
    freshness = "freshness: {warn_after: {count: 100, period: day}}"
    for size in sizes:
        dated = folder / f"dated{size}"
        manifest = make_project(dated, engine, size, f", config: {{loaded_at_field: loaded_at, {freshness}}}")
        cpu = median_cpu(engine, looker(dated, manifest))
        union = median_cpu(engine, lambda size=size: raw(engine, size, CHUNK))
        single = median_cpu(engine, lambda size=size: raw(engine, size, 1))
        theirs = dbt(dated, "source", "freshness") if with_dbt else None
        plain = folder / f"plain{size}"
        tokens = median_cpu(engine, looker(plain, make_project(plain, engine, size, "")))
        table.add_row(
            f"{size:,}",
            f"{cpu:.3f}",
            f"{union:.3f}",
            f"{cpu / union:.1f} ×",
            f"{single:.2f}",
            f"{theirs:.0f}" if theirs else "",
            f"{theirs / cpu:.0f} ×" if theirs else "",
            f"{tokens:.3f}",
        )
    return table


def looker(folder: Path, manifest: dict[str, Any]) -> Callable[[], None]:
    session = WarehouseSession.open(project_dir=folder, profiles_dir=folder, manifest=manifest)
    prober, sources = SourceProber(session), list(build_graph(manifest).sources.values())
    return lambda: look(prober, sources)


def measure_existence(engine: Engine, folder: Path) -> tuple[str, str]:
    schema, database = "models", "bench" if engine.name == "duckdb" else "postgres"
    with closing(engine.connect()) as connection:
        cursor = connection.cursor()
        cursor.execute("begin")
        cursor.execute(f"create schema {schema}")
        for n in range(RELATIONS):
            cursor.execute(f"create view {schema}.m{n} as select 1 as id")
        cursor.execute("commit")
    nodes = [
        Node(f"m{n}", f"m{n}", "model", NodeKind.VIEW, "view", "sql", "", (), f'"{database}"."{schema}"."m{n}"', ())
        for n in range(RELATIONS)
    ]
    project = folder / "existence"
    manifest = make_project(project, engine, 1, "")
    session = WarehouseSession.open(project_dir=project, profiles_dir=project, manifest=manifest)
    return engine.name, f"{median_cpu(engine, lambda: existing_relations(session, nodes)):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sizes", nargs="*", type=int, default=[1000, 5000])
    parser.add_argument("--engine", choices=sorted(ENGINES), action="append")
    parser.add_argument("--without-dbt", action="store_true", help="dbt takes minutes for 5,000 sources")
    arguments = parser.parse_args()
    existence = Table(title=f"Which of {RELATIONS:,} relations exist, CPU seconds, medians of {TICKS}")
    existence.add_column("warehouse")
    existence.add_column("look", justify="right")
    for name in arguments.engine or sorted(ENGINES):
        with tempfile.TemporaryDirectory() as root, ENGINES[name](Path(root)) as engine:
            sizes = sorted(arguments.sizes)
            Console().print(measure_sources(engine, Path(root), sizes, with_dbt=not arguments.without_dbt))
            existence.add_row(*measure_existence(engine, Path(root)))
    Console().print(existence)


if __name__ == "__main__":
    main()
