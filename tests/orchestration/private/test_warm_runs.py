"""What `warm_runs` relies on in Dagster's code server: an upgrade that moves it fails here first."""

from __future__ import annotations

import atexit
import inspect
import os
import sys

import pytest
from dagster._grpc.server import DagsterApiServer

from dagster_sao.orchestration.private import warm_runs


def test_the_code_server_takes_the_processes_of_runs_from_its_context():
    assert 'self._mp_ctx = multiprocessing.get_context("spawn")' in inspect.getsource(DagsterApiServer.__init__)
    start_run = inspect.getsource(DagsterApiServer.StartRun)
    used = {"Queue()", "Event()", "Process(\n            target=start_run_in_subprocess,\n            args=["}
    assert all(f"self._mp_ctx.{name}" in start_run for name in used)
    assert start_run.count("_mp_ctx") == len(used)


@pytest.fixture
def server(monkeypatch):
    """The class of the code server, with its own way to start runs again afterwards."""
    monkeypatch.setattr(DagsterApiServer, "StartRun", lambda self, _request: self._mp_ctx)
    return DagsterApiServer


def test_only_a_code_server_forks_runs(server, monkeypatch):
    start_run = server.StartRun
    with monkeypatch.context() as elsewhere:
        elsewhere.delitem(sys.modules, "dagster._grpc.server")
        warm_runs.fork_runs([], is_wanted=True)
    assert server.StartRun is start_run


def test_a_forked_run_has_the_modules_of_all_projects_and_the_environment_of_its_start(server, monkeypatch):
    warm_runs.fork_runs(["colorsys"], is_wanted=True)
    warm_runs.fork_runs(["colorsys", "chunk_that_is_not_there", "quopri"], is_wanted=True)
    context = server.StartRun(server.__new__(server), None)
    answers = context.Queue()
    monkeypatch.setenv("SET_LATER", "1")
    process = context.Process(target=_tell, args=[answers, os.getpid()])
    process.start()
    assert answers.get(timeout=120) == (True, True, "1", False)
    process.join(60)
    assert process.exitcode == 0


def _tell(answers, starter):
    imported = ("colorsys" in sys.modules, "quopri" in sys.modules)
    answers.put((*imported, os.environ.get("SET_LATER"), os.getppid() == starter))


@pytest.mark.parametrize("wanted", [[False], [False, True], [True, False]])
def test_one_project_that_does_not_want_it_is_enough(server, wanted):
    for is_wanted in wanted:
        warm_runs.fork_runs([], is_wanted=is_wanted)
    of_dagster = server.__new__(server)
    of_dagster._mp_ctx = "Dagster's own"
    assert server.StartRun(of_dagster, None) == "Dagster's own"


def test_outside_of_linux_nothing_changes(server, monkeypatch):
    start_run = server.StartRun
    monkeypatch.setattr(sys, "platform", "darwin")
    warm_runs.fork_runs([], is_wanted=True)
    assert server.StartRun is start_run


def test_a_forked_run_ends_as_a_new_python_does(server, tmp_path):
    """Libraries send at the end what they have gathered."""
    warm_runs.fork_runs([], is_wanted=True)
    context = server.StartRun(server.__new__(server), None)
    sent = tmp_path / "sent"
    process = context.Process(target=atexit.register, args=[sent.touch])
    process.start()
    process.join(120)
    assert process.exitcode == 0
    assert sent.exists()
