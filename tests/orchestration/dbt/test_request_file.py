"""The files with a run's requests do not outlive dbt, nor a dbt that cannot start."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from dagster_sao.orchestration.dbt.process import DbtProcess
from dbt_dagster_sao import BUILD_SECONDS, TEST_REQUEST
from dbt_dagster_sao.data_tests.handover import DataTestRequest


def test_a_dbt_that_cannot_start_leaves_no_request_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    given = []

    class Dbt:
        dbt_executable = "dbt"

        def cli(self, *_, **__):
            given.extend(Path(os.environ[name]) for name in (TEST_REQUEST, BUILD_SECONDS))
            assert all(path.exists() for path in given)
            raise FileNotFoundError

    project = SimpleNamespace(dbt_project=SimpleNamespace(project_dir=tmp_path))
    context = SimpleNamespace(log=SimpleNamespace(warning=lambda _: None))
    loaded = SimpleNamespace(manifest={}, translator=None)
    with pytest.raises(FileNotFoundError):
        DbtProcess(context, Dbt(), project, loaded, ["build"], DataTestRequest(), {"model.shop.a": 1.0})
    assert [path.exists() for path in given] == [False, False]
