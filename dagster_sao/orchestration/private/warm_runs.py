"""Processes of runs that a code server forks from one that has imported everything, instead of starting a new Python for each.

Dagster's code server takes them from `multiprocessing` with the start method "spawn", and offers no choice.
"""

# ruff: noqa: ANN401  # what is handed on has whatever type the caller gives it

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, wraps
from importlib import import_module
from typing import Any

from dagster_sao.orchestration.private.forked_dbt import forked_dbt_commands
from dagster_sao.orchestration.private.new_python import as_new_python, path_of_new_python

_SERVER = "dagster._grpc.server"
_IMPORTED_BY_RUNS = ("dagster._cli", "dagster._grpc.impl")
_FORKED = "_dagster_sao_forked"


def fork_runs(preloaded: Sequence[str], *, is_wanted: bool) -> None:
    """From now on, let the code server of this process fork the processes of its runs, unless one of its projects does not want it.

    They are forked from a process of their own, which has imported the modules `preloaded`, those of all calls together. It has
    no threads and no definitions: each run loads these as ever. Does nothing in other processes, outside of Linux, as libraries of macOS
    do not survive a fork, and where there is no such code server, as perhaps in a later Dagster.
    https://docs.python.org/3/library/multiprocessing.html#contexts-and-start-methods
    """
    # Only a code server has it loaded, which takes a while.
    if _SERVER not in sys.modules or not sys.platform.startswith("linux"):
        return
    server = getattr(import_module(_SERVER), "DagsterApiServer", None)
    start_run = getattr(server, "StartRun", None)
    if server is None or start_run is None:
        return
    if not hasattr(start_run, _FORKED):
        server.StartRun = start_run = _forking(start_run)
    forked: _ForkedRuns = getattr(start_run, _FORKED)
    forked.preload(preloaded)
    forked.are_wanted &= is_wanted


def _forking(start_run: Callable[..., Any]) -> Callable[..., Any]:
    forked = _ForkedRuns()

    @wraps(start_run)
    def start_forked_run(self: Any, *request: Any) -> Any:
        if forked.are_wanted:
            self._mp_ctx = forked
        return start_run(self, *request)

    setattr(start_forked_run, _FORKED, forked)
    return start_forked_run


class _ForkedRuns:
    """Stands in for the code server's context of `multiprocessing`."""

    def __init__(self) -> None:
        self.are_wanted = True
        self._context: Any = multiprocessing.get_context("forkserver")
        self._preloaded = dict.fromkeys(_IMPORTED_BY_RUNS)

    def preload(self, modules: Sequence[str]) -> None:
        """Let the process that runs are forked from import modules when it starts, with the first run."""
        self._preloaded |= dict.fromkeys(modules)
        self._context.set_forkserver_preload([*self._preloaded])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def Process(self, *, target: Callable[..., Any], args: Sequence[Any]) -> Any:  # noqa: N802 (as `multiprocessing` has it)
        """Return a process that will have the environment variables of this moment, as a new Python has."""
        return self._context.Process(target=_run_with, args=(dict(os.environ), self._path_of_new_python, target, args))

    @cached_property
    def _path_of_new_python(self) -> Sequence[str]:
        return path_of_new_python()


def _run_with(
    environment: Mapping[str, str], python_path: Sequence[str], target: Callable[..., Any], args: Sequence[Any]
) -> None:
    with as_new_python(environment), forked_dbt_commands(python_path):
        target(*args)
