"""The definitions of a dbt project that is driven without a Dagster code location of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_dbt import DagsterDbtTranslator, DbtProject

from dagster_sao.core.errors import InvalidProjectError
from dagster_sao.orchestration.automation.sensor import StateAwareAutomationSensor
from dagster_sao.orchestration.dbt.executable import find_dbt
from dagster_sao.orchestration.definitions.build import define
from dagster_sao.orchestration.definitions.settings import StateAwareSettings
from dagster_sao.orchestration.definitions.translator import checked_translator
from dagster_sao.orchestration.private.dbt_selection import finds_selectors
from dagster_sao.orchestration.project.dbt_arguments import (
    DbtSettings,
    project_with,
    settings_of,
    together,
    with_environment,
    with_other,
)
from dagster_sao.orchestration.project.orchestrated import OrchestratedProject
from dagster_sao.orchestration.project.parsing import is_stale, prepare_manifest
from dagster_sao.orchestration.selection.yaml_selectors import check_references, read_selectors


def dbt_project(folder: Path | str, *, profiles_dir: Path | str | None = None) -> DbtProject:
    """Return the dbt project in a folder, with profiles where dbt looks for them.

    Raises InvalidProjectError when there is no dbt project.
    """
    path = Path(folder).absolute()
    if not (path / "dbt_project.yml").is_file():
        msg = f"There is no dbt project in {path}: it has no dbt_project.yml."
        raise InvalidProjectError(msg)
    return DbtProject(path, profiles_dir=_profiles_dir(path, profiles_dir))


def project_definitions(
    project: DbtProject,
    *,
    profile: str | None = None,
    target: str | None = None,
    variables: Mapping[str, Any] | None = None,
    translator: DagsterDbtTranslator | None = None,
) -> dg.Definitions:
    """Return the definitions of a dbt project, which is parsed first if its files or variables changed since the last parse.

    With another profile or target, or with variables, the manifest is kept apart, so that a code location that reads the
    usual one is not disturbed. Another profile or target is another environment, with a state of its own.

    Raises InvalidProjectError when dbt cannot parse the project, InvalidSelectionError for its cyclic yaml selectors.
    """
    find_dbt()
    own = together([("`variables`", DbtSettings(variables or {})), ("the DbtProject", settings_of(project))])
    settings, environment = with_other(project, own, target=target, profile=profile)
    if not environment:
        settings, environment = with_environment(project, settings)
    project = project_with(project, settings)
    if is_stale(project, settings.variables):
        # dbt would report only that it cannot read the file.
        check_references(read_selectors(project.project_dir, {}), in_any_order=finds_selectors())
        prepare_manifest(project, settings.variables)
    orchestrated = OrchestratedProject(
        project, checked_translator(translator), variables=settings.variables, environment=environment
    )
    return define(orchestrated, StateAwareSettings())


def state_aware_projects(definitions: dg.Definitions) -> list[OrchestratedProject]:
    """Return the state-aware dbt projects that definitions hold."""
    sensors = definitions.get_repository_def().sensor_defs
    return [sensor.project for sensor in sensors if isinstance(sensor, StateAwareAutomationSensor)]


def choose_project(projects: Sequence[OrchestratedProject], name: str | None) -> OrchestratedProject:
    """Return the project with a name, the only one where no name is given.

    Raises InvalidProjectError when there is none, or several and no name.
    """
    if not projects:
        msg = "These definitions hold no state-aware dbt project. Add one with build_state_aware_definitions."
        raise InvalidProjectError(msg)
    names = ", ".join(sorted(project.name for project in projects))
    if name is None and len(projects) > 1:
        msg = f"These definitions hold several dbt projects: {names}. Name one of them."
        raise InvalidProjectError(msg)
    for project in projects:
        if name in (None, project.name):
            return project
    msg = f"These definitions hold no dbt project {name}, but {names}."
    raise InvalidProjectError(msg)


def _profiles_dir(project_dir: Path, given: Path | str | None) -> Path:
    """Return the folder where dbt looks: the given one, DBT_PROFILES_DIR, the project, or the home folder."""
    named = given or os.environ.get("DBT_PROFILES_DIR")
    if named:
        path = Path(named).expanduser().absolute()
        if not path.is_dir():
            msg = f"There is no profiles directory {path}. Name the folder of your profiles.yml with --profiles-dir."
            raise InvalidProjectError(msg)
        return path
    for folder in (project_dir, Path.home() / ".dbt"):
        if (folder / "profiles.yml").is_file():
            return folder
    msg = (
        f"There is no profiles.yml in {project_dir} or {Path.home() / '.dbt'}."
        " Name its folder with --profiles-dir or DBT_PROFILES_DIR."
    )
    raise InvalidProjectError(msg)
