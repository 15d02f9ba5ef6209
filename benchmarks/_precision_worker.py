"""A process with one version of the package, which builds and plans on request: part of `precision.py`.

    python benchmarks/_precision_worker.py CHECKOUT

Runs in the folder of a dbt project and takes the package from the checkout. Reads `build` or `plan` from stdin, a line each, and
writes the unique ids of the nodes that were built, or would be, to stdout as JSON, a line each.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

os.environ.update(DO_NOT_TRACK="1", DAGSTER_DISABLE_TELEMETRY="yes", DBT_SEND_ANONYMOUS_USAGE_STATS="false")
os.environ["DBT_PROFILES_DIR"] = str(Path.cwd())
# dagster-dbt looks for dbt there.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
os.environ["PYTHONPATH"] = sys.argv[1]
sys.path.insert(0, sys.argv[1])

import dagster as dg

import dagster_sao
from dagster_sao import StateAwareProject
from dagster_sao.api import NodeStatus


def opened(instance: dg.DagsterInstance) -> StateAwareProject:
    """Return the project as its files are now, also where only a file of a package is another one."""
    subprocess.run([Path(sys.executable).with_name("dbt"), "--quiet", "parse"], check=True)
    return StateAwareProject(Path.cwd(), instance=instance)


def build(instance: dg.DagsterInstance) -> list[str]:
    """Build all, incremental models twice, and return what could be built.

    The first build of an incremental model takes another path through its code than all later ones, so it proves nothing of them.
    """
    results = opened(instance).build(test_strategy="skip", raise_on_failure=False)
    for node in results.values():
        if node.status is not NodeStatus.SUCCESS:
            print(f"{node.unique_id}: {node.message}", file=sys.stderr)
    manifest = json.loads(Path("target", "manifest.json").read_bytes())
    if any(node["config"].get("materialized") == "incremental" for node in manifest["nodes"].values()):
        opened(instance).build(test_strategy="skip", raise_on_failure=False, force="config.materialized:incremental")
    return sorted(node.unique_id for node in results.values() if node.status is NodeStatus.SUCCESS)


def plan(instance: dg.DagsterInstance) -> list[str]:
    """Return what would be built now."""
    return sorted(opened(instance).plan(test_strategy="skip").builds)


def main() -> None:
    assert Path(dagster_sao.__file__).is_relative_to(sys.argv[1]), dagster_sao.__file__
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    # What others print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with tempfile.TemporaryDirectory() as name, dg.DagsterInstance.local_temp(name) as instance:
        for line in sys.stdin:
            found = {"build": build, "plan": plan}[line.strip()](instance)
            print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main()
