"""CPU of a schedule's tick with nothing to build or test, beside `dbt build` and other tools on the same project.

    python benchmarks/idle_schedule.py [20 100 500 2000] [--dbt-up-to 500] [--peers DIR] [--prefect-up-to 100] [--repeats 3]

The tick is evaluated by the function that the code server calls, in a process that has ticked before, with the sources
probed in their DuckDB file each time. The other tools are those of `state_aware_job.py`: each has its own copy of the
project, builds everything first, and runs again with nothing changed. All of their processes count.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks._support import print_table
from benchmarks.state_aware_job import (
    BIN,
    OURS,
    PROJECT,
    CannotRunError,
    Tool,
    make_project,
    measure,
    parse_with_tools,
    run,
    tools,
)

WORKER = Path(__file__).with_name("_idle_worker.py")
TICK = "idle tick of a state-aware job's schedule"
_LEFT_OUT = ("an empty Dagster job", "a Dagster job over")


def measure_tick(ours: Tool, models: int, repeats: int) -> tuple[list[float], str]:
    """Build the project with the state-aware job, and return the CPU seconds of the ticks after that, and what they said."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve() / PROJECT
        make_project(folder, models)
        ours.prepare(folder)
        definitions = (folder / "definitions.py").read_text()
        scheduled = definitions.replace(
            'build_state_aware_job("nightly")', 'build_state_aware_job("nightly", schedule="@hourly")'
        )
        (folder / "definitions.py").write_text(scheduled)
        run(ours.command(folder), folder, ours.environment(folder))
        done = run([BIN / "python", WORKER, str(repeats)], folder, ours.environment(folder))
    answer = json.loads(done.output.splitlines()[-1])
    if not answer["said"].startswith(f"{models} models current; "):
        msg = f"the tick was not idle: {answer['said']}"
        raise CannotRunError(msg)
    return answer["seconds"], answer["said"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sizes", nargs="*", type=int, default=[20, 100, 500, 2000])
    parser.add_argument("--dbt-up-to", type=int, default=500, metavar="N", help="run the other tools up to N models")
    options = parse_with_tools(parser)
    for models in options.sizes:
        (ours,) = tools(options.peers.resolve(), [OURS])
        ticks, said = measure_tick(ours, models, max(options.repeats, 10))
        wanted = tools(options.peers.resolve(), options.only)
        others = [tool for tool in wanted if not tool.name.startswith(_LEFT_OUT)]
        for tool in others:
            if models > options.dbt_up_to or (tool.name.startswith("Prefect") and models > options.prefect_up_to):
                tool.problem = "left out at this size"
        measure(others, models, options.repeats)
        tick = statistics.median(ticks)
        cells = [[TICK, f"{tick:.3f}", "1 ×"]]
        for tool in others:
            median = tool.median
            cells.append([tool.name, *((f"{median:.2f}", f"{median / tick:.0f} ×") if median else ("", tool.problem))])
        print_table(
            f"Nothing changed, {models:,} models on DuckDB, CPU seconds of all processes",
            ["", "CPU seconds", "of the tick"],
            cells,
            note=said,
        )


if __name__ == "__main__":
    main()
