"""What dbt's Jinja context holds beside the manifest: variables, the environment, and settings of project and profile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from dagster_dbt import DbtProject

from dagster_sao.core.code.context_values import Surroundings
from dagster_sao.core.code.variables import Variables
from dagster_sao.orchestration.project.python_modules import ImportedModules
from dagster_sao.orchestration.project.read_files import profiles_digest, read_yaml
from dagster_sao.warehouse.dbt_private.environment import environment_of_dbt, environment_of_file
from dagster_sao.warehouse.errors import WarehouseError
from dagster_sao.warehouse.profiles import module_folders, place_of, session_settings, target_values


@dataclass(frozen=True, slots=True)
class Moment:
    """What code consists of beside the manifest, as it was at one moment. Equal where all of it was the same.

    dbt reads it when it starts, or when it imports a module, and the manifest that dbt writes does not have it.
    """

    surroundings: Surroundings = field(compare=False)
    """Its target is read when some code reads it."""
    imported: Mapping[str, Mapping[str, str]]
    """The texts of the project's own modules, by the code that imports them."""
    profiles: str
    """The digest of the file with the profiles."""
    settings: Sequence[object]

    def texts(self, code: str) -> Mapping[str, str]:
        """Return the texts of the modules that the code of a Python model imports."""
        return self.imported.get(code, {})

    def before(self, now: Moment) -> Moment:
        """Return this moment as it is seen from a later one: a target that nobody has read before the file changed is lost."""
        if self.profiles == now.profiles:
            return self
        return replace(self, surroundings=replace(self.surroundings, target=dict))


def moment_of(
    dbt_project: DbtProject,
    variables: Variables,
    manifest: Mapping[str, Any],
    arguments: Mapping[str, Any] | None = None,
) -> Moment:
    """Return what code consists of now, beside a manifest, with `variables`.

    `arguments` are the flags that the arguments of dbt's commands set.

    Raises InvalidProjectError or WarehouseError for a project that cannot be read.
    """
    profiles = profiles_digest(dbt_project)
    settings = read_yaml(dbt_project.project_dir / "dbt_project.yml")
    found = replace(surroundings_of(dbt_project, settings, variables), arguments=arguments or {})
    compared = variables, found.flags, found.dispatch, found.session, environment_of_file(dbt_project.project_dir)
    modules = imported_modules(dbt_project, variables)
    python = {str(node.get("raw_code")) for node in manifest["nodes"].values() if node.get("language") == "python"}
    imported = {code: modules.texts(code) for code in (*python, _imports_of_plugins(found.session))}
    return Moment(found, imported, profiles, compared)


def surroundings_of(dbt_project: DbtProject, settings: Mapping[str, Any], variables: Variables) -> Surroundings:
    """Return what the templates of a dbt project may read. `settings` is the content of its dbt_project.yml.

    The profile's target is read when some code reads it, which raises WarehouseError for a broken profile.
    """

    @cache
    def target() -> Mapping[str, Any]:
        return target_values(*_profile(dbt_project), variables.command_line)

    session = session_settings(
        Path(dbt_project.project_dir),
        Path(dbt_project.profiles_dir),
        dbt_project.profile or settings.get("profile"),
        dbt_project.target,
        variables.command_line,
    )
    return Surroundings(
        variables=variables,
        environ=environment_of_dbt(dbt_project.project_dir),
        flags=settings.get("flags") or {},
        dispatch=settings.get("dispatch"),
        target=target,
        session={**session, **_code_of_plugins(session, imported_modules(dbt_project, variables))},
    )


def _code_of_plugins(session: Mapping[str, Any], modules: ImportedModules) -> Mapping[str, Any]:
    """Return the project's own code that the plugins of dbt-duckdb are made of, as a setting of the session."""
    try:
        code = modules.texts(_imports_of_plugins(session))
    except WarehouseError:  # the first use of the profile reports it
        return {}
    return {"plugins: code": code} if code else {}


def _imports_of_plugins(session: Mapping[str, Any]) -> str:
    """Return Python code that imports what dbt-duckdb imports as plugins."""
    names = [value for name, value in session.items() if name.startswith("plugins.") and name.endswith(".module")]
    return "\n".join(f"import {name}" for name in names)


def imported_modules(dbt_project: DbtProject, variables: Variables) -> ImportedModules:
    """Return the finder of the project's own modules that its Python models import.

    The profile is read when one imports something, which raises WarehouseError for a broken profile.
    """

    @cache
    def folders() -> Sequence[Path]:
        return module_folders(*_profile(dbt_project), variables.command_line)

    return ImportedModules(folders)


def warehouse_of(dbt_project: DbtProject, variables: Variables) -> str:
    """Return an id of the warehouse of a project's target. Raises WarehouseError for a broken profile."""
    return place_of(*_profile(dbt_project), variables.command_line)


def _profile(dbt_project: DbtProject) -> tuple[Path, Path, str | None, str | None]:
    project_dir, profiles_dir = Path(dbt_project.project_dir), Path(dbt_project.profiles_dir)
    return project_dir, profiles_dir, dbt_project.profile, dbt_project.target
