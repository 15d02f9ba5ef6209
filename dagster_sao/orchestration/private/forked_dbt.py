"""dbt commands of a run that are forked from a process with dbt imported, instead of starting a new Python for each.

dagster-dbt starts dbt with `subprocess.Popen`, and offers no choice.
"""

from __future__ import annotations

import multiprocessing
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from multiprocessing.reduction import recv_handle, send_handle
from pathlib import Path
from typing import Any, NamedTuple

from dagster_sao.orchestration.private.dbt_commands import commands_started_by
from dagster_sao.orchestration.private.new_python import as_new_python
from dagster_sao.warehouse.dbt_private.command_line import run_as_script
from dagster_sao.warehouse.dbt_private.environment import environment_of_file, is_imported_dbt

_READ_AT_START = ("PYTHON", "LD_")
"""How the names of variables begin that Python and the system's loader read when a program starts, and never again."""
_OF_DAGSTER_DBT = frozenset({"PYTHONLEGACYWINDOWSSTDIO", "PYTHONUNBUFFERED"})
_NOBODY_KNOWS = 1
"""The exit code of a dbt whose starter was killed before it."""


class _Command(NamedTuple):
    """What a new Python would be started with."""

    args: list[str]
    env: dict[str, str]
    cwd: Path


@contextmanager
def forked_dbt_commands(python_path: Sequence[str]) -> Iterator[None]:
    """Fork the commands of this environment's dbt that dagster-dbt starts in this process. Other commands are started as ever.

    So is a dbt that the run gives another `PYTHONPATH`, or another variable of that kind.

    Call it before this process has any thread. dbt looks for modules in `python_path`: with the folder of the code server's files, it
    would take each of them that begins with `dbt_` for a plugin. At the end, dbt commands that are still at work are waited for. Without
    `pidfd_open` (Linux 5.3) nothing changes.
    """
    starter = _Starter.begin(python_path)
    if starter is None:
        yield
        return
    try:
        with commands_started_by(starter.popen):
            yield
    finally:
        starter.end()


class ForkedDbt:
    """A dbt command that was forked. It has what is used of `subprocess.Popen`."""

    def __init__(self, args: Sequence[str], pid: int, stdout: int, exit_code: int) -> None:
        """Take the pipes to read the output and, once dbt has ended, the exit code from."""
        self.args = args
        self.pid = pid
        self.stdout = open(stdout, "rb")  # noqa: SIM115 (who reads it closes it)
        self.returncode: int | None = None
        self._exit_code = open(exit_code, "rb")  # noqa: SIM115
        self._reading = threading.Lock()
        self._process: int | None = None
        # When it has ended already, its exit code is on the way.
        with suppress(ProcessLookupError):
            self._process = os.pidfd_open(pid)
            weakref.finalize(self, os.close, self._process)

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while dbt is at work."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code once dbt has ended. `timeout` is in seconds. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            ended = self._exit_code if self._process is None else self._process
            if not select.select([ended], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            with self._reading:
                if self.returncode is None:
                    self.returncode = int(self._exit_code.read() or _NOBODY_KNOWS)
                    self._exit_code.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless dbt has ended."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._process, number)

    def terminate(self) -> None:
        """End dbt with SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End dbt with SIGKILL."""
        self.send_signal(signal.SIGKILL)


class _Starter:
    """The process that dbt commands are forked from. It has no threads, and nothing of the run."""

    def __init__(self, process: ForkProcess, requests: Connection) -> None:
        self._process = process
        self._requests = requests
        self._start_variables = _start_variables(os.environ)
        self._asking = threading.Lock()

    @classmethod
    def begin(cls, python_path: Sequence[str]) -> _Starter | None:
        """Fork it from this process; None where the system cannot wait for a process that is not a child."""
        try:
            os.close(os.pidfd_open(os.getpid()))
        except (AttributeError, OSError):
            return None
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, ours, python_path))
        process.start()
        theirs.close()
        return cls(process, ours)

    def popen(self, args: Sequence[str], *, env: Mapping[str, str], cwd: Path, **pipes: Any) -> Any:  # noqa: ANN401 (see `ForkedDbt`)
        """Start a command as dagster-dbt does. Raises OSError."""
        script = shutil.which(args[0])
        is_other_python = _start_variables(env) != self._start_variables
        if script is None or is_other_python or not is_imported_dbt(script):
            return subprocess.Popen(args, env=env, cwd=cwd, **pipes)
        return ForkedDbt(args, *self._start(_Command([script, *args[1:]], dict(env), cwd)))

    def _start(self, command: _Command) -> tuple[int, int, int]:
        """Return the process id of a dbt, and the pipes of its output and its exit code."""
        stdout, to_stdout = os.pipe()
        exit_code, to_exit_code = os.pipe()
        try:
            with self._asking:
                self._requests.send(command)
                for end in (to_stdout, to_exit_code):
                    send_handle(self._requests, end, self._process.pid)
                pid = self._requests.recv()
        except (OSError, EOFError) as error:
            os.close(stdout)
            os.close(exit_code)
            msg = "the process that dbt is forked from has ended"
            raise OSError(msg) from error
        finally:
            os.close(to_stdout)
            os.close(to_exit_code)
        return pid, stdout, exit_code

    def end(self) -> None:
        """End it, once the commands have ended that it started."""
        self._requests.close()
        self._process.join()


def _start_variables(environ: Mapping[str, str]) -> Mapping[str, str]:
    return {name: environ[name] for name in environ.keys() - _OF_DAGSTER_DBT if name.startswith(_READ_AT_START)}


def _serve(requests: Connection, other_end: Connection, python_path: Sequence[str]) -> None:
    """Start one dbt for each request, and report its exit code, until the run has ended."""
    other_end.close()
    sys.path[:] = python_path
    # From a terminal, it reaches all processes of a run: dbt ends by itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    at_work: dict[int, tuple[ForkProcess, int]] = {}
    while True:
        for ready in wait([requests, *at_work]):
            if isinstance(ready, int):
                process, exit_code = at_work.pop(ready)
                process.join()
                with suppress(OSError):  # the run has ended
                    os.write(exit_code, str(process.exitcode).encode())
                os.close(exit_code)
                continue
            try:
                command = requests.recv()
            except EOFError:
                return
            stdout, exit_code = recv_handle(requests), recv_handle(requests)
            to_close = [requests.fileno(), exit_code, *(other for _, other in at_work.values())]
            process = multiprocessing.get_context("fork").Process(target=_run_dbt, args=(command, stdout, to_close))
            process.start()
            os.close(stdout)
            at_work[process.sentinel] = process, exit_code
            requests.send(process.pid)


def _run_dbt(command: _Command, stdout: int, to_close: Sequence[int]) -> None:
    """Run dbt with its output and errors in one pipe, as dagster-dbt has it."""
    for end in to_close:
        os.close(end)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(stdout, stream.fileno())
    os.close(stdout)
    # dagster-dbt asks Python for it (`PYTHONUNBUFFERED`), so that what a macro prints stands in its place among dbt's messages.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.chdir(command.cwd)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Dagster lets it do what an interrupt does, which nothing does to a service that was started in the background.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with suppress(OSError):
        Path("/proc/self/comm").write_text("dbt")  # what `ps` and `top` show
    with as_new_python(command.env):
        # dbt reads the `.env` of the current folder when it is imported, which it was elsewhere.
        for name, value in environment_of_file(command.cwd).items():
            os.environ.setdefault(name, value)
        run_as_script(command.args)
