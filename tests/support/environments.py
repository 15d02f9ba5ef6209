"""Environments of their own for adapters whose versions do not fit beside the others. Built once, kept in pytest's cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).parents[2]
# What dagster_sao needs beside the adapter, in the versions that it is developed with.
PINNED = "dagster", "dagster-dbt", "dbt-core"
# dbt-snowflake 1.12.4 asks for things that fakesnow does not have.
SNOWFLAKE = "fakesnow[server]", "dbt-snowflake<1.12.4"
# The newest version of DuckDB whose extensions are packages, so that no extension is loaded over the network.
DUCKLAKE = (
    "duckdb==1.5.5",
    "dbt-duckdb==1.11.1",
    "duckdb-extensions==1.5.5",
    "duckdb-extension-ducklake==1.5.5",
)
INSTALL_SECONDS = 900


def own_python(cache: pytest.Cache, name: str, *requirements: str) -> Path:
    """Return the interpreter of an environment with `requirements`; skip the test where they cannot be installed."""
    wanted = [*_pinned(), *requirements]
    key = hashlib.sha256(repr((sys.version_info[:2], wanted)).encode()).hexdigest()[:12]
    folder = cache.mkdir("environments") / f"{name}-{key}"
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    # Two workers of pytest-xdist may want it at once.
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / "complete").exists():
            _make(folder, python, name, wanted)
    return python


def _make(folder: Path, python: Path, name: str, wanted: list[str]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    try:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True, capture_output=True, text=True)
        install = [python, "-m", "pip", "install", "--quiet", *wanted]
        subprocess.run(install, check=True, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        said = str(error.stderr or error).strip().splitlines()
        pytest.skip(f"the packages for {name} cannot be installed here: {said[-1] if said else error}")
    (folder / "complete").touch()


def _pinned() -> list[str]:
    """Return the pins of the packages that every environment has."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [line for line in lines if line.partition("==")[0] in PINNED]


def environment_for(home: Path, **variables: str) -> dict[str, str]:
    """Return the variables of a process that imports this package and keeps its settings below `home`."""
    return {**os.environ, "HOME": str(home), "PYTHONPATH": str(ROOT), "DO_NOT_TRACK": "1", **variables}
