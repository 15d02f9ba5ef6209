"""CPU and memory until a command answers or a code location is loaded, beside plain dagster-dbt.

    python benchmarks/start_up.py [1000 10000] [--repeats 5]

Each figure is of a process of its own. Plain dagster-dbt is `@dbt_assets` over the same manifest. Linux only.
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
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

os.environ.update(DO_NOT_TRACK="1", DAGSTER_DISABLE_TELEMETRY="yes", DBT_SEND_ANONYMOUS_USAGE_STATS="false")
# What is installed has its bytecode beside it.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
OURS = "from dagster_sao import build_state_aware_definitions"
PLAIN = "from dagster_dbt import DbtCliResource, DbtProject, dbt_assets"
MODELS_OF_PLAN = 500
CACHE = "dagster_sao_normal_forms.json"
DEFINITIONS = {
    "ours": """
from dagster_dbt import DbtProject
from dagster_sao import build_state_aware_definitions

defs = build_state_aware_definitions(DbtProject("{folder}"))
""",
    "plain": """
import dagster as dg
from dagster_dbt import DbtCliResource, DbtProject, dbt_assets

project = DbtProject("{folder}")


@dbt_assets(manifest=project.manifest_path, project=project)
def models(context, dbt: DbtCliResource):
    yield from ()


defs = dg.Definitions([models], resources={{"dbt": DbtCliResource(project)}})
""",
}
_STARTED = "Started Dagster code server"


@dataclass
class Row:
    """What is measured, and what it cost each time: ours and plain dagster-dbt, each in seconds and MB."""

    name: str
    ours: Callable[[], tuple[float, float]]
    plain: Callable[[], tuple[float, float]] | None = None
    found: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def measure(self) -> None:
        """Measure both, one after the other: a machine is not as fast all the time."""
        for name, what in (("ours", self.ours), ("plain", self.plain)):
            if what is not None:
                self.found.setdefault(name, []).append(what())
        print(self.name, {name: found[-1] for name, found in self.found.items()}, file=sys.stderr)

    @property
    def cells(self) -> list[str]:
        """The cells of the table: medians, and the median of the ratios of each turn."""
        ours, plain = self.found["ours"], self.found.get("plain", [])
        ratios = [mine[0] / theirs[0] for mine, theirs in zip(ours, plain, strict=False)]
        return [self.name, *_medians(ours), *_medians(plain), f"{statistics.median(ratios):.2f} ×" if ratios else ""]


def _medians(found: Sequence[tuple[float, float]]) -> list[str]:
    if not found:
        return ["", ""]
    seconds, megabytes = (statistics.median(column) for column in zip(*found, strict=True))
    return [f"{seconds:.2f}", f"{megabytes:.0f}" if megabytes else ""]


def python(code: str) -> tuple[float, float]:
    """Return what a Python process costs beyond one that does nothing."""
    return max(_spent([sys.executable, "-c", code]) - _spent([sys.executable, "-c", ""]), 0.0), 0.0


def command(*words: str | Path) -> tuple[float, float]:
    return _spent(words), 0.0


def _spent(words: Sequence[str | Path]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def loaded(kind: str, folder: Path, *, cold: bool = False) -> tuple[float, float]:
    """Return what it costs to load definitions, after the imports. Cold: with no normal form cached."""
    if cold:
        (folder / "target" / CACHE).unlink(missing_ok=True)
    worker = [sys.executable, __file__, "--load", kind, str(folder)]
    done = subprocess.run(worker, check=True, capture_output=True, text=True)
    seconds, megabytes = json.loads(done.stdout.splitlines()[-1])
    return seconds, megabytes


def load(kind: str, folder: str) -> None:
    """Load definitions in this process, and print what that cost and the most memory that it had."""
    warnings.simplefilter("ignore")
    imports = {"ours": OURS, "plain": PLAIN}[kind]
    exec(f"import dagster\n{imports}", {})
    start = time.process_time()
    names: dict[str, object] = {}
    exec(DEFINITIONS[kind].format(folder=folder), names)
    assert names["defs"].get_repository_def().asset_graph  # type: ignore[attr-defined]
    seconds = time.process_time() - start
    print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))


def code_server(kind: str, folder: Path) -> tuple[float, float]:
    """Return what a code server has cost when it is ready, imports included, and its memory."""
    file, log = folder / f"{kind}.py", folder / f"{kind}.log"
    file.write_text(DEFINITIONS[kind].format(folder=folder))
    words = [BIN / "dagster", "api", "grpc", "-f", file, "-d", folder, "--socket", folder / f"{kind}.sock"]
    with log.open("w") as output:
        server = psutil.Popen([str(word) for word in words], stdout=output, stderr=subprocess.STDOUT)
    try:
        while _STARTED not in log.read_text():
            assert server.poll() is None, log.read_text()
            time.sleep(0.1)
        spent = server.cpu_times()
        return spent.user + spent.system, server.memory_info().rss / 2**20
    finally:
        server.kill()
        server.wait()


def rows(sizes: Sequence[int], folder: Path) -> list[Row]:
    """Return what is measured, with its projects in `folder`."""
    from benchmarks._support import synthetic_manifest, write_dbt_project
    from benchmarks.state_aware_job import make_project, parse

    ours = BIN / "dagster-sao"
    dbt_project = folder / "plan"
    make_project(dbt_project, MODELS_OF_PLAN)
    parse(dbt_project)
    place = ("--project-dir", dbt_project, "--profiles-dir", dbt_project)
    command(ours, "plan", *place)  # which writes bytecode and normal forms
    found = [
        Row("`import dagster_sao`", lambda: python("import dagster_sao"), lambda: python("import dagster_dbt")),
        Row("importing all that a code location uses", lambda: python(OURS), lambda: python(PLAIN)),
        Row("`--version`", lambda: command(ours, "--version"), lambda: command(BIN / "dagster", "--version")),
        Row("`--help`", lambda: command(ours, "--help"), lambda: command(BIN / "dagster", "--help")),
        Row(f"`plan`, {MODELS_OF_PLAN} models", lambda: command(ours, "plan", *place)),
    ]
    for models in sizes:
        where = folder / str(models)
        write_dbt_project(where, synthetic_manifest(models))
        found += [
            Row(f"{models:,} models, cold", _loading(where, cold=True), _loading(where, "plain")),
            Row(f"{models:,} models, warm", _loading(where), _loading(where, "plain")),
            Row(f"{models:,} models, code server", _serving("ours", where), _serving("plain", where)),
        ]
    return found


def _loading(folder: Path, kind: str = "ours", *, cold: bool = False) -> Callable[[], tuple[float, float]]:
    return lambda: loaded(kind, folder, cold=cold)


def _serving(kind: str, folder: Path) -> Callable[[], tuple[float, float]]:
    return lambda: code_server(kind, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sizes", nargs="*", type=int, default=[1000, 10000])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        (folder / "home").mkdir()
        os.environ.update(DAGSTER_HOME=str(folder / "home"), PYTHONPATH=str(ROOT))
        os.environ["PATH"] = f"{BIN}{os.pathsep}{os.environ['PATH']}"
        found = rows(options.sizes, folder)
        for _ in range(options.repeats):
            for row in found:
                row.measure()
    from benchmarks._support import print_table

    columns = ["", "state-aware", "MB", "plain dagster-dbt", "MB", "ratio"]
    print_table(
        f"Start-up, CPU seconds (medians of {options.repeats})", columns, [row.cells for row in found],
        "Plain dagster-dbt is `dagster` for --version and --help. Cold: no normal form is cached.",
    )  # fmt: skip


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    if sys.argv[1:2] == ["--load"]:
        load(*sys.argv[2:])
    else:
        main()
