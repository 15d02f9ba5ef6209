"""CPU of a second state-aware job run with nothing changed, beside dbt, Prefect's orchestrator and dbt-orchestra.

    python benchmarks/state_aware_job.py [20 100 500] [--peers DIR] [--prefect-up-to 100] [--repeats 3] [--only NAME ...]

Each tool gets its own copy of one made-up project and its own DuckDB file, builds everything once, and is then measured
running the same again. CPU seconds of the process and of all that it started, children that outlive it included. The peers
are installed from PyPI into virtual environments of their own below DIR, with the versions named here and the dbt that runs
this; one that cannot be installed or run is in the table with the reason.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import duckdb
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks._support import PROJECT, print_table, synthetic_manifest

ROWS = 1000
THREADS = 1
BIN = Path(sys.executable).parent
PEERS = Path(__file__).parent / "results" / "peers"
# Newer releases of FastAPI have dropped a parameter that this Prefect passes.
PREFECT = ("prefect-dbt==0.7.25", "prefect==3.8.8", "fastapi==0.139.0")
ORCHESTRA = ("dbt-orchestra==1.5.0",)
_TAIL = 200
_PR_SET_CHILD_SUBREAPER = 36

DEFINITIONS = """
from dagster_dbt import DbtProject
from dagster_sao import build_state_aware_definitions, build_state_aware_job

defs = build_state_aware_definitions(DbtProject("{folder}"), jobs=[build_state_aware_job("nightly")])
"""
EMPTY = """
import dagster as dg


@dg.op
def nothing(): ...


@dg.job(executor_def=dg.in_process_executor)
def empty():
    nothing()


defs = dg.Definitions(jobs=[empty])
"""
# Without dagster_sao: what Dagster and dagster-dbt take to start a run of the project's assets, in which nothing happens.
LOADED = """
import dagster as dg
from dagster_dbt import DbtCliResource, DbtProject, dbt_assets

project = DbtProject("{folder}")


@dbt_assets(manifest=project.manifest_path, project=project)
def models(context, dbt: DbtCliResource):
    yield from ()


job = dg.define_asset_job("empty", [models], executor_def=dg.in_process_executor)
defs = dg.Definitions(assets=[models], jobs=[job], resources={{"dbt": DbtCliResource(project)}})
"""
# One process builds, because DuckDB gives its file to one writer; the keys and results are stored beside the project.
FLOW = """
import collections
from pathlib import Path

from prefect import flow
from prefect_dbt import PrefectDbtSettings
from prefect_dbt.core._orchestrator import CacheConfig, ExecutionMode, PrefectDbtOrchestrator, TestStrategy

folder = Path("{folder}")


@flow
def build():
    orchestrator = PrefectDbtOrchestrator(
        settings=PrefectDbtSettings(project_dir=folder, profiles_dir=folder),
        manifest_path=folder / "target" / "manifest.json",
        execution_mode=ExecutionMode.PER_NODE,
        concurrency=1,
        cache=CacheConfig(result_storage=folder / "results", key_storage=folder / "keys"),
        test_strategy=TestStrategy.{strategy},
        raise_on_failure=False,
    )
    return orchestrator.run_build()


if __name__ == "__main__":
    statuses = collections.Counter(result["status"] for result in build().values())
    print("STATUSES", dict(statuses), flush=True)
"""


FIVE_TESTS = """\
  - name: {name}
    columns:
      - name: id
        data_tests:
          - not_null
          - unique
          - relationships: {{arguments: {{to: "{parent}", field: id}}}}
      - {{name: value, data_tests: [not_null]}}
      - {{name: loaded_at, data_tests: [not_null]}}
"""


class CannotRunError(Exception):
    """Why a tool is in the table without figures."""


@dataclass
class Ran:
    """What a command cost and printed."""

    seconds: float
    output: str


@dataclass
class Tool:
    """One row: how to build everything, and what the second run must say for its figure to count."""

    name: str
    command: Callable[[Path], Sequence[str | Path]]
    prepare: Callable[[Path], None] = lambda _folder: None
    environment: Callable[[Path], Mapping[str, str]] = lambda _folder: {}
    check: Callable[[Path, str, int], None] = lambda _folder, _output, _models: None
    is_peer: bool = False
    seconds: list[float] = field(default_factory=list)
    problem: str = ""

    @property
    def median(self) -> float | None:
        return statistics.median(self.seconds) if self.seconds else None


def run(command: Sequence[str | Path], folder: Path, environment: Mapping[str, str]) -> Ran:
    """Run a command to its end, and all that it leaves behind. Raises CannotRunError when it fails."""
    # What outlives its parent becomes our child, so that its CPU seconds are counted too.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    _reap_orphans()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        msg = f"exit {done.returncode}: {_last_words(done.stdout)}"
        raise CannotRunError(msg)
    return Ran(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout)


def _reap_orphans() -> None:
    deadline = time.monotonic() + 10
    while orphans := psutil.Process().children():
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if time.monotonic() > deadline:
            for orphan in orphans:
                with suppress(psutil.NoSuchProcess):
                    orphan.send_signal(signal.SIGKILL)
        time.sleep(0.1)


def _last_words(output: str) -> str:
    return " ".join(output.split())[-_TAIL:]


def make_project(folder: Path, models: int, *, all_tested: bool = False) -> None:
    """Write a project of views and tables, which all of the tools can reuse, in the shape of the other benchmarks.

    Every fourth model has a test; where all are tested, each model has five.
    """
    manifest = synthetic_manifest(models)
    (folder / "models").mkdir(parents=True)
    (folder / "dbt_project.yml").write_text(
        f"name: {PROJECT}\nversion: 1.0.0\nprofile: {PROJECT}\n"
        "flags: {send_anonymous_usage_stats: false, require_generic_test_arguments_property: true}\n"
    )
    output = {
        "type": "duckdb",
        "path": str(folder / "bench.duckdb"),
        "threads": THREADS,
        "retries": {"connect_attempts": 6, "retryable_exceptions": ["IOException"]},
    }
    (folder / "profiles.yml").write_text(json.dumps({PROJECT: {"target": "duck", "outputs": {"duck": output}}}))
    tables = "".join(f"      - name: {uid.rsplit('.', 1)[1]}\n" for uid in manifest["sources"])
    sources = "sources:\n  - name: raw\n    schema: raw\n    config: {loaded_at_field: loaded_at}\n    tables:\n"
    tested = []
    for n, node in enumerate(manifest["nodes"].values()):
        parents = [uid.rsplit(".", 1)[1] for uid in node["depends_on"]["nodes"]]
        is_first = node["depends_on"]["nodes"][0].startswith("source")
        reads = [f"source('raw', '{name}')" if is_first else f"ref('{name}')" for name in parents]
        joins = "".join(f"\nleft join {{{{ {one} }}}} as p{i} using (id)" for i, one in enumerate(reads[1:]))
        materialized = "view" if node["config"]["materialized"] == "view" else "table"
        (folder / "models" / f"{node['name']}.sql").write_text(
            f"{{{{ config(materialized='{materialized}') }}}}\n"
            f"select id, p.value + {n} as value, p.loaded_at from {{{{ {reads[0]} }}}} as p{joins}\n"
        )
        if all_tested:
            tested.append(FIVE_TESTS.format(name=node["name"], parent=reads[0]))
        elif n % 4 == 3:
            tested.append(f"  - {{name: {node['name']}, columns: [{{name: id, data_tests: [not_null]}}]}}\n")
    (folder / "models" / "schema.yml").write_text(sources + tables + "models:\n" + "".join(tested))
    with closing(duckdb.connect(str(folder / "bench.duckdb"))) as warehouse:
        warehouse.execute("create schema raw")
        for uid in manifest["sources"]:
            warehouse.execute(
                f"create table raw.{uid.rsplit('.', 1)[1]} as select range as id, range % 7 as value,"
                f" timestamp '2025-01-01' + range * interval 1 second as loaded_at from range({ROWS})"
            )


def install(name: str, peers: Path, requirements: Sequence[str]) -> Path:
    """Return the folder of executables of a peer's environment, made when it is not there."""
    pinned = [*requirements, *(f"{package}=={version(package)}" for package in ("dbt-core", "dbt-duckdb", "duckdb"))]
    folder = peers / name
    stamp = folder / "installed.txt"
    if not stamp.exists() or stamp.read_text() != "\n".join(pinned):
        venv.create(folder, clear=True, with_pip=True)
        pip = [folder / "bin" / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        run([*pip, *pinned], peers, {})
        stamp.write_text("\n".join(pinned))
    return folder / "bin"


def parse(folder: Path) -> None:
    run([BIN / "dbt", "parse"], folder, _dbt_environment(folder))


def _dbt_environment(folder: Path) -> Mapping[str, str]:
    return {"DO_NOT_TRACK": "1", "DBT_PROFILES_DIR": str(folder), "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}


def _dagster_environment(folder: Path) -> Mapping[str, str]:
    return {
        **_dbt_environment(folder),
        "DAGSTER_HOME": str(folder / "home"),
        "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
    }


def _dagster(name: str, job: str, text: str, check: Callable[[Path, str, int], None] | None = None) -> Tool:
    def prepare(folder: Path) -> None:
        parse(folder)
        (folder / "home").mkdir()
        (folder / "home" / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        (folder / "definitions.py").write_text(text.format(folder=folder))

    command = [BIN / "dagster", "job", "execute", "-f", "definitions.py", "-j", job]
    return Tool(name, lambda _folder: command, prepare, _dagster_environment, check or (lambda *_: None))


def _reused_all(_folder: Path, output: str, models: int) -> None:
    if f"0 to build, {models} not" not in output or "Running dbt command" in output:
        msg = f"it did not reuse everything: {_last_words(output)}"
        raise CannotRunError(msg)


def _prefect(bin_: Path, strategy: str, name: str) -> Tool:
    def prepare(folder: Path) -> None:
        parse(folder)
        (folder / "flow.py").write_text(FLOW.format(folder=folder, strategy=strategy))

    def environment(folder: Path) -> Mapping[str, str]:
        return {
            **_dbt_environment(folder),
            "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}",
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
        }

    def check(_folder: Path, output: str, models: int) -> None:
        if f"'cached': {models}" not in output or "'error'" in output:
            msg = f"it did not reuse everything: {_last_words(output)}"
            raise CannotRunError(msg)

    return Tool(name, lambda _folder: [bin_ / "python", "flow.py"], prepare, environment, check, is_peer=True)


def _orchestra(bin_: Path) -> Tool:
    def prepare(folder: Path) -> None:
        (folder / "pyproject.toml").write_text(
            '[tool.orchestra_dbt]\nuse_stateful = true\nstate_file = "orchestra.json"\n'
        )
        (folder / "orchestra.json").write_text('{"state": {}}')

    def environment(folder: Path) -> Mapping[str, str]:
        return {**_dbt_environment(folder), "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}"}

    def check(folder: Path, output: str, _models: int) -> None:
        results = json.loads((folder / "target" / "run_results.json").read_text())["results"]
        if built := [result["unique_id"] for result in results if result["unique_id"].startswith("model.")]:
            msg = f"it built {len(built)} models: {_last_words(output)}"
            raise CannotRunError(msg)

    return Tool(
        "dbt-orchestra", lambda _folder: [bin_ / "orc", "dbt", "build"], prepare, environment, check, is_peer=True
    )


EMPTY_JOB = "an empty Dagster job"
ASSETS_JOB = "a Dagster job over the project's assets that does nothing"
OURS = "state-aware job"


def tools(peers: Path, only: Sequence[str] = ()) -> list[Tool]:
    """Return the rows whose name contains one of `only`, by default all; those that cannot be installed with the reason."""
    rows = [
        _dagster(EMPTY_JOB, "empty", EMPTY),
        _dagster(ASSETS_JOB, "empty", LOADED),
        _dagster(OURS, "nightly", DEFINITIONS, _reused_all),
        Tool("dbt build", lambda _folder: [BIN / "dbt", "build"], environment=_dbt_environment),
    ]
    orchestrator = "Prefect's orchestrator, cached"
    for name, requirements, make in (
        (f"{orchestrator}, tests run", PREFECT, lambda bin_, name: _prefect(bin_, "IMMEDIATE", name)),
        (f"{orchestrator}, tests skipped", PREFECT, lambda bin_, name: _prefect(bin_, "SKIP", name)),
        ("dbt-orchestra", ORCHESTRA, lambda bin_, _name: _orchestra(bin_)),
    ):
        if not _is_wanted(name, only):
            continue
        try:
            peers.mkdir(parents=True, exist_ok=True)
            rows.append(make(install(requirements[0].split("==", maxsplit=1)[0], peers, requirements), name))
        except CannotRunError as error:
            rows.append(Tool(name, lambda _folder: [], is_peer=True, problem=f"not installed: {error}"))
    return [tool for tool in rows if _is_wanted(tool.name, only)]


def _is_wanted(name: str, only: Sequence[str]) -> bool:
    return not only or any(word in name for word in only)


def measure(tools: Sequence[Tool], models: int, repeats: int) -> None:
    """Build everything with each tool, and measure the runs after that, by turns: a machine is not as fast all the time."""
    with tempfile.TemporaryDirectory() as name:
        folders = {tool.name: Path(name).resolve() / str(n) / PROJECT for n, tool in enumerate(tools)}
        for tool in tools:
            _attempt(_build_twice, tool, folders[tool.name], models)
        for _ in range(repeats):
            for tool in tools:
                _attempt(_measure_once, tool, folders[tool.name], models)


def _attempt(action: Callable[[Tool, Path, int], None], tool: Tool, folder: Path, models: int) -> None:
    if tool.problem:
        return
    try:
        action(tool, folder, models)
    except CannotRunError as error:
        tool.seconds.clear()
        tool.problem = f"not measured: {error}"


def _build_twice(tool: Tool, folder: Path, models: int) -> None:
    make_project(folder, models)
    tool.prepare(folder)
    # The second run may still find what the first one left to it, such as caches.
    for _ in range(2):
        run(tool.command(folder), folder, tool.environment(folder))


def _measure_once(tool: Tool, folder: Path, models: int) -> None:
    ran = run(tool.command(folder), folder, tool.environment(folder))
    tool.check(folder, ran.output, models)
    tool.seconds.append(ran.seconds)
    print(f"{tool.name}: {ran.seconds:.2f}", file=sys.stderr)


def _row(tool: Tool, by_name: Mapping[str, Tool]) -> list[str]:
    seconds, ours = tool.median, by_name.get(OURS)
    if seconds is None:
        return [tool.name, "", "", "", tool.problem]
    beyond = []
    for start_up in (by_name.get(EMPTY_JOB), by_name.get(ASSETS_JOB)):
        pairs = zip(tool.seconds, start_up.seconds, strict=False) if tool is ours and start_up else ()
        differences = [one - other for one, other in pairs]
        beyond.append(f"{statistics.median(differences):.2f}" if differences else "")
    ratio = f"{seconds / ours.median:.1f} ×" if ours and ours is not tool and ours.median else ""
    return [tool.name, f"{seconds:.2f}", *beyond, ratio]


def parse_with_tools(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Add the options of a comparison of tools, and parse the command line. Exits where their CPU cannot be counted."""
    parser.add_argument("--peers", type=Path, default=PEERS, metavar="DIR", help="where the peers are installed")
    parser.add_argument("--prefect-up-to", type=int, default=100, metavar="N", help="run Prefect's up to N models")
    parser.add_argument("--repeats", type=int, default=3, help="measured runs of each tool")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="rows whose name contains one of these")
    options = parser.parse_args()
    if not sys.platform.startswith("linux"):
        sys.exit("The CPU seconds of processes that outlive their parent are counted on Linux only.")
    return options


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sizes", nargs="*", type=int, default=[20, 100, 500])
    options = parse_with_tools(parser)
    for models in options.sizes:
        rows = tools(options.peers.resolve(), options.only)
        for tool in rows:
            if tool.name.startswith("Prefect") and models > options.prefect_up_to:
                tool.problem = f"left out above {options.prefect_up_to} models (--prefect-up-to)"
        measure(rows, models, options.repeats)
        by_name = {tool.name: tool for tool in rows}
        print_table(
            f"A run with nothing changed, {models:,} models on DuckDB, CPU seconds of all processes"
            f" (median of {options.repeats})",
            ["", "CPU seconds", "beyond the empty job", "beyond the job that does nothing", "of ours"],
            [_row(tool, by_name) for tool in rows],
        )


if __name__ == "__main__":
    main()
