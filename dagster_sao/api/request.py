"""The request for a build or a dry run: one value for both, so that they accept exactly the same."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

from pydantic import ValidationError

from dagster_sao.api.errors import ConflictingOptionsError
from dagster_sao.core.manifest.policy import EfficientTesting
from dagster_sao.orchestration.arguments import check_types
from dagster_sao.orchestration.project.orchestrated import OrchestratedProject
from dagster_sao.orchestration.runs.config import RUN_OPTIONS, StateAwareRunConfig, TestStrategy, problem_of
from dagster_sao.orchestration.selection.resolve import NodeSelection, StateMode

if TYPE_CHECKING:
    from typing_extensions import Unpack

Names = str | Iterable[str]
"""One selection in dbt's syntax, or several that are joined as dbt joins them."""

_SELECTION = {"selector": str, "state": Path | str | None}

_E = TypeVar("_E", bound=Enum)
_M = TypeVar("_M", bound=Callable[..., Any])


class BuildOptions(TypedDict, total=False):
    """The options of a run as Python takes them, for type checkers. `RunOptions` has their defaults and descriptions."""

    state_aware: bool
    full_refresh: bool
    force: Names
    refresh_sources: bool
    test_strategy: TestStrategy | str
    efficient_testing: EfficientTesting | str | None
    retries: int
    retry_delay_seconds: float
    fail_fast: bool
    observe_reused: bool
    threads: int | None
    state: Path | str | None
    defer: bool
    favor_state: bool


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """What to build, and how."""

    selection: NodeSelection = field(default_factory=NodeSelection)
    options: StateAwareRunConfig = field(default_factory=lambda: StateAwareRunConfig(state_aware=True))
    """The config of its run, before the project adds its target and variables."""

    def run_config(self, project: OrchestratedProject, variables: Mapping[str, Any]) -> StateAwareRunConfig:
        """Return the config of a run of the project. The selection is not part of it: a run gets its assets."""
        state = self.selection.state
        own = {
            "target": project.dbt_project.target if project.environment else None,
            "vars": dict(variables),
            "state": str(project.dbt_project.project_dir / state) if state else None,
        }
        return self.options.model_copy(update=own)


def make_request(
    select: Names = (),
    exclude: Names = (),
    selector: str = "",
    *,
    state_mode: StateMode | str = StateMode.DBT,
    **options: Unpack[BuildOptions],
) -> BuildRequest:
    """Return the request that these options mean.

    Raises ConflictingOptionsError for options that exclude each other or a value that an option does not take.
    """
    given: dict[str, Any] = {"state_aware": True, **options}
    if unknown := sorted(given.keys() - BuildOptions.__annotations__.keys()):
        msg = f"A build has no option `{unknown[0]}`."
        raise TypeError(msg)
    state = given.pop("state", None)
    selection = make_selection(select=select, exclude=exclude, selector=selector, state=state, state_mode=state_mode)
    for option in RUN_OPTIONS.values():
        if given.get(option.name) and option.needs and not {**given, "state": state}.get(option.needs):
            needed = RUN_OPTIONS[option.needs].description
            msg = f"`{option.name}` needs `{option.needs}`: {needed[0].lower()}{needed[1:]}"
            raise ConflictingOptionsError(msg)
    if "force" in given:
        given["force"] = _words("force", given["force"])
    for name, option in RUN_OPTIONS.items():
        if option.choices is not None and given.get(name, option.default) != option.default:
            given[name] = _choice(option.choices, name, given[name])
    try:
        return BuildRequest(selection, StateAwareRunConfig(**given))
    except ValidationError as error:
        raise ConflictingOptionsError(problem_of(error)) from None


def with_build_options(method: _M) -> _M:
    """Show the options of a build in a method's signature and docstring, as `help()` and notebooks do.

    They take the place of `**options`. Returns the method itself.
    """
    signature = inspect.signature(method)
    parameters = [one for one in signature.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
    own = {one.name for one in parameters}
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=_default_of(name), annotation=annotation)
        for name, annotation in BuildOptions.__annotations__.items()
        if name not in own
    ]
    last = [one for one in parameters if one.name == "raise_on_failure"]
    first = [one for one in parameters if one not in last]
    method.__signature__ = signature.replace(parameters=[*first, *added, *last])  # type: ignore[attr-defined]
    lines = "\n".join(f"            {name}: {RUN_OPTIONS[name].description}" for name in BuildOptions.__annotations__)
    method.__doc__ = re.sub(r"(?m)^ *\*\*options: .*$", lambda _: lines, method.__doc__ or "")
    return method


def _default_of(name: str) -> object:
    default = RUN_OPTIONS[name].default
    return tuple(default) if isinstance(default, list) else default


def make_selection(
    *,
    select: Names = (),
    exclude: Names = (),
    selector: str = "",
    state: Path | str | None = None,
    state_mode: StateMode | str = StateMode.DBT,
) -> NodeSelection:
    """Return the selection that these options mean.

    Raises ConflictingOptionsError for options that exclude each other.
    """
    check_types(_SELECTION, {"selector": selector, "state": state}, ConflictingOptionsError)
    chosen, left_out = " ".join(_words("select", select)), " ".join(_words("exclude", exclude))
    if selector and (chosen or left_out):
        msg = "`selector` takes the place of `select` and `exclude`: give either it or them."
        raise ConflictingOptionsError(msg)
    mode = _choice(StateMode, "state_mode", state_mode)
    if mode is not StateMode.DBT and not state:
        msg = f"`state_mode` {mode.value} needs `state`: the folder with the manifest to compare with."
        raise ConflictingOptionsError(msg)
    return NodeSelection(chosen, left_out, selector, Path(state) if state else None, mode)


def _words(option: str, names: Names) -> list[str]:
    # A comma binds tighter than a space in dbt's syntax, so several are joined by spaces: any of them.
    given = [names] if isinstance(names, str) or not isinstance(names, Iterable) else list(names)
    check_types({option: str}, ((option, name) for name in given), ConflictingOptionsError)
    return [word for name in given for word in name.split()]


def _choice(choices: type[_E], name: str, value: object) -> _E:
    try:
        return choices(value)
    except ValueError:
        allowed = ", ".join(choice.value for choice in choices)
        msg = f"`{name}` is one of {allowed}, not {value!r}."
        raise ConflictingOptionsError(msg) from None
