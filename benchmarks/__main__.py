"""Run the benchmarks that need nothing else, or those named: `python -m benchmarks [decision_pass …]`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ALL = ["decision_pass", "decision_with_tests", "automation_tick", "freshness_tick", "warehouse_probes"]
# Those that install something, take projects, run on Linux only, or take long.
ON_DEMAND = [
    "precision", "cost", "tests_after_new_data", "efficient_testing", "proven_share", "state_aware_job", "start_up", "one_model",
    "full_build", "idle_schedule", "latency", "history_length", "longest_path",
]  # fmt: skip


def main() -> None:
    chosen = sys.argv[1:] or ALL
    if unknown := sorted(set(chosen) - {*ALL, *ON_DEMAND}):
        sys.exit(f"There is no benchmark {', '.join(unknown)}. There are {', '.join([*ALL, *ON_DEMAND])}.")
    # A process each, so that none inherits what another left in memory.
    codes = [subprocess.run([sys.executable, str(HERE / f"{name}.py")], check=False).returncode for name in chosen]
    sys.exit(max(codes))


if __name__ == "__main__":
    main()
