"""What is asked of a build or a dry run: one value for both, so that they accept exactly the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from dagster_sao.api.errors import ConflictingOptionsError
from dagster_sao.orchestration.project.orchestrated import OrchestratedProject
from dagster_sao.orchestration.project.selection import NodeSelection, StateMode
from dagster_sao.orchestration.runs.config import StateAwareRunConfig, TestStrategy

Names = str | Iterable[str]
"""One selection in dbt's syntax, or several that are joined as dbt joins them."""

_E = TypeVar("_E", bound=Enum)


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """What to build, and how."""

    selection: NodeSelection = field(default_factory=NodeSelection)
    state_aware: bool = True
    force: tuple[str, ...] = ()
    full_refresh: bool = False
    refresh_sources: bool = True
    test_strategy: TestStrategy = TestStrategy.IMMEDIATE
    retries: int = 0
    retry_delay_seconds: float = 30.0
    fail_fast: bool = False
    threads: int | None = None
    defer: bool = False
    favor_state: bool = False

    def run_config(self, project: OrchestratedProject, variables: Mapping[str, Any]) -> StateAwareRunConfig:
        """Return the config of a run of the project. What is selected is not part of it: a run is given its assets."""
        state = self.selection.state
        return StateAwareRunConfig(
            state_aware=self.state_aware,
            full_refresh=self.full_refresh,
            force=list(self.force),
            refresh_sources=self.refresh_sources,
            test_strategy=self.test_strategy,
            retries=self.retries,
            retry_delay_seconds=self.retry_delay_seconds,
            fail_fast=self.fail_fast,
            threads=self.threads,
            target=project.dbt_project.target if project.environment else None,
            vars=dict(variables),
            state=str(project.dbt_project.project_dir / state) if state else None,
            defer=self.defer,
            favor_state=self.favor_state,
        )


def make_request(  # noqa: PLR0913 (what a build can be told)
    *,
    select: Names = (),
    exclude: Names = (),
    selector: str = "",
    state_aware: bool = True,
    force: Names = (),
    full_refresh: bool = False,
    refresh_sources: bool = True,
    test_strategy: TestStrategy | str = TestStrategy.IMMEDIATE,
    retries: int = 0,
    retry_delay_seconds: float = 30.0,
    fail_fast: bool = False,
    threads: int | None = None,
    state: Path | str | None = None,
    state_mode: StateMode | str = StateMode.DBT,
    defer: bool = False,
    favor_state: bool = False,
) -> BuildRequest:
    """Return the request that these options mean.

    Raises ConflictingOptionsError for options that exclude each other.
    """
    selection = make_selection(select=select, exclude=exclude, selector=selector, state=state, state_mode=state_mode)
    if defer and not state:
        msg = "`defer` needs `state`: the folder with the manifest of the environment to defer to."
        raise ConflictingOptionsError(msg)
    if favor_state and not defer:
        msg = "`favor_state` has a meaning only with `defer`."
        raise ConflictingOptionsError(msg)
    if retries < 0 or retry_delay_seconds < 0:
        msg = "`retries` and `retry_delay_seconds` cannot be negative."
        raise ConflictingOptionsError(msg)
    if threads is not None and threads < 1:
        msg = f"`threads` is {threads}, and dbt needs at least one."
        raise ConflictingOptionsError(msg)
    return BuildRequest(
        selection=selection,
        state_aware=state_aware,
        force=tuple(_words(force)),
        full_refresh=full_refresh,
        refresh_sources=refresh_sources,
        test_strategy=_choice(TestStrategy, "test_strategy", test_strategy),
        retries=retries,
        retry_delay_seconds=retry_delay_seconds,
        fail_fast=fail_fast,
        threads=threads,
        defer=defer,
        favor_state=favor_state,
    )


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
    chosen, left_out = " ".join(_words(select)), " ".join(_words(exclude))
    if selector and (chosen or left_out):
        msg = "`selector` takes the place of `select` and `exclude`: give either it or them."
        raise ConflictingOptionsError(msg)
    mode = _choice(StateMode, "state_mode", state_mode)
    if mode is not StateMode.DBT and not state:
        msg = f"`state_mode` {mode.value} needs `state`: the folder with the manifest to compare with."
        raise ConflictingOptionsError(msg)
    return NodeSelection(chosen, left_out, selector, Path(state) if state else None, mode)


def _words(names: Names) -> list[str]:
    # A comma binds tighter than a space in dbt's syntax, so several are joined by spaces: any of them.
    given = [names] if isinstance(names, str) else list(names)
    return [word for name in given for word in name.split()]


def _choice(choices: type[_E], name: str, value: object) -> _E:
    try:
        return choices(value)
    except ValueError:
        allowed = ", ".join(choice.value for choice in choices)
        msg = f"`{name}` is one of {allowed}, not {value!r}."
        raise ConflictingOptionsError(msg) from None
