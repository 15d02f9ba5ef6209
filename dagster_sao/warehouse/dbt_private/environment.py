"""The environment variables that dbt sees in a project, and the settings of dbt among them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path

from dotenv.main import DotEnv

from dagster_sao.core.dbt_settings import is_on, setting

_READS_ENV_FILES = (1, 12)
_OF_ONE_RUN = (
    "FULL_REFRESH", "EMPTY", "SAMPLE", "EVENT_TIME_START", "EVENT_TIME_END", "DEFER", "DEFER_TO_STATE", "STATE",
    "DEFER_STATE", "ARTIFACT_STATE_PATH", "FAVOR_STATE", "FAVOR_STATE_MODE", "RESOURCE_TYPES", "EXCLUDE_RESOURCE_TYPES", "FAIL_FAST",
    "WRITE_JSON",
)  # fmt: skip
"""Settings that make dbt deviate from a run's plan: other nodes, other rows, or no record."""
_OF_ALL_RUNS = {
    "INDIRECT_SELECTION": "empty", "FAIL_FAST": "false", "WRITE_JSON": "true", "QUIET": "false", "LOG_LEVEL": "info",
    "LOG_LEVEL_FILE": "debug",
}  # fmt: skip
"""Settings that runs rely on, which the project's `flags:` may set otherwise."""
_OF_DAGSTER = ("PROJECT_DIR", "PROFILES_DIR", "TARGET_PATH", "LOG_PATH", "LOG_FORMAT")
"""Settings that dagster-dbt passes to dbt by older names. dbt prefers the newer names."""
_DBT_STATE, _DBT_STATE_OFF = "DBT_ENGINE_MANAGE_STATE", "RUN_CACHE_DISABLED"
_ENTRY_OF_CORE = b"from dbt.cli.main import cli"


def environment_of_dbt(project_dir: Path) -> Mapping[str, str]:
    """Return the environment variables that dbt sees: the variables of this process, and below them the `.env` that dbt reads.

    See `load_dotenv` in dbt's cli/main.py: dbt starts in the project's folder, and takes the first file above it.
    """
    path = env_file(project_dir)
    if path is None:
        return os.environ
    given = DotEnv(path, override=False, encoding="utf-8").dict()
    return {**{name: value for name, value in given.items() if value is not None}, **os.environ}


def environment_of_file(project_dir: Path) -> Mapping[str, str]:
    """Return the variables in the `.env` that dbt reads."""
    path = env_file(project_dir)
    given = DotEnv(path, override=False, encoding="utf-8").dict() if path is not None else {}
    return {name: value for name, value in given.items() if value is not None}


def env_file(project_dir: Path) -> Path | None:
    """Return the `.env` that the installed dbt reads for a project, None before dbt 1.12 and where there is none."""
    if dbt_version() < _READS_ENV_FILES:
        return None
    folder = Path(project_dir).absolute()
    return next((path for at in (folder, *folder.parents) if (path := at / ".env").is_file()), None)


@contextmanager
def own_environment() -> Iterator[None]:
    """Keep the variables of this process as they are while dbt's command line is imported.

    That puts the `.env` of the current folder among them for good, so that a changed file, or the project's own, would count no more: neither
    here nor in the commands that this process starts.
    """
    before = set(os.environ)
    try:
        yield
    finally:
        for name in environment_of_file(Path.cwd()).keys() - before:
            os.environ.pop(name, None)


def settings_of_one_run(environ: Mapping[str, str]) -> list[str]:
    """Return the environment variables that would make dbt deviate from a run's plan."""
    names = (f"{prefix}{name}" for name in _OF_ONE_RUN for prefix in ("DBT_ENGINE_", "DBT_"))
    return [name for name in names if environ.get(name)]


def settings_of_all_runs(environ: Mapping[str, str], executable: str) -> Mapping[str, str | None]:
    """Return the variables that make a dbt command work as runs expect, with None for variables to remove.

    `environ` is the environment that dbt would see. A log level that shows more is kept. dbt State is off: it would
    decide once more what to build.
    """
    shown = {name: level for name in ("LOG_LEVEL", "LOG_LEVEL_FILE") if (level := setting(name, environ)) == "debug"}
    found: dict[str, str | None] = {f"DBT_{name}": value for name, value in {**_OF_ALL_RUNS, **shown}.items()}
    found.update({name: None for one in (*_OF_ALL_RUNS, *_OF_DAGSTER) if (name := f"DBT_ENGINE_{one}") in environ})
    found[_DBT_STATE_OFF] = "true"
    # dbt-core 1.x warns of a setting that only the plugin knows, so it is set only where it matters.
    if environ.get(_DBT_STATE) or not _is_own_dbt(executable):
        found[_DBT_STATE] = "false"
    return found


def environment_of_commands(environ: Mapping[str, str], executable: str) -> Mapping[str, str | None]:
    """Return the variables with which a dbt command does what was planned, with None for variables to remove.

    `environ` is the environment that dbt would see.
    """
    changes = {**dict.fromkeys(settings_of_one_run(environ)), **settings_of_all_runs(environ, executable)}
    # A variable in a `.env` file cannot be removed, but to dbt an empty value means none.
    return {name: "" if value is None and name not in os.environ else value for name, value in changes.items()}


def dbt_state_switch(environ: Mapping[str, str]) -> str:
    """Return the name of what switches dbt State on in this environment, empty where nothing does.

    https://docs.getdbt.com/docs/deploy/dbt-state-setup
    """
    if _DBT_STATE in environ:
        return _DBT_STATE if is_on(environ[_DBT_STATE]) else ""
    try:
        version("dbt-state")
    except PackageNotFoundError:
        return ""
    return "" if is_on(environ.get(_DBT_STATE_OFF)) else "the package dbt-state"


def _is_own_dbt(executable: str) -> bool:
    """Return whether an executable is the dbt that this Python environment installed, or is not there."""
    path = shutil.which(executable)
    return path is None or Path(path).absolute().parent in {
        Path(sys.executable).absolute().parent,
        Path(sysconfig.get_path("scripts")).absolute(),
    }


@cache
def is_imported_dbt(executable: str) -> bool:
    """Return whether an executable is certain to be a script that starts the dbt-core which this process imports.

    dbt Fusion has the same name and may lie in the same folder, so what the script imports counts.
    """
    path = shutil.which(executable)
    if path is None or not _is_own_dbt(executable):
        return False
    try:
        first, _, rest = Path(path).read_bytes().partition(b"\n")
        interpreter = Path(first.removeprefix(b"#!").strip().decode())
    except (OSError, ValueError):
        return False
    is_script = first.startswith(b"#!") and interpreter.parent == Path(sys.executable).absolute().parent
    return is_script and _ENTRY_OF_CORE in rest


@cache
def other_dbt(executable: str) -> str:
    """Return a sentence when an executable is another version of dbt than the one that Python imports, else nothing."""
    path = shutil.which(executable)
    if path is None or _is_own_dbt(executable):
        return ""
    try:
        own = version("dbt-core")
        output = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60, check=True).stdout
    except (PackageNotFoundError, OSError, subprocess.SubprocessError):
        return ""
    found = re.search(r"\d+\.\d+\.\d+\S*", output)
    if found is None or found[0] == own:
        return ""
    return (
        f"Runs start {path}, which is dbt {found[0]}, while this Python environment has dbt {own}: the two may parse and build"
        " the project differently. Put this environment's folder of scripts first on the PATH, or set `dbt_executable`"
        " of the DbtCliResource."
    )


@cache
def dbt_version() -> tuple[int, int]:
    """Return the installed dbt-core's major and minor version, zeros where there is none."""
    try:
        major, minor = version("dbt-core").split(".")[:2]
    except PackageNotFoundError:
        return 0, 0
    return int(major), int(minor)


@cache
def dbt_packages() -> str:
    """Return dbt and its adapters with their versions, on which the manifest may depend."""
    found = {f"{one.name}=={one.version}" for one in distributions() if (one.name or "").lower().startswith("dbt-")}
    return " ".join(sorted(found))
