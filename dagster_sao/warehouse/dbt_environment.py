"""The environment that a dbt process of a project sees, and which of dbt's settings stand in it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path

from dotenv.main import DotEnv

_READS_ENV_FILES = (1, 12)
_OF_ONE_RUN = (
    "FULL_REFRESH", "EMPTY", "SAMPLE", "EVENT_TIME_START", "EVENT_TIME_END", "DEFER", "DEFER_TO_STATE", "STATE",
    "ARTIFACT_STATE_PATH", "FAVOR_STATE", "FAVOR_STATE_MODE", "RESOURCE_TYPES", "EXCLUDE_RESOURCE_TYPES", "FAIL_FAST",
    "WRITE_JSON",
)  # fmt: skip
"""Settings with which dbt does something else than it is asked for: other nodes, other rows, or without a record."""


def environment_of_dbt(project_dir: Path) -> Mapping[str, str]:
    """Return the variables of the environment for dbt: those of this process, over those of the `.env` that dbt reads.

    See `load_dotenv` in dbt's cli/main.py: dbt starts in the project's folder, and takes the first file above it.
    """
    path = env_file(project_dir)
    if path is None:
        return os.environ
    given = DotEnv(path, override=False, encoding="utf-8").dict()
    return {**{name: value for name, value in given.items() if value is not None}, **os.environ}


def env_file(project_dir: Path) -> Path | None:
    """Return the `.env` that the installed dbt reads for a project, None before dbt 1.12 and where there is none."""
    if dbt_version() < _READS_ENV_FILES:
        return None
    folder = Path(project_dir).absolute()
    return next((path for at in (folder, *folder.parents) if (path := at / ".env").is_file()), None)


def setting(name: str, environ: Mapping[str, str]) -> str | None:
    """Return a setting of dbt that stands in the environment, such as `TARGET` in DBT_ENGINE_TARGET or DBT_TARGET."""
    return environ.get(f"DBT_ENGINE_{name}") or environ.get(f"DBT_{name}") or None


def settings_of_one_run(environ: Mapping[str, str]) -> list[str]:
    """Return the variables of the environment with which dbt would do something else than a run has planned."""
    names = (f"{prefix}{name}" for name in _OF_ONE_RUN for prefix in ("DBT_ENGINE_", "DBT_"))
    return [name for name in names if environ.get(name)]


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
    """Return dbt and its adapters with their versions: a parse by others may read another manifest."""
    found = {f"{one.name}=={one.version}" for one in distributions() if (one.name or "").lower().startswith("dbt-")}
    return " ".join(sorted(found))
