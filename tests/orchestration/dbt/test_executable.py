"""dbt is found beside the Python that runs us, also in an environment that nobody activated."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dagster_sao.orchestration.dbt.executable import find_dbt
from tests.orchestration.shops import definitions, shop_manifest


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """A folder of executables as this Python's, and a PATH of another one."""
    own, other = tmp_path / "own", tmp_path / "other"
    own.mkdir()
    other.mkdir()
    monkeypatch.setattr(sys, "executable", str(own / "python"))
    monkeypatch.setenv("PATH", str(other))
    return own, other


def put_dbt(folder):
    path = folder / "dbt"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


def test_dbt_beside_python_is_found(environment):
    own, _ = environment
    expected = put_dbt(own)
    find_dbt()
    find_dbt()
    assert shutil.which("dbt") == expected
    assert os.environ["PATH"].count(str(own)) == 1


def test_dbt_on_the_path_is_left_to_be_used(environment):
    own, other = environment
    put_dbt(own)
    expected = put_dbt(other)
    find_dbt()
    assert shutil.which("dbt") == expected


def test_a_path_without_any_dbt_stays_as_it_is(environment):
    _, other = environment
    find_dbt()
    assert os.environ["PATH"] == str(other)


def test_definitions_load_in_an_environment_that_is_not_activated(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert definitions(tmp_path, shop_manifest()).resolve_asset_graph()


@pytest.mark.slow
def test_the_command_line_needs_no_activated_environment(tmp_path):
    """As the README writes it: `.venv/bin/dagster-sao plan -f …`."""
    (tmp_path / "models").mkdir()
    (tmp_path / "home").mkdir()
    (tmp_path / "models" / "one.sql").write_text("select 1 as id")
    (tmp_path / "dbt_project.yml").write_text("{name: shop, profile: shop, flags: {send_anonymous_usage_stats: false}}")
    (tmp_path / "profiles.yml").write_text("shop: {target: dev, outputs: {dev: {type: duckdb, path: shop.duckdb}}}\n")
    (tmp_path / "definitions.py").write_text(
        "from dagster_dbt import DbtProject\n"
        "from dagster_sao import build_state_aware_definitions\n"
        f"defs = build_state_aware_definitions(DbtProject({str(tmp_path)!r}))\n"
    )
    environ = {
        **{name: value for name, value in os.environ.items() if name in {"HOME", "PYTHONPATH"}},
        "PATH": "/usr/bin:/bin",
        "DAGSTER_HOME": str(tmp_path / "home"),
        "DO_NOT_TRACK": "1",
    }
    command = [Path(sys.executable).parent / "dagster-sao", "build", "-f", "definitions.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "1 success" in done.stdout
