"""The files of a dbt project that are read beside dbt: its manifest, its variables, and a cache of normal forms."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from dagster_dbt import DbtProject

from dagster_sao.core.code import text_facts
from dagster_sao.core.code.variables import Variables
from dagster_sao.core.errors import InvalidProjectError
from dagster_sao.core.manifest.read_graph import check_manifest_version
from dagster_sao.orchestration.files import write_json
from dagster_sao.orchestration.messages import sentence
from dagster_sao.sql import normal_form
from dagster_sao.warehouse.dbt_private.environment import dbt_version

Stamp = tuple[int, int, int]
"""A file's inode, size and modification time in nanoseconds."""
_CACHE_FILE = "dagster_sao_normal_forms.json"
_MADE_BY = "made by"
_READS_VARS_YML = (1, 12)
# Longer than dbt's process waits for a processor or a disk between two parts of a manifest.
_WRITING_SECONDS = 1.0


def read_manifest(path: Path) -> Mapping[str, Any]:
    """Return the manifest at `path`. Raises InvalidProjectError when there is none that can be read."""
    try:
        manifest = _whole_json(path)
    except FileNotFoundError:
        msg = f"There is no manifest at {path}. Run `dbt parse` in the dbt project, or call `project.prepare_if_dev()`."
        raise InvalidProjectError(msg) from None
    except (OSError, ValueError) as error:
        msg = f"The manifest at {path} cannot be read ({error}). Run `dbt parse` to write a new one."
        raise InvalidProjectError(msg) from None
    if not isinstance(manifest, dict):
        msg = f"The manifest at {path} is not a JSON object. Run `dbt parse` to write a new one."
        raise InvalidProjectError(msg)
    check_manifest_version(manifest)
    return manifest


def _whole_json(path: Path) -> Any:  # noqa: ANN401
    """Return the content of a file that dbt may be writing: not in one piece, and for a large project not in an instant."""
    while True:
        stamp = stamp_of(path)
        try:
            return json.loads(path.read_bytes())
        except ValueError:
            time.sleep(_WRITING_SECONDS)
            if stamp_of(path) == stamp:
                raise


def read_variables(project_dir: Path, command_line: Mapping[str, Any]) -> Variables:
    """Return the variables that a dbt project and its packages set, and the command line.

    Raises InvalidProjectError when there is no project that can be read.
    """
    root = read_yaml(project_dir / "dbt_project.yml")
    packages_dir = project_dir / str(root.get("packages-install-path") or "dbt_packages")
    packages = {}
    for path in sorted(packages_dir.glob("*/dbt_project.yml")) if packages_dir.is_dir() else ():
        package = read_yaml(path)
        packages[str(package.get("name"))] = package.get("vars") or {}
    return Variables(command_line=command_line, project=_variables_of_root(project_dir, root), packages=packages)


def _variables_of_root(project_dir: Path, root: Mapping[str, Any]) -> Mapping[str, Any]:
    # dbt takes one of the two, and refuses both: https://docs.getdbt.com/docs/build/project-variables
    path = project_dir / "vars.yml"
    if dbt_version() >= _READS_VARS_YML and path.is_file():
        return read_yaml(path).get("vars") or root.get("vars") or {}
    return root.get("vars") or {}


def read_yaml(path: Path) -> Mapping[str, Any]:
    """Return the content of a project's YAML file. Raises InvalidProjectError."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        msg = f"There is no dbt project in {path.parent}: it has no {path.name}."
        raise InvalidProjectError(msg) from None
    except (OSError, yaml.YAMLError) as error:
        msg = f"{path} cannot be read: {sentence(error)}"
        raise InvalidProjectError(msg) from None
    return content if isinstance(content, dict) else {}


def stamp_of(path: Path) -> Stamp | None:
    """Return the stamp of a file; None where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def profile_stamp(dbt_project: DbtProject) -> Stamp | None:
    """Return what changes when the file with dbt's profiles is written."""
    return stamp_of(dbt_project.profiles_dir / "profiles.yml")


def profiles_digest(dbt_project: DbtProject) -> str:
    """Return the digest of the file with dbt's profiles; empty where it cannot be read, which its first use reports."""
    try:
        return hashlib.sha256((dbt_project.profiles_dir / "profiles.yml").read_bytes()).hexdigest()
    except OSError:
        return ""


def known_forms(dbt_project: DbtProject) -> dict[str, str]:
    """Return the normal forms of code and other facts about it, by content, that were computed before by the same packages."""
    try:
        found = json.loads(_cache_path(dbt_project).read_bytes())
        return found if isinstance(found, dict) and found.get(_MADE_BY) == _makers() else {}
    except (OSError, ValueError):
        return {}


@cache
def _makers() -> str:
    """Return what facts about code follow from: another parser, or another rule of this package, may see more in it."""
    return f"Python {sys.version_info[:2]}, sqlglot {version('sqlglot')}, Jinja2 {version('Jinja2')}, {_rules()}"


def _rules() -> str:
    """Return the digest of this package's modules that analyse code."""
    modules = sorted([*Path(normal_form.__file__).parent.rglob("*.py"), Path(text_facts.__file__)])
    return hashlib.sha256(b"".join(module.read_bytes() for module in modules)).hexdigest()


def _cache_path(dbt_project: DbtProject) -> Path:
    return dbt_project.manifest_path.parent / _CACHE_FILE


def keep_forms(dbt_project: DbtProject, forms: Mapping[str, str]) -> None:
    """Keep normal forms for `known_forms`, where the folder can be written: they only save time."""
    with suppress(OSError):
        write_json(_cache_path(dbt_project), {**forms, _MADE_BY: _makers()})
