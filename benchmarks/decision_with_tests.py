"""CPU of one plan and of one automation tick over models with three tests each, beside an older version of the package.

    python benchmarks/decision_with_tests.py [1000] [--before CHECKOUT] [--repeats 21]

With `--before`, a checkout of an older version, such as one made by `git worktree add`, decides about the very same manifest
in a process of its own, by turns with this one. A version without verdicts of tests measures only models.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks._support import print_table, synthetic_manifest

HERE = Path(__file__).resolve().parent
ONCE = {"load": "loading the definitions", "tick": "first tick of the process"}
STEPS = {
    "plan": "plan, nothing changed",
    "plan with new data": "plan, 1 % of sources changed",
    "tick": "tick, nothing changed",
    "tick with new data": "tick, 1 % of sources changed",
}
# The first of each reads what later ones know.
WARM_UP = 2


@dataclass
class Figure:
    """What one version spends on one step, and finds due."""

    seconds: list[float] = field(default_factory=list)
    models: int = 0
    tests: int = 0

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


class Version:
    """A checkout in a process of its own."""

    def __init__(self, checkout: Path, manifest: Path) -> None:
        command = [sys.executable, str(HERE / "_decision_worker.py"), str(checkout), str(manifest)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=checkout
        )
        self.figures: dict[str, Figure] = {}

    def measure(self, step: str, name: str) -> None:
        """Let it take a step, and keep what that cost under a name."""
        self._process.stdin.write(f"{step}\n")
        self._process.stdin.flush()
        seconds, models, tests = json.loads(self._process.stdout.readline())
        figure = self.figures.setdefault(name, Figure())
        figure.seconds.append(seconds)
        figure.models, figure.tests = models, tests

    def end(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def measure(models: int, before: Path | None, repeats: int) -> list[list[str]]:
    with tempfile.TemporaryDirectory() as name:
        manifest = Path(name) / "manifest.json"
        made = synthetic_manifest(models, with_tests=True)
        # Of the invocation of dbt that wrote it, as each manifest has one.
        made["metadata"]["invocation_id"] = "00000000-0000-0000-0000-000000000000"
        manifest.write_text(json.dumps(made))
        versions = [Version(checkout, manifest) for checkout in (HERE.parent, before) if checkout]
        for step, title in ONCE.items():
            for version in versions:
                version.measure(step, title)
        for step, title in STEPS.items():
            for round_ in range(WARM_UP + repeats):
                for version in versions[:: 1 if round_ % 2 else -1]:
                    version.measure(step, title if round_ >= WARM_UP else "warm-up")
        for version in versions:
            version.end()
    figures = [version.figures for version in versions]
    assert not any(figure[STEPS[step]].models for figure in figures for step in ("plan", "tick"))
    assert not any(figure[STEPS[step]].tests for figure in figures for step in ("plan", "tick"))
    return [_row(title, [figure[title] for figure in figures]) for title in (*ONCE.values(), *STEPS.values())]


def _row(title: str, figures: list[Figure]) -> list[str]:
    ours, *others = figures
    cells = [title, f"{ours.median:.4f}", f"{ours.models:,}", f"{ours.tests:,}"]
    for other in others:
        cells += [f"{other.median:.4f}", f"{other.models:,}", f"{ours.median / other.median:.2f} ×"]
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sizes", nargs="*", type=int, default=[1000])
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="an older version, to be compared with")
    parser.add_argument("--repeats", type=int, default=21, help="how often each step is measured")
    options = parser.parse_args()
    before = options.before.resolve() if options.before else None
    for models in options.sizes:
        print_table(
            f"Decisions about {models:,} models and {3 * models:,} tests, CPU seconds (median of {options.repeats})",
            ["", "this version", "models due", "tests due", *(["before", "models due", "ratio"] if before else [])],
            measure(models, before, options.repeats),
        )


if __name__ == "__main__":
    main()
