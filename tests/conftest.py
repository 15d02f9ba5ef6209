"""Fixtures for all tests: manifests that dbt itself wrote."""

from __future__ import annotations

import gc
import json
import shutil
from pathlib import Path

import pytest
from dbt_common.behavior_flags import BehaviorFlagRendered
from dbt_common.tests import enable_test_caching

from tests.support.dbt_version import DBT_VERSION
from tests.support.postgres_server import programs, running_server

CORE_PROJECT = Path(__file__).parent / "core" / "project"


def pytest_collection_finish():
    """Spare this process what takes the longer the more modules it has imported: a fifth of all tests' time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    # dbt's own tests do this too: each parse in this process would read the same five hundred macros of dbt anew.
    enable_test_caching()
    # For a message about a behavior flag, dbt finds the module of each frame on the stack, whenever it makes an adapter.
    BehaviorFlagRendered._default_source = staticmethod(lambda: "dbt.adapters")


def pytest_unconfigure():
    """Let what drivers hold be collected, which they would call a leak otherwise."""
    gc.unfreeze()


# Doctests are looked for in every module, and by the name of this one pytest knows that of the folder before.
collect_ignore = ["conftest.py"]


def run_dbt(folder: Path, *args: str) -> dict:
    """Run dbt in this process in the project at `folder`; return the manifest that it wrote."""
    from dbt.cli.main import dbtRunner

    result = dbtRunner().invoke(["--quiet", *args, "--project-dir", str(folder), "--profiles-dir", str(folder)])
    if result.exception:
        raise result.exception
    assert result.success, result.result
    return json.loads((folder / "target" / "manifest.json").read_text())


def copy_core_project(folder: Path) -> Path:
    """Copy the project with every trap that the installed dbt can parse."""
    shutil.copytree(CORE_PROJECT, folder)
    if DBT_VERSION < (1, 11):
        file = folder / "models" / "waiting" / "waiting.yml"
        text = file.read_text()
        file.write_text(text.replace("{updates_on: all}", "{count: 1, period: hour, updates_on: all}"))
    return folder


@pytest.fixture(scope="session")
def core_project(tmp_path_factory):
    """Return a copy of the project with every trap, for reading."""
    folder = tmp_path_factory.mktemp("core") / "shop"
    return copy_core_project(folder)


@pytest.fixture(scope="session")
def core_manifest(core_project):
    """Return the manifest of the project with every trap."""
    return run_dbt(core_project, "parse")


@pytest.fixture(scope="session")
def postgres_server():
    """A running PostgreSQL server, one for all tests of this process."""
    pytest.importorskip("psycopg2")
    binaries = programs()
    if binaries is None:
        pytest.skip("no PostgreSQL server programs here")
    with running_server(binaries) as server:
        yield server


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """The corner shop before anything happened."""
    from tests.support.corner_shop import open_shop

    return open_shop(tmp_path_factory.mktemp("corner_shop"))


@pytest.fixture
def corner_shop_environment(opened, monkeypatch):
    """The variables that the corner shop needs."""
    for name, value in opened.environment.items():
        monkeypatch.setenv(name, value)
