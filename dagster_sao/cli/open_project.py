"""Finds the project of a command: in Dagster definitions, or in the folder of a dbt project."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import dagster as dg
from dagster.components.definitions import LazyDefinitions

from dagster_sao.api import StateAwareProject
from dagster_sao.api.for_cli import changed_since_parse, read_variables, sentence
from dagster_sao.errors import ConflictingOptionsError, DagsterSaoError, InvalidProjectError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_OF_A_FOLDER = ("project_dir", "profiles_dir", "profile")


def open_project(options: Mapping[str, Any], warn: Any) -> StateAwareProject:  # noqa: ANN401 (a function of a sentence)
    """Return the project that the options of the command line name.

    Definitions in a file or module come first, then the dbt project in `--project-dir` or the current folder, then the
    definitions that the pyproject.toml here names. Raises ConflictingOptionsError or InvalidProjectError.
    """
    python_file, module_name = options["python_file"], options["module_name"]
    target, variables = options["target"], read_variables(options["variables"] or {}, "--vars")
    given = [f"--{name.replace('_', '-')}" for name in _OF_A_FOLDER if options[name]]
    if python_file and module_name:
        msg = "--python-file and --module-name both name Dagster definitions: give one of them."
        raise ConflictingOptionsError(msg)
    if (python_file or module_name) and given:
        msg = f"{', '.join(given)} cannot be combined with Dagster definitions, which set it themselves."
        raise ConflictingOptionsError(msg)
    if not (python_file or module_name):
        named = options["project_dir"] or os.environ.get("DBT_PROJECT_DIR")
        folder = Path(named or Path.cwd())
        if named or (folder / "dbt_project.yml").is_file():
            return StateAwareProject(
                folder,
                profiles_dir=options["profiles_dir"],
                profile=options["profile"],
                target=target,
                variables=variables,
            )
        module_name = _module_of_pyproject(folder)
    definitions = _definitions(python_file, module_name)
    project = StateAwareProject.from_definitions(
        definitions, name=options["project_name"], target=target, variables=variables
    )
    changed = changed_since_parse(project.orchestrated.dbt_project, project.orchestrated.variables)
    if changed:
        warn(
            f"{changed} after the manifest of {project.name} was parsed."
            " Run `dbt parse` to have the change taken into account."
        )
    return project


def _module_of_pyproject(folder: Path) -> str:
    path = folder / "pyproject.toml"
    try:
        tools = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {})
    except (OSError, tomllib.TOMLDecodeError):
        tools = {}
    dg_project = tools.get("dg", {}).get("project", {})
    module = tools.get("dagster", {}).get("module_name") or dg_project.get("code_location_target_module")
    if module is None and dg_project.get("root_module"):
        module = f"{dg_project['root_module']}.definitions"
    if module is None:
        msg = (
            f"There is no dbt project in {folder}, and no pyproject.toml that names Dagster definitions."
            " Name them with --python-file, --module-name or --project-dir."
        )
        raise InvalidProjectError(msg)
    for entry in (folder, folder / "src"):
        sys.path.insert(0, str(entry))
    return str(module)


def _definitions(python_file: Path | None, module_name: str | None) -> dg.Definitions:
    where = str(python_file or module_name)
    try:
        module = _module_of_file(python_file) if python_file else _module(str(module_name))
    except (DagsterSaoError, click.ClickException):
        raise
    except Exception as error:
        msg = f"{where} cannot be loaded: {type(error).__name__}: {sentence(error)}"
        raise InvalidProjectError(msg) from error
    # A module of Dagster's `dg` has a function that makes them.
    made = [value for value in vars(module).values() if isinstance(value, (dg.Definitions, LazyDefinitions))]
    found = [value() if isinstance(value, LazyDefinitions) else value for value in made]
    if not found:
        msg = f"{where} holds no dagster.Definitions object."
        raise InvalidProjectError(msg)
    return found[-1]


def _module(name: str) -> ModuleType:
    # As Dagster does: what lies in the current folder can be imported.
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    return importlib.import_module(name)


def _module_of_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        msg = f"There is no Python file {path}."
        raise InvalidProjectError(msg)
    # As Dagster does for a python_file: what lies beside it can be imported.
    sys.path.insert(0, str(path.parent.resolve()))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
