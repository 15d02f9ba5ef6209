"""The variables, target and profile that dbt gets, wherever they are set, so that the plan, the parse and the run agree.

A value may be set in `variables`, in the arguments of dbt (as text or as a mapping), in the DbtProject, in the resource that
runs dbt, and, for target and profile, in the environment. One function reads each place, and one puts them together.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

import yaml
from dagster_dbt import DbtCliResource, DbtProject

from dagster_sao.core.code.variables import as_json
from dagster_sao.core.code.versions import digest
from dagster_sao.core.dbt_settings import setting
from dagster_sao.core.errors import InvalidProjectError
from dagster_sao.core.manifest.inert_settings import OF_ANSWERS
from dagster_sao.orchestration.messages import sentence
from dagster_sao.orchestration.private.dagster_internals import prepare_arguments
from dagster_sao.warehouse.dbt_private.environment import environment_of_dbt
from dagster_sao.warehouse.profiles import default_target

_OPTIONS = {"--vars": "--vars", "--target": "--target", "-t": "--target", "--profile": "--profile"}
_SHORT = {
    "d": "--debug", "f": "--full-refresh", "m": "--models", "q": "--quiet", "r": "--record-timing-info", "s": "--select", "t": "--target",
    "x": "--fail-fast",
}  # fmt: skip
_SHORT_WITH_VALUE = frozenset({"m", "r", "s", "t"})
_BUILDING = ("build", "run", "seed", "snapshot")
_OF_BUILDS = frozenset(
    {
        "--empty", "--export-saved-queries", "--full-refresh", "--include-saved-query", "--no-empty", "--no-export-saved-queries",
        "--no-include-saved-query", "--show",
    }
)  # fmt: skip
_OF_BUILDS_WITH_VALUE = frozenset({"--event-time-end", "--event-time-start", "--sample"})
_OWN_FOLDER = "dagster_sao"
_SELECTIONS = (
    "--select", "-s", "--models", "--model", "-m", "--exclude", "--selector", "--resource-type", "--resource-types",
    "--exclude-resource-type", "--exclude-resource-types",
)  # fmt: skip
_DEFERRING = ("--defer", "--defer-state", "--favor-state")
_PLACES = ("--profiles-dir", "--project-dir", "--target-path")
_HIDING = frozenset({"--quiet", "-q", "--no-write-json", "--no-quiet", "--write-json"})
_HIDING_WITH_VALUE = frozenset({"--indirect-selection", "--log-level", "--log-format"})


@dataclass(frozen=True, slots=True)
class DbtSettings:
    """Variables, target and profile, as one place has them."""

    variables: Mapping[str, Any] = field(default_factory=dict)
    target: str | None = None
    profile: str | None = None


def read_arguments(arguments: Iterable[str | Mapping[str, Any]], where: str) -> DbtSettings:
    """Return what the arguments of a dbt command set. `where` names them in errors.

    Raises InvalidProjectError for variables that are not a mapping, or that have two values.
    """
    variables: dict[str, Any] = {}
    others: dict[str, str] = {}
    for option, value in _options(arguments):
        if option != "--vars":
            others[option] = str(value)
            continue
        for name, one in read_variables(value, f"`--vars` in `{where}`").items():
            if name in variables and variables[name] != one:
                _raise_two_values(f"The variable `{name}`", f"`{where}`")
            variables[name] = one
    return DbtSettings(variables, others.get("--target"), others.get("--profile"))


def read_variables(value: Any, option: str) -> Mapping[str, Any]:  # noqa: ANN401 (text or a mapping)
    """Return the variables that a `--vars` gives. `option` names it in errors.

    Raises InvalidProjectError when it is not a mapping.
    """
    if isinstance(value, Mapping):
        return value
    try:
        found = yaml.safe_load(str(value))
    except yaml.YAMLError as error:
        msg = f"{option} is not YAML: {sentence(error)}"
        raise InvalidProjectError(msg) from None
    if not isinstance(found, dict):
        msg = f"{option} is not a mapping. Write it as '{{name: value}}'."
        raise InvalidProjectError(msg)
    return found


def flags_in(arguments: Iterable[str | Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the flags of a project that the arguments of a dbt command set, of those that change the answers of tests.

    >>> flags_in(["build", "--warn-error", {"--warn-error-options": "{error: all}"}])
    {'warn_error': True, 'warn_error_options': '{error: all}'}
    """
    words = [word for one in arguments for word in (_words(one) if isinstance(one, Mapping) else [one])]
    found: dict[str, Any] = {}
    for word, following in zip(words, [*words[1:], None], strict=True):
        option, _, value = str(word).partition("=")
        name = option.removeprefix("--").replace("-", "_")
        if option.startswith("--") and name in OF_ANSWERS:
            found[name] = value or following if name.endswith("options") else True
    return found


def in_standard_form(arguments: Iterable[str | Mapping[str, Any]], where: str) -> list[Any]:
    """Return the words of a dbt command that builds, with the command first and long names for short ones. `where` names it in errors.

    A word that only a run can fill in may be the command. Raises InvalidProjectError when the command is another one.

    >>> in_standard_form(["--debug", "build", "-xft", "prod", {"--vars": "{a: 1}"}], "dbt_args")
    ['build', '--debug', '--fail-fast', '--full-refresh', '--target', 'prod', '--vars', '{a: 1}']
    """
    found: list[Any] = []
    command: str | None = None
    for option, words in _split(_with_long_names(arguments)):
        if command is None and not option and words[0] in _BUILDING:
            command = words[0]
        else:
            found += words
    if command is not None:
        return [command, *found]
    if any("{{" in str(word) for word in found):
        return found
    msg = f"`{where}` has no dbt command that builds: begin it with `build`, or with `run`, `seed` or `snapshot`."
    raise InvalidProjectError(msg)


def _with_long_names(arguments: Iterable[Any]) -> Iterator[Any]:
    for _, words in _split(arguments):
        yield from [*_long_names(words[0]), *words[1:]]


def _long_names(word: Any) -> list[Any]:  # noqa: ANN401 (text, or what somebody gave instead)
    """Return a word with the long names of the options in it: `-ft` and `-tprod` are two words each."""
    if not isinstance(word, str) or word[:1] != "-" or word[1:2] not in _SHORT:
        return [word]
    found: list[str] = []
    for index, letter in enumerate(word[1:], start=2):
        if letter not in _SHORT:
            return [word]
        found.append(_SHORT[letter])
        if letter in _SHORT_WITH_VALUE:
            return [*found, *([word[index:]] if word[index:] else [])]
    return found


def for_tests(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of `dbt build` without its command, and without those that `dbt test` refuses."""
    return _without(arguments[1:], _OF_BUILDS, _OF_BUILDS_WITH_VALUE)


def check_arguments(arguments: Iterable[str | Mapping[str, Any]], where: str) -> None:
    """Raise InvalidProjectError when the arguments of a dbt command choose nodes, or where these or dbt's files are read from.

    Each run chooses by itself, and records it. Whoever makes its plan reads the same files.
    """
    given = {str(word).split("=", 1)[0] for one in arguments for word in (one if isinstance(one, Mapping) else [one])}
    if found := [option for option in _SELECTIONS if option in given]:
        msg = (
            f"`{where}` has {', '.join(found)}, but each run makes its own selection. Put the selection in the definitions"
            " or in a job."
        )
        raise InvalidProjectError(msg)
    if found := [option for option in _DEFERRING if option in given]:
        msg = (
            f"`{where}` has {', '.join(found)}, but each run has to know what it reads from another environment. Set `defer`,"
            " `favor_state` and `state` of a job or a run."
        )
        raise InvalidProjectError(msg)
    if found := [option for option in _PLACES if option in given]:
        msg = (
            f"`{where}` has {', '.join(found)}, but the sensors and the plan have to read the same files as dbt. Set"
            " `project_dir`, `profiles_dir` and `target_path` of the DbtProject."
        )
        raise InvalidProjectError(msg)


def check_places(dbt: DbtCliResource | None, project: DbtProject) -> None:
    """Raise InvalidProjectError when the resource that runs dbt reads another project or profile than the project has."""
    for name in ("project_dir", "profiles_dir") if dbt is not None else ():
        given, own = getattr(dbt, name), getattr(project, name)
        if given is not None and Path(given).resolve() != Path(own).resolve():
            msg = (
                f"The DbtCliResource has the `{name}` {given}, and the DbtProject {own}, which the sensors and the plan read."
                f" Give it to the DbtProject, and make the resource from that: `DbtCliResource(project)`."
            )
            raise InvalidProjectError(msg)


def command_of(dbt: DbtCliResource | None, arguments: Sequence[Any]) -> list[Any]:
    """Return the words of a dbt command with those that the resource puts before all of its commands."""
    return [*(dbt.global_config_flags if dbt is not None else ()), *arguments]


def without_hiding(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of a dbt command without those that keep its results from a run, or let it run more tests."""
    return _without(arguments, _HIDING, _HIDING_WITH_VALUE)


def _without(arguments: Sequence[str], options: AbstractSet[str], with_value: AbstractSet[str]) -> list[str]:
    found: list[str] = []
    is_value = False
    for word in arguments:
        name = word.split("=", 1)[0]
        if not is_value and name not in options | with_value:
            found.append(word)
        is_value = not is_value and name in with_value and "=" not in word
    return found


def without_settings(arguments: Sequence[str], *options: str) -> list[str]:
    """Return the arguments of a dbt command without some of `--vars`, `--target` and `--profile`."""
    return [word for option, words in _split(arguments) if option not in options for word in words]


def together(places: Iterable[tuple[str, DbtSettings]]) -> DbtSettings:
    """Return the settings of several places together, each place with its name for errors.

    Raises InvalidProjectError for a variable, target or profile with two values.
    """
    found: dict[tuple[str, str], tuple[Any, str]] = {}
    for where, settings in places:
        named = {("The variable", f"`{name}`"): value for name, value in settings.variables.items()}
        named |= {("The", name): value for name in ("target", "profile") if (value := getattr(settings, name))}
        for key, value in named.items():
            if key in found and found[key][0] != value:
                _raise_two_values(" ".join(key), f"{found[key][1]} and in {where}")
            found.setdefault(key, (value, where))
    return DbtSettings(
        {name.strip("`"): value for (kind, name), (value, _) in found.items() if kind == "The variable"},
        found.get(("The", "target"), (None, ""))[0],
        found.get(("The", "profile"), (None, ""))[0],
    )


def settings_of(dbt: DbtProject | DbtCliResource | None) -> DbtSettings:
    """Return the target and profile that a project or resource names, and the variables that a project is parsed with."""
    if dbt is None:
        return DbtSettings()
    if isinstance(dbt, DbtProject):
        return together(
            [
                ("the DbtProject", DbtSettings(target=dbt.target, profile=dbt.profile)),
                ("its `prepare_project_cli_args`", read_arguments(prepare_arguments(dbt), "prepare_project_cli_args")),
            ]
        )
    return DbtSettings(target=dbt.target or None, profile=dbt.profile or None)


def project_with(dbt_project: DbtProject, settings: DbtSettings) -> DbtProject:
    """Return the project with these settings, also for its parse: the project itself where it has them already.

    The manifest of another target, profile or other variables is kept apart from the project's usual one.
    """
    own = settings_of(dbt_project)
    target, profile = settings.target or own.target, settings.profile or own.profile
    if DbtSettings(settings.variables, target, profile) == own:
        return dbt_project
    base = dbt_project.target_path.parents[1] if has_own_manifest(dbt_project) else dbt_project.target_path
    key = digest([profile or "", target or "", json.dumps(as_json(settings.variables))])
    arguments = without_settings(prepare_arguments(dbt_project), "--vars", "--target", "--profile")
    if settings.variables:
        arguments += vars_arguments(settings.variables)
    return DbtProject(
        dbt_project.project_dir,
        target_path=base / _OWN_FOLDER / key,
        profiles_dir=dbt_project.profiles_dir,
        profile=profile,
        target=target,
        state_path=dbt_project.state_path,
        prepare_project_cli_args=arguments,
    )


def has_own_manifest(dbt_project: DbtProject) -> bool:
    """Return whether the project's manifest is kept apart, where nobody else writes it."""
    return dbt_project.target_path.parent.name == _OWN_FOLDER


def with_environment(dbt_project: DbtProject, settings: DbtSettings) -> tuple[DbtSettings, str]:
    """Return settings with the target and profile of the environment where they name none, as dbt takes them.

    Also returns the name of the environment with their state: empty for the project's own. Raises WarehouseError when the
    project's profile cannot be read.
    """
    environ = environment_of_dbt(dbt_project.project_dir)
    target = None if settings.target else setting("TARGET", environ)
    profile = None if settings.profile else setting("PROFILE", environ)
    return with_other(dbt_project, settings, target=target, profile=profile)


def with_other(
    dbt_project: DbtProject, settings: DbtSettings, *, target: str | None, profile: str | None
) -> tuple[DbtSettings, str]:
    """Return settings with another target or profile, and the name of the environment whose state that is.

    What the project has by default is not another: those settings stay as they are. Raises WarehouseError when the
    project's profile cannot be read.
    """
    if profile is not None and profile in {settings.profile, _named_profile(dbt_project)}:
        profile = None
    used = profile or settings.profile
    if target is not None:
        default = settings.target if profile is None else None
        is_default = target == (default or default_target(dbt_project.project_dir, dbt_project.profiles_dir, used))
        target = None if is_default else target
    found = DbtSettings(settings.variables, target or settings.target, used)
    return found, ".".join(name for name in (profile, target) if name)


def vars_arguments(variables: Mapping[str, Any]) -> list[str]:
    """Return the arguments that give dbt variables."""
    return ["--vars", _as_yaml(variables)] if variables else []


def _as_yaml(variables: Mapping[str, Any]) -> str:
    """Return variables on one line: as JSON if that keeps them as they are, which numbers as keys and dates are not."""
    try:
        text = json.dumps(dict(variables))
        if json.loads(text) == variables:
            return text
    except (TypeError, ValueError):
        pass
    return str(yaml.safe_dump(dict(variables), default_flow_style=True, width=inf, sort_keys=False)).strip()


def _named_profile(dbt_project: DbtProject) -> str:
    try:
        content = yaml.safe_load((dbt_project.project_dir / "dbt_project.yml").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return ""
    return str(content.get("profile") or "") if isinstance(content, dict) else ""


def _options(arguments: Iterable[str | Mapping[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Yield `--vars`, `--target` and `--profile` among arguments of dbt, each with its value."""
    for option, words in _split(arguments):
        if option and len(words) > 1:
            yield option, words[1]
        elif option and isinstance(words[0], str) and "=" in words[0]:
            yield option, words[0].split("=", 1)[1]


def _split(arguments: Iterable[Any]) -> Iterator[tuple[str, list[Any]]]:
    """Yield the words of a command; with the name of `--vars`, `--target` or `--profile` for words that belong to it."""
    words = [word for one in arguments for word in (_words(one) if isinstance(one, Mapping) else [one])]
    index = 0
    while index < len(words):
        word = words[index]
        name = word.split("=", 1)[0] if isinstance(word, str) else ""
        option = _OPTIONS.get(name, "")
        count = 2 if option and name == word and index + 1 < len(words) else 1
        yield option, words[index : index + count]
        index += count


def _words(argument: Mapping[str, Any]) -> Iterator[Any]:
    for name, value in argument.items():
        yield name
        yield value


def _raise_two_values(what: str, places: str) -> None:
    # The values themselves may be secrets.
    msg = f"{what} has two different values, in {places}. Give it once."
    raise InvalidProjectError(msg)
