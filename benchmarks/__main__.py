"""Run all benchmarks, or those named: `python -m benchmarks [decision_pass …]`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ALL = ["decision_pass", "automation_tick", "freshness_tick", "warehouse_probes"]


def main() -> None:
    chosen = sys.argv[1:] or ALL
    if unknown := sorted(set(chosen) - set(ALL)):
        sys.exit(f"There is no benchmark {', '.join(unknown)}. There are {', '.join(ALL)}.")
    # A process each, so that none inherits what another left in memory.
    codes = [subprocess.run([sys.executable, str(HERE / f"{name}.py")], check=False).returncode for name in chosen]
    sys.exit(max(codes))


if __name__ == "__main__":
    main()
