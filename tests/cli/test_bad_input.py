"""What users get wrong: one clear sentence on stderr, exit code 2, nothing on stdout, never a traceback."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from click.testing import CliRunner

from dagster_sao.cli import main
from tests.support.parsing import parsing_here

CYCLE = """
selectors:
  - name: one
    definition: {method: selector, value: two}
  - name: two
    definition: {method: selector, value: one}
"""


def run(*args):
    return CliRunner().invoke(main, [*map(str, args)])


@pytest.fixture(scope="module")
def shop(opened):
    """The corner shop, parsed and not built."""
    with pytest.MonkeyPatch.context() as patch, opened.instance() as instance, parsing_here():
        for name, value in opened.environment.items():
            patch.setenv(name, value)
        opened.project(instance).orchestrated.load()
    return opened


@pytest.fixture
def project(shop, tmp_path):
    """A copy of the corner shop's dbt project, to be spoilt."""
    folder = tmp_path / "spoilt"
    shutil.copytree(shop.project_dir, folder)
    return folder


def refused(result, *words):
    assert result.exit_code == 2, (result.output, result.exception)
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line and not line.startswith(("Usage:", "Try "))]
    assert len(lines) == 1, lines
    for word in words:
        assert word in lines[0]


CASES = {
    "unknown selector": (["plan", "--selector", "weekly"], ["'weekly'", "selectors.yml"]),
    "unknown method": (["plan", "-s", "colour:red"], ["colour"]),
    "no node in a plan": (["plan", "-s", "ordres"], ["matches no node", "'orders'"]),
    "no node in tests": (["tests", "-s", "ordres"], ["matches no node", "'orders'"]),
    "unknown node": (["explain", "ordres"], ["'ordres'", "Did you mean 'orders'"]),
    "unknown node in state": (["state", "ordres"], ["'ordres'", "Did you mean 'orders'"]),
    "unknown test": (["explain", "not_null_order_id"], ["Did you mean the test 'not_null_orders_id'"]),
    "unknown test in state": (["state", "not_null_order_id"], ["Did you mean the test 'not_null_orders_id'"]),
    "a source to explain": (["explain", "raw.orders"], ["raw.orders is a source"]),
    "select with selector": (["build", "-s", "orders", "--selector", "daily"], ["`selector`", "`select`"]),
    "favor-state without defer": (["build", "--favor-state"], ["`favor_state`", "`defer`"]),
    "defer without state": (["build", "--defer"], ["`defer` needs `state`"]),
    "state mode without state": (["plan", "--state-mode", "semantic"], ["`state_mode`", "`state`"]),
    "state: without state": (["plan", "-s", "state:modified"], ["`state:`", "state"]),
    "state without manifest": (["plan", "-s", "state:modified", "--state", "models"], ["models", "manifest.json"]),
    "force outside the selection": (["plan", "-s", "orders", "--force", "rates"], ["rates", "selected"]),
    "vars that are no mapping": (["plan", "--vars", "[1]"], ["--vars", "mapping"]),
    "vars that are no YAML": (["plan", "--vars", "{"], ["--vars", "YAML"]),
    "two places of definitions": (["plan", "-f", "a.py", "-m", "a"], ["--python-file", "--module-name"]),
    "unknown target": (["plan", "-t", "moon"], ["moon"]),
    "no threads": (["build", "--threads", "0"], ["--threads"]),
    "unknown option": (["build", "--selct", "orders"], ["--selct"]),
    "no profiles": (["plan", "--profiles-dir", "nowhere"], ["nowhere", "profiles.yml"]),
}


@pytest.mark.parametrize(("args", "words"), CASES.values(), ids=CASES)
def test_is_refused_in_one_sentence(shop, args, words, monkeypatch):
    monkeypatch.chdir(shop.project_dir)
    command, *rest = args
    where = [] if "-f" in rest else ["--project-dir", shop.project_dir]
    refused(run(command, *where, *rest), *words)


def test_a_cyclic_yaml_selector_is_refused(project):
    (project / "selectors.yml").write_text(CYCLE)
    refused(run("plan", "--project-dir", project, "--selector", "one"), "one", "two")


def test_no_instance_is_refused(shop, monkeypatch):
    monkeypatch.delenv("DAGSTER_HOME")
    refused(run("plan", "--project-dir", shop.project_dir), "DAGSTER_HOME is not set", "export DAGSTER_HOME")


def test_an_instance_that_does_not_exist_is_refused(shop, monkeypatch, tmp_path):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "nowhere"))
    refused(run("plan", "--project-dir", shop.project_dir), "DAGSTER_HOME", "nowhere")


def test_an_instance_of_another_schema_version_is_refused(shop, monkeypatch, tmp_path):
    home = tmp_path / "home"
    shutil.copytree(shop.home, home)
    with closing(sqlite3.connect(home / "history" / "runs.db")) as connection, connection:
        connection.execute("update alembic_version set version_num = '0000feedbeef'")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    refused(run("plan", "--project-dir", shop.project_dir), "schema", "dagster instance migrate")


def test_no_dbt_project_is_refused(tmp_path, monkeypatch):
    refused(run("plan", "--project-dir", tmp_path), str(tmp_path), "dbt_project.yml")
    monkeypatch.chdir(tmp_path)
    refused(run("plan"), "--python-file", "--module-name", "--project-dir")


def test_a_project_that_dbt_cannot_parse_is_refused(project):
    (project / "models" / "orders.sql").write_text("select * from {{ ref('nobody') }}")
    refused(run("plan", "--project-dir", project), "nobody")


def test_a_project_file_that_dbt_refuses_is_refused_without_a_traceback(project):
    file = project / "dbt_project.yml"
    file.write_text(file.read_text() + "\nversion: 'one'\n")
    # A process, because the logs of libraries go past the runner.
    command = [sys.executable, "-c", "from dagster_sao.cli import main; main()", "plan", "--project-dir", str(project)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "'one' is not valid" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_database_that_dbt_cannot_open_is_named_as_the_cause(project, tmp_path, monkeypatch):
    """dbt ends before it comes to any node, so the cause is in none of their results."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("CORNER_SHOP_DATABASE", str(tmp_path / "nowhere" / "x.duckdb"))
    profiles = project / "profiles.yml"
    without_retries = [line for line in profiles.read_text().splitlines() if "retries:" not in line]
    profiles.write_text("\n".join(without_retries))
    result = run("build", "-s", "rates", "--project-dir", project)
    assert result.exit_code == 1
    assert "error rates. dbt ended before it built it: " in result.output
    assert "Cannot open file" in result.output


def test_a_setting_without_meaning_is_refused(project):
    (project / "models" / "totals.sql").write_text(
        "{{ config(meta={'dagster_sao': {'rebuild_every': 'soon'}}) }} select 1 as id"
    )
    with parsing_here():
        refused(run("plan", "--project-dir", project), "totals", "rebuild_every", "soon")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("defs = 1", ["no dagster.Definitions"]),
        ("import dagster as dg\ndefs = dg.Definitions()", ["no state-aware dbt project"]),
        ("import nobody_has_this", ["ModuleNotFoundError", "nobody_has_this"]),
    ],
)
def test_definitions_without_a_project_are_refused(tmp_path, code, words):
    (tmp_path / "bare_definitions.py").write_text(code)
    refused(run("plan", "-f", tmp_path / "bare_definitions.py"), *words)


DEFINITIONS_IN_A_FOLDER = """
from pathlib import Path

import dagster as dg


@dg.definitions
def defs():
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
"""


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        (
            "{project: /nowhere/shop}",
            ["component ours", "DagsterDbtProjectNotFoundError", "/nowhere/shop does not exist"],
        ),
        (
            "{project: /nowhere/shop, state_aware: {sensor_enabled: true}}",
            ["component ours", "sensor_enabled", "defs.yaml"],
        ),
    ],
    ids=["no project", "unknown setting"],
)
def test_a_mistake_in_a_component_is_named(tmp_path, monkeypatch, attributes, words):
    """Dagster's own error draws the tree of all components, and says of none what is wrong with it."""
    files = {
        "pyproject.toml": "[tool.dg]\ndirectory_type = 'project'\n[tool.dg.project]\nroot_module = 'wrong_component'\n",
        "wrong_component/__init__.py": "",
        "wrong_component/definitions.py": DEFINITIONS_IN_A_FOLDER,
        "wrong_component/defs/ours/defs.yaml": (
            f"type: dagster_sao.StateAwareDbtProjectComponent\nattributes: {attributes}\n"
        ),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.startswith("wrong_component")]:
        monkeypatch.delitem(sys.modules, name)
    refused(run("plan", "-m", "wrong_component.definitions"), *words)


def test_the_options_of_a_folder_do_not_go_with_definitions(tmp_path):
    refused(run("plan", "-m", "anything", "--profiles-dir", tmp_path), "--profiles-dir", "Dagster definitions")


def test_an_edited_file_is_parsed_before_anything_is_decided(project, tmp_path):
    (project / "models" / "brand_new.sql").write_text("select 1 as id")
    with parsing_here():
        result = run("plan", "--project-dir", project, "-s", "brand_new", "--no-refresh-sources")
    assert result.exit_code == 0, result.stderr
    assert "Not built before in this environment" in result.stdout


def test_an_edited_file_is_told_of_where_definitions_bring_their_manifest(project, tmp_path):
    (tmp_path / "deployed.py").write_text(
        "from dagster_dbt import DbtProject\nfrom dagster_sao import build_state_aware_definitions\n"
        f"defs = build_state_aware_definitions(DbtProject({str(project)!r}))\n"
    )
    (project / "models" / "brand_new.sql").write_text("select 1 as id")
    result = run("plan", "-f", tmp_path / "deployed.py", "--no-refresh-sources")
    assert result.exit_code == 0, result.stderr
    assert "models/brand_new.sql was added after the manifest of corner_shop was parsed" in result.stderr
    assert "brand_new" not in result.stdout


def test_what_nobody_expected_is_one_line_and_with_debug_a_trace(shop, monkeypatch):
    from dagster_sao.api import StateAwareProject

    def fail(*_args, **_options):
        raise RuntimeError("out of paper")

    monkeypatch.setattr(StateAwareProject, "states", fail)
    refused(run("state", "--project-dir", shop.project_dir), "RuntimeError: out of paper", "--debug")
    assert "Traceback" in run("state", "--project-dir", shop.project_dir, "--debug").stderr
