"""CPU of a run that builds one model, beside plain dagster-dbt and `dbt build --select` of that model.

    python benchmarks/one_model.py [500] [--before CHECKOUT] [--repeats 3]

Each has its own copy of one made-up project, on DuckDB. Before each run the model is edited. CPU seconds of the process and of
all that it starts. Linux only.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks._support import print_table
from benchmarks.state_aware_job import (
    BIN,
    DEFINITIONS,
    _dagster_environment,
    _dbt_environment,
    make_project,
    parse,
    run,
)

PLAIN = """
import dagster as dg
from dagster_dbt import DbtCliResource, DbtProject, dbt_assets

project = DbtProject("{folder}")


@dbt_assets(manifest=project.manifest_path, project=project)
def models(context, dbt: DbtCliResource):
    yield from dbt.cli(["build"], context=context).stream()


job = dg.define_asset_job("nightly", dg.AssetSelection.{assets}, executor_def=dg.in_process_executor)
defs = dg.Definitions(assets=[models], jobs=[job], resources={{"dbt": DbtCliResource(project)}})
"""
JOB = ("job", "execute", "-f", "definitions.py", "-j", "nightly")


@dataclass
class Tool:
    """One row of the table: a command in the folder of a project."""

    name: str
    command: Sequence[str | Path]
    folder: Path
    definitions: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)

    def write(self, models: int, assets: str) -> None:
        """Write the project and its definitions, and parse it. `assets` are those of the plain job."""
        make_project(self.folder, models)
        (self.folder / "home").mkdir()
        (self.folder / "home" / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        (self.folder / "definitions.py").write_text(self.definitions.format(folder=self.folder, assets=assets))
        parse(self.folder)

    def build(self, command: Sequence[str | Path]) -> float:
        """Run a command, and return its CPU seconds."""
        return run(command, self.folder, self._environ).seconds

    def measure(self, model: str, number: int) -> None:
        """Edit the model, parse, and measure a run."""
        path = self.folder / "models" / f"{model}.sql"
        path.write_text(f"{path.read_text().partition(' where ')[0].rstrip()} where {number} = {number}\n")
        parse(self.folder)
        self.seconds.append(self.build(self.command))
        print(f"{self.name}: {self.seconds[-1]:.2f}", file=sys.stderr)

    @property
    def _environ(self) -> Mapping[str, str]:
        return {**_dagster_environment(self.folder), **_dbt_environment(self.folder), **self.environment}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("models", nargs="?", type=int, default=500)
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="an older version of this package")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    # In the last layer, so that nothing is below it.
    model = f"m{options.models - 1}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        tools = [
            Tool("state-aware job", [BIN / "dagster", *JOB], folder / "now", DEFINITIONS),
            Tool("plain dagster-dbt", [BIN / "dagster", *JOB], folder / "plain", PLAIN),
            Tool(f"`dbt build --select {model}`", [BIN / "dbt", "build", "--select", model], folder / "dbt"),
        ]
        if options.before is not None:
            older = {"PYTHONPATH": str(options.before.resolve())}
            tools.insert(
                1, Tool("state-aware job, before", [BIN / "dagster", *JOB], folder / "old", DEFINITIONS, older)
            )
        for tool in tools:
            tool.write(options.models, f'assets("{model}")')
            tool.build(tool.command if "state-aware" in tool.name else [BIN / "dbt", "build"])
        for number in range(options.repeats + 1):
            for tool in tools:
                tool.measure(model, number)
    dbt = tools[-1].seconds
    print_table(
        f"A run that builds one model of {options.models}, CPU seconds (medians of {options.repeats})",
        ["", "seconds", "ratio to dbt build"],
        [
            [
                tool.name,
                f"{statistics.median(tool.seconds[1:]):.2f}",
                f"{statistics.median(a / b for a, b in zip(tool.seconds[1:], dbt[1:], strict=True)):.1f} ×",
            ]
            for tool in tools
        ],
        "The first run of each is not counted.",
    )


if __name__ == "__main__":
    main()
