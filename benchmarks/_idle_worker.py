"""Ticks the schedule of the definitions in this folder, and prints the CPU seconds of each warm tick as JSON."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._grpc.impl import get_external_schedule_execution
from dagster._serdes import serialize_value

_COLD = 2


def _cpu() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def main() -> None:
    scope: dict[str, Any] = {}
    exec(Path("definitions.py").read_text(), scope)
    repository = scope["defs"].get_repository_def()
    with dg.DagsterInstance.from_config(os.environ["DAGSTER_HOME"]) as instance:
        ref = instance.get_ref()
    seconds, said = [], ""
    for _ in range(_COLD + int(sys.argv[1])):
        before = _cpu()
        result = get_external_schedule_execution(repository, ref, "nightly_schedule", time.time(), None, None)
        serialize_value(result)
        seconds.append(_cpu() - before)
        said = getattr(result, "skip_message", None) or repr(result)
    print(json.dumps({"seconds": seconds[_COLD:], "first": seconds[0], "said": said}))


if __name__ == "__main__":
    main()
