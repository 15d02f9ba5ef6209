"""How dagster-dbt starts a command of dbt, in which it leaves little choice. The same test names what is private."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any

from dagster._utils.interrupts import capture_interrupts, pop_captured_interrupt
from dagster_dbt import DbtCliResource
from dagster_dbt.compat import DBT_PYTHON_VERSION
from dagster_dbt.core import dbt_cli_invocation
from dagster_dbt.core import resource as dbt_resource
from dagster_dbt.core.dbt_cli_invocation import DbtCliInvocation

__all__ = [
    "DbtCliInvocation",
    "commands_started_by",
    "current_folder_kept",
    "interrupts_afterwards",
    "lean_resource",
    "mask_stdout",
]

_START = ("cli", "_cli_version", "_initialize_dbt_core_adapter")
"""What dagster-dbt's resource does to start a command."""
_KEEPS_FOLDER: ContextVar[bool] = ContextVar("_KEEPS_FOLDER", default=False)
_CHANGE_FOLDER: Callable[[str], AbstractContextManager[str]] = vars(dbt_resource)["pushd"]


def lean_resource(dbt: DbtCliResource, *, is_imported: bool, needs_adapter: bool) -> DbtCliResource:
    """Return a resource whose commands start without unneeded work.

    dagster-dbt runs `dbt --version` before the first command of each run, which takes seconds and asks PyPI for newer
    releases, and opens an adapter that only `fetch_row_counts` and `fetch_column_metadata` use. `is_imported` tells that the
    executable is the dbt of this Python environment, so that its version is known. A resource that starts commands in its own
    way stays as it is.
    """
    if any(getattr(type(dbt), name) is not getattr(DbtCliResource, name) for name in _START):
        return dbt
    lean = dbt.model_copy()
    if is_imported and DBT_PYTHON_VERSION is not None:
        vars(lean)["_cli_version"] = DBT_PYTHON_VERSION
    if not needs_adapter:
        vars(lean)["_initialize_dbt_core_adapter"] = lambda _args: None
    return lean


def mask_stdout(invocation: DbtCliInvocation, masked: Callable[[Callable[[], Iterator[Any]]], Any]) -> None:
    """Pass the output of dbt through `masked` before dagster-dbt copies it to the logs of the run."""
    invocation._stream_stdout = masked(invocation._stream_stdout)  # type: ignore[method-assign]


@contextmanager
def commands_started_by(popen: Callable[..., Any]) -> Iterator[None]:
    """Let dagster-dbt start its commands with `popen`, which is called as `subprocess.Popen` is, in all threads."""
    before = vars(dbt_cli_invocation)["subprocess"]
    vars(dbt_cli_invocation)["subprocess"] = SimpleNamespace(**{**vars(before), "Popen": popen})
    try:
        yield
    finally:
        vars(dbt_cli_invocation)["subprocess"] = before


@contextmanager
def current_folder_kept() -> Iterator[None]:
    """Let dagster-dbt start commands in this thread without a change of the current folder, which all threads of the process share.

    dagster-dbt changes it to the project's while it starts a command, for seconds. A run that a code server launches meanwhile does not
    find its definitions, and two projects that are parsed at once may leave the process in the folder of one of them. The command needs
    none of this: it is given its folder. For other threads, nothing changes.
    """
    vars(dbt_resource)["pushd"] = _change_folder
    token = _KEEPS_FOLDER.set(True)
    try:
        yield
    finally:
        _KEEPS_FOLDER.reset(token)


def _change_folder(folder: str) -> AbstractContextManager[str]:
    return nullcontext(folder) if _KEEPS_FOLDER.get() else _CHANGE_FOLDER(folder)


@contextmanager
def interrupts_afterwards() -> Iterator[None]:
    """Let an interrupt of the run wait for the end of the block, so that no process is started which nobody knows."""
    interrupted = False
    try:
        with capture_interrupts():
            try:
                yield
            finally:
                interrupted = pop_captured_interrupt()
    finally:
        if interrupted:
            signal.raise_signal(signal.SIGINT)
