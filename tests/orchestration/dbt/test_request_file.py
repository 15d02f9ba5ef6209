"""A dbt that cannot start leaves nothing behind, and its run says why."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from dagster_sao.orchestration.dbt import process as process_module
from dagster_sao.orchestration.dbt.process import DbtProcess, DbtStartError
from dbt_dagster_sao import BUILD_SECONDS, TEST_REQUEST
from dbt_dagster_sao.data_tests.handover import DataTestRequest


@pytest.fixture
def requests(tmp_path, monkeypatch):
    """Where the files with requests are."""
    folder = tmp_path / "requests"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def start(cli, folder):
    dbt = SimpleNamespace(dbt_executable="dbt", cli=cli)
    project = SimpleNamespace(dbt_project=SimpleNamespace(project_dir=folder))
    context = SimpleNamespace(log=SimpleNamespace(warning=lambda _: None), run=SimpleNamespace(run_id="1"))
    loaded = SimpleNamespace(manifest={}, translator=None)
    return DbtProcess(context, dbt, project, loaded, ["build"], DataTestRequest(), {"model.shop.a": 1.0})


def test_a_dbt_that_cannot_start_leaves_no_request_behind(requests, tmp_path):
    given = []

    def cli(*_, **__):
        given.extend(Path(os.environ[name]) for name in (TEST_REQUEST, BUILD_SECONDS))
        assert all(path.exists() for path in given)
        raise PermissionError(13, "Permission denied", "target/d57")

    with pytest.raises(DbtStartError, match=r"^dbt cannot be started: \[Errno 13\] Permission denied: 'target/d57'$"):
        start(cli, tmp_path)
    assert len(given) == 2
    assert not list(requests.iterdir())


def test_a_request_that_cannot_be_written_leaves_no_other_behind(requests, tmp_path, monkeypatch):
    write = process_module._write_request

    def write_one(text):
        if list(requests.iterdir()):
            raise OSError(28, "No space left on device")
        return write(text)

    monkeypatch.setattr(process_module, "_write_request", write_one)
    with pytest.raises(DbtStartError, match="No space left on device"):
        start(None, tmp_path)
    assert not list(requests.iterdir())


def test_a_dbt_without_a_watchdog_is_ended(requests, tmp_path, monkeypatch):
    def no_more_processes(_):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(process_module, "_start_watchdog", no_more_processes)
    dbt = subprocess.Popen(["sleep", "600"])
    invocation = SimpleNamespace(process=dbt, target_path=tmp_path, _stream_stdout=None)
    try:
        with pytest.raises(DbtStartError, match="Resource temporarily unavailable"):
            start(lambda *_, **__: invocation, tmp_path)
        assert dbt.wait(60) < 0  # a signal ended it
    finally:
        dbt.kill()
        dbt.wait()
    assert not list(requests.iterdir())
