"""CPU of a build of all models, beside plain dagster-dbt and `dbt build`.

    python benchmarks/full_build.py [100 500] [--before CHECKOUT] [--repeats 1]

Each builds its own copy of one made-up project for the first time, on DuckDB. CPU seconds of the process and of all that it
starts. Linux only.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks._support import print_table
from benchmarks.one_model import JOB, PLAIN, Tool
from benchmarks.state_aware_job import BIN, DEFINITIONS

TOOLS = {
    "`dbt build`": ([BIN / "dbt", "build"], ""),
    "plain dagster-dbt": ([BIN / "dagster", *JOB], PLAIN),
    "state-aware job": ([BIN / "dagster", *JOB], DEFINITIONS),
}
BEFORE = "state-aware job, before"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("models", nargs="*", type=int, default=[100, 500])
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="an older version of this package")
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()
    for models in options.models:
        print_rows(models, measured(models, options.repeats, options.before))


def measured(models: int, repeats: int, before: Path | None) -> dict[str, list[float]]:
    """Return the CPU seconds of each tool, by turns."""
    tools = {**TOOLS, **({BEFORE: TOOLS["state-aware job"]} if before is not None else {})}
    older = {"PYTHONPATH": str(before.resolve())} if before is not None else {}
    seconds: dict[str, list[float]] = {name: [] for name in tools}
    for turn in range(repeats):
        with tempfile.TemporaryDirectory() as name:
            for number, (label, (command, definitions)) in enumerate(tools.items()):
                environment = older if label == BEFORE else {}
                tool = Tool(label, command, Path(name).resolve() / str(number), definitions, environment)
                tool.write(models, "all()")
                seconds[label].append(tool.build(command))
                print(f"{models} models, turn {turn}, {label}: {seconds[label][-1]:.1f}", file=sys.stderr)
    return seconds


def print_rows(models: int, seconds: dict[str, list[float]]) -> None:
    dbt, *_ = seconds.values()
    rows = [
        [
            label,
            f"{statistics.median(own):.1f}",
            f"{statistics.median(a / b for a, b in zip(own, dbt, strict=True)):.2f} ×",
        ]
        for label, own in seconds.items()
    ]
    title = f"The first build of {models} models and {models // 4} tests, CPU seconds (medians of {len(dbt)})"
    print_table(title, ["", "seconds", "ratio to dbt build"], rows)


if __name__ == "__main__":
    main()
