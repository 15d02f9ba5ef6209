"""CPU of one decision pass: `make_plan` over all models of a project, and what it costs once per manifest before.

    python benchmarks/decision_pass.py [100 1000 10000]

Pure core: no Dagster, no dbt, no warehouse.
"""

from __future__ import annotations

import argparse
import sys
from datetime import datetime, timezone
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks._support import (
    built_state,
    changed_sources,
    cpu_seconds,
    median_cpu,
    print_table,
    read_project,
    synthetic_manifest,
    with_new_tokens,
)
from dagster_sao.core.decision.planner import make_plan

REPEATS = 9
NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


def measure(models: int) -> list[str]:
    manifest = synthetic_manifest(models)
    cache: dict[str, str] = {}
    cold = cpu_seconds(lambda: read_project(manifest, cache))
    warm = cpu_seconds(lambda: read_project(manifest, cache))
    project = read_project(manifest, cache)
    unchanged = built_state(project, NOW)
    changed = with_new_tokens(unchanged, changed_sources(project), NOW)
    assert not make_plan(project, unchanged, now=NOW).builds
    builds = make_plan(project, changed, now=NOW).builds
    assert builds
    return [
        f"{models:,}",
        f"{median_cpu(lambda: make_plan(project, unchanged, now=NOW), REPEATS):.4f}",
        f"{median_cpu(lambda: make_plan(project, changed, now=NOW), REPEATS):.4f}",
        f"{len(builds):,}",
        f"{cold:.2f}",
        f"{warm:.2f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sizes", nargs="*", type=int, default=[100, 1000, 10000])
    print_table(
        f"One decision pass, CPU seconds (median of {REPEATS})",
        [
            "models",
            "nothing changed",
            "1 % of sources changed",
            "to build then",
            "once per manifest",
            "with cached normal forms",
        ],
        [measure(size) for size in parser.parse_args().sizes],
    )


if __name__ == "__main__":
    main()
