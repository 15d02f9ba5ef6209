"""Read a dbt profile without connecting: its target, its place, its secrets."""

# ruff: noqa: ANN401  # values of a profile, of any type until they are looked at

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from dagster_sao.warehouse.adapters import traits_of
from dagster_sao.warehouse.dbt_private import config
from dagster_sao.warehouse.dbt_private.environment import environment_of_dbt
from dagster_sao.warehouse.errors import WarehouseError, reason
from dagster_sao.warehouse.redaction import learn, masked, secrets_in

_T = TypeVar("_T")
_PATH = re.compile(r"attach\.\d+\.path")
_PARAMETERS = re.compile(r"\?.*", re.DOTALL)
_LISTS = frozenset({"attach", "plugins"})
"""Settings that are lists of mappings."""
_HARMLESS = re.compile(
    r"secret|token|password|key|user|memory|thread|directory|progress|checkpoint|logging|http|s3_|azure|gcs|proxy|cert"
    r"|profiling|extension|autoload|autoinstall|external_access|lock_|wal_|cache|allocator|temp_|warehouse|query_tag",
    re.IGNORECASE,
)
"""The names of settings that change no rows: sizes, places, access."""


def default_target(project_dir: Path, profiles_dir: Path, profile: str | None) -> str:
    """Return the target of a profile that dbt uses when none is named. Raises WarehouseError for a broken profile."""
    return _read(project_dir, profiles_dir, profile, None, {}, lambda loaded, _: str(loaded.target_name))


def threads_of(project_dir: Path, profiles_dir: Path, profile: str | None, target: str | None) -> int:
    """Return how many nodes dbt builds at once with a profile. Raises WarehouseError for a broken profile."""
    return _read(project_dir, profiles_dir, profile, target, {}, lambda loaded, _: int(loaded.threads))


def target_values(
    project_dir: Path, profiles_dir: Path, profile: str | None, target: str | None, variables: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Return the values of `target` in dbt's Jinja, without secrets. Raises WarehouseError for a broken profile."""
    return _read(project_dir, profiles_dir, profile, target, variables, lambda loaded, _: dict(loaded.to_target_dict()))


def place_of(
    project_dir: Path, profiles_dir: Path, profile: str | None, target: str | None, variables: Mapping[str, Any]
) -> str:
    """Return the account, host or file that identifies the warehouse of a profile, independent of the target's name.

    Raises WarehouseError for a broken profile.
    """
    return _read(
        project_dir,
        profiles_dir,
        profile,
        target,
        variables,
        lambda loaded, folder: config.place_of(loaded.credentials, folder),
    )


def session_settings(
    project_dir: Path, profiles_dir: Path, profile: str | None, target: str | None, variables: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the settings of a target that may change what SQL gives, such as the time zone of a session, by name.

    Empty if the profile cannot be read, which its first use reports. dbt is asked only if the file computes one of them.
    """
    try:
        output = _output(_yaml(Path(profiles_dir) / "profiles.yml"), profile, target)
    except (OSError, ValueError):
        return {}
    if output is not None:
        names = traits_of(str(output.get("type"))).session_settings
        found = _flat({name: output[name] for name in sorted(names) if name in output})
        if not any(mark in str(found) for mark in ("{{", "{%")):
            return found

    def of_dbt(loaded: Any, _: Path) -> dict[str, Any]:
        names = traits_of(loaded.credentials.type).session_settings
        return _flat({name: getattr(loaded.credentials, name, None) for name in sorted(names)})

    try:
        return _read(project_dir, profiles_dir, profile, target, variables, of_dbt)
    except WarehouseError:
        return {}


def _output(raw: Any, profile: str | None, target: str | None) -> Mapping[str, Any] | None:
    """Return a target as profiles.yml spells it, None where only dbt can tell which it is."""
    found = raw.get(profile) if isinstance(raw, dict) else None
    outputs = found.get("outputs") if isinstance(found, dict) else None
    name = target or (found.get("target", "default") if isinstance(found, dict) else None)
    output = outputs.get(name) if isinstance(outputs, dict) else None
    return output if isinstance(output, dict) and "{" not in str(output.get("type")) else None


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with those that are mappings one by one, without those that change no rows, or hold secrets."""
    found: dict[str, Any] = {}
    for name, given in settings.items():
        is_record = dataclasses.is_dataclass(given) and not isinstance(given, type)
        value = dataclasses.asdict(given) if is_record else given
        if isinstance(value, list) and name in _LISTS:
            value = dict(enumerate(value))
        if isinstance(value, Mapping):
            found.update(_flat({f"{name}.{inner}": held for inner, held in value.items()}))
        elif value is not None and not _HARMLESS.search(name):
            found[name] = masked(_PARAMETERS.sub("", value)) if _PATH.fullmatch(name) else value
    return found


def module_folders(
    project_dir: Path, profiles_dir: Path, profile: str | None, target: str | None, variables: Mapping[str, Any]
) -> list[Path]:
    """Return the folders from which Python models import modules: dbt-duckdb's `module_paths`, and the project's own.

    Raises WarehouseError for a broken profile.
    """

    def folders(loaded: Any, folder: Path) -> list[Path]:
        paths = getattr(loaded.credentials, "module_paths", None) or ()
        return [*(folder / path for path in paths), folder]

    return _read(project_dir, profiles_dir, profile, target, variables, folders)


def _read(  # noqa: PLR0913, PLR0917 (what a profile leaves open)
    project_dir: Path,
    profiles_dir: Path,
    profile: str | None,
    target: str | None,
    variables: Mapping[str, Any],
    value: Callable[[Any, Path], _T],
) -> _T:
    """Return `value` of dbt's configuration and the project's folder. Raises WarehouseError for a broken profile."""
    project_dir, profiles_dir = Path(project_dir).resolve(), Path(profiles_dir).resolve()
    try:
        return value(config.load_config(project_dir, profiles_dir, profile, target, variables), project_dir)
    except Exception as error:  # noqa: BLE001  # dbt has many
        raise cannot_load(error, project_dir, profiles_dir, target) from None


def cannot_load(error: Exception, project_dir: Path, profiles_dir: Path, target: str | None) -> WarehouseError:
    """Return the error for a project, profile or target that dbt cannot load, with the reason and the remedy."""
    profiles = profiles_dir / "profiles.yml"
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] == "dbt":
        return WarehouseError(
            "dbt is not installed beside dagster_sao. Install dbt-core and the adapter of your profile."
        )
    if not (project_dir / "dbt_project.yml").is_file():
        return WarehouseError(f"There is no dbt_project.yml in {project_dir}. Correct the project directory.")
    if not profiles.is_file():
        return WarehouseError(f"There is no profiles.yml in {profiles_dir}. Correct the profiles directory.")
    try:
        raw = _yaml(profiles)
    except ValueError as where:
        return WarehouseError(f"{profiles} is not valid YAML{where}. Correct it and run `dbt debug`.")
    learn(_secrets_of_profiles(raw, os.environ))
    text = reason(error)
    text = text.removeprefix("dbt encountered an error while trying to read your profiles.yml file. ")
    text = text.removeprefix("Runtime Error ").rstrip(". ")
    chosen = f" (target `{target}`)" if target else ""
    if "Could not find adapter type" in text:
        adapter = text.split("adapter type", 1)[1].strip(" !.`'\"").split()[0].strip("!.")
        return WarehouseError(
            f"The profile in {profiles}{chosen} needs the dbt adapter {adapter}, which is not installed."
            f" Run `pip install dbt-{adapter}`, or correct `type`."
        )
    return WarehouseError(
        f"The dbt profile in {profiles}{chosen} cannot be used: {text}. Correct it and run `dbt debug`."
    )


def learn_profiles(project_dir: Path, profiles_dir: Path) -> None:
    """Let `redaction` learn the secrets of all targets in a profiles.yml, and of the environment. Never fails."""
    environment = environment_of_dbt(project_dir)
    learn(secrets_in({}, environment))
    file = profiles_dir / "profiles.yml"
    try:
        stat = file.stat()
        learn(_of_file(file, (stat.st_ino, stat.st_size, stat.st_mtime_ns), tuple(sorted(environment.items()))))
    except (OSError, ValueError):
        return


@lru_cache(maxsize=16)
def _of_file(file: Path, _stamp: object, environment: tuple[tuple[str, str], ...]) -> frozenset[str]:
    try:
        return frozenset(_secrets_of_profiles(_yaml(file), dict(environment)))
    except ValueError:
        # It cannot be parsed, and the error may quote it: each line counts by itself.
        found: set[str] = set()
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            name, colon, value = line.partition(":")
            if colon:
                found.update(secrets_in({name.strip(" -\t{\"'"): value.strip(" \"',}")}, dict(environment)))
        return frozenset(found)


def _secrets_of_profiles(raw: Any, environment: Mapping[str, str]) -> Iterator[str]:
    return (secret for target in _targets(raw) for secret in secrets_in(target, environment))


def _targets(raw: Any) -> list[Any]:
    """Return the targets of all profiles, without their names: a target called `by_token` is not a secret."""
    profiles = [profile for profile in raw.values() if isinstance(profile, dict)] if isinstance(raw, dict) else []
    outputs = [profile["outputs"] for profile in profiles if isinstance(profile.get("outputs"), dict)]
    return [target for targets in outputs for target in targets.values()]


def _yaml(path: Path) -> Any:
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise ValueError(f" near line {mark.line + 1}" if mark else "") from None
