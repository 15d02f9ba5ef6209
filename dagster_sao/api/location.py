"""The definitions of a dbt project that is driven without a Dagster code location of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_dbt import DbtProject

from dagster_sao.core.errors import InvalidProjectError
from dagster_sao.core.versions import digest
from dagster_sao.orchestration.automation_sensor import StateAwareAutomationSensor
from dagster_sao.orchestration.definitions import build_state_aware_definitions
from dagster_sao.orchestration.project import OrchestratedProject, newer_than_manifest, prepare_manifest
from dagster_sao.orchestration.translator import StateAwareDbtTranslator
from dagster_sao.orchestration.yaml_selectors import check_references, read_selectors

_TARGET_PATH = "target"


def dbt_project(
    folder: Path | str,
    *,
    profiles_dir: Path | str | None = None,
    profile: str | None = None,
    variables: Mapping[str, Any] | None = None,
) -> DbtProject:
    """Return the dbt project in a folder, with profiles where dbt looks for them.

    Its manifest for another profile or with variables is kept apart, so that a code location that reads the usual one is
    not disturbed.

    Raises InvalidProjectError when there is no dbt project.
    """
    path = Path(folder).absolute()
    if not (path / "dbt_project.yml").is_file():
        msg = f"There is no dbt project in {path}: it has no dbt_project.yml."
        raise InvalidProjectError(msg)
    return DbtProject(
        path,
        target_path=_target_path(profile, variables),
        profiles_dir=_profiles_dir(path, profiles_dir),
        profile=profile,
        prepare_project_cli_args=["parse", "--quiet", *(["--vars", json.dumps(dict(variables))] if variables else [])],
    )


def project_definitions(
    project: DbtProject,
    *,
    variables: Mapping[str, Any] | None = None,
    translator: StateAwareDbtTranslator | None = None,
) -> dg.Definitions:
    """Return the definitions of a dbt project, whose manifest is written anew when a file of the project is newer.

    Raises InvalidProjectError when dbt cannot parse the project, InvalidSelectionError for its cyclic yaml selectors.
    """
    if newer_than_manifest(project) is not None:
        # dbt would say of them only that it cannot read the file.
        check_references(read_selectors(project.project_dir, {}))
        prepare_manifest(project)
    return build_state_aware_definitions(project, variables=variables, translator=translator)


def state_aware_projects(definitions: dg.Definitions) -> list[OrchestratedProject]:
    """Return the state-aware dbt projects that definitions hold."""
    sensors = definitions.get_repository_def().sensor_defs
    return [sensor.project for sensor in sensors if isinstance(sensor, StateAwareAutomationSensor)]


def _target_path(profile: str | None, variables: Mapping[str, Any] | None) -> Path:
    if not profile and not variables:
        return Path(_TARGET_PATH)
    key = json.dumps([profile, dict(variables or {})], sort_keys=True, default=str)
    return Path(_TARGET_PATH) / "dagster_sao" / digest([key])


def _profiles_dir(project_dir: Path, given: Path | str | None) -> Path:
    """Return where dbt looks: what was given, DBT_PROFILES_DIR, the project, the home folder."""
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
