"""Variables, target and profile: wherever they are set, plan, parse and run all have them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import date

import pytest
import yaml
from dagster_dbt import DagsterDbtTranslator, DbtCliResource, DbtProject

from dagster_sao import build_state_aware_definitions
from dagster_sao.core.errors import InvalidProjectError
from dagster_sao.orchestration.project.dbt_arguments import (
    DbtSettings,
    check_arguments,
    command_of,
    has_own_manifest,
    in_standard_form,
    project_with,
    read_arguments,
    settings_of,
    together,
    vars_arguments,
    with_environment,
    without_hiding,
    without_settings,
)
from dagster_sao.orchestration.project.orchestrated import OrchestratedProject
from dagster_sao.orchestration.runs.config import StateAwareRunConfig
from dagster_sao.orchestration.runs.execution import _for_project
from dagster_sao.orchestration.runs.setup import dbt_arguments
from dagster_sao.warehouse.dbt_private.environment import other_dbt, settings_of_all_runs


@pytest.fixture
def project(tmp_path):
    (tmp_path / "dbt_project.yml").write_text("name: shop\nprofile: shop\n")
    outputs = "{dev: {type: duckdb, path: a.duckdb}, prod: {type: duckdb, path: b.duckdb}}"
    (tmp_path / "profiles.yml").write_text(
        f"shop: {{target: dev, outputs: {outputs}}}\nother: {{target: dev, outputs: {outputs}}}\n"
    )
    return DbtProject(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        (["build"], {}),
        (["build", "--vars", "{a: 1, b: x}"], {"a": 1, "b": "x"}),
        (["build", '--vars={"a": 1}'], {"a": 1}),
        (["build", {"--vars": {"a": 1}}], {"a": 1}),
        (["build", {"--vars": "{a: 1}"}, "--vars", "b: 2"], {"a": 1, "b": 2}),
    ],
)
def test_variables_are_read_in_every_form(arguments, variables):
    assert read_arguments(arguments, "dbt_args") == DbtSettings(variables)


@pytest.mark.parametrize("variables", [{"a": "ä b"}, {"rates": {1: 5, "x": [1.5, None]}}, {"day": date(2026, 1, 1)}])
def test_dbt_gets_variables_as_they_are(variables):
    option, text = vars_arguments(variables)
    assert (option, yaml.safe_load(text)) == ("--vars", variables)
    assert "\n" not in text


@pytest.mark.parametrize("word", ["--target prod", "--target=prod", "-t prod"])
def test_a_target_is_read_in_every_form(word):
    assert read_arguments(["build", *word.split()], "dbt_args").target == "prod"
    assert without_settings(["build", *word.split(), "-x"], "--target") == ["build", "-x"]


@pytest.mark.parametrize(
    ("places", "text"),
    [
        (
            [("`variables`", DbtSettings({"r": 3})), ("`dbt_args`", DbtSettings({"r": 2}))],
            "The variable `r` has two different values, in `variables` and in `dbt_args`. Give it once.",
        ),
        (
            [("the DbtProject", DbtSettings(target="dev")), ("`dbt_args`", DbtSettings(target="prod"))],
            "The target has two different values, in the DbtProject and in `dbt_args`. Give it once.",
        ),
    ],
)
def test_two_values_of_one_setting_are_one_clear_error(places, text):
    with pytest.raises(InvalidProjectError) as raised:
        together(places)
    assert str(raised.value) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [("{a: ", "is not YAML"), ("just text", "`--vars` in `dbt_args` is not a mapping. Write it as '{name: value}'.")],
)
def test_variables_that_cannot_be_read_are_an_error_at_load(project, text, words):
    with pytest.raises(InvalidProjectError, match=words.replace("(", r"\(")):
        build_state_aware_definitions(project, dbt_args=["build", "--vars", text])


def test_the_parse_has_the_variables_of_the_run_and_a_manifest_of_its_own(project):
    settings = together([("dbt_args", read_arguments(["build", "--vars", "{r: 2}"], "dbt_args"))])
    own = project_with(project, settings)
    assert has_own_manifest(own)
    assert settings_of(own).variables == {"r": 2}
    assert project_with(own, settings) is own
    assert project_with(project, DbtSettings()) is project


def test_the_resource_that_runs_dbt_names_the_target_too(project):
    assert settings_of(DbtCliResource(project, target="prod")).target == "prod"


@pytest.mark.parametrize(
    ("environ", "settings", "environment"),
    [
        ({}, DbtSettings(), ""),
        ({"DBT_TARGET": "dev"}, DbtSettings(), ""),
        ({"DBT_TARGET": "prod"}, DbtSettings(target="prod"), "prod"),
        ({"DBT_ENGINE_TARGET": "prod", "DBT_TARGET": "dev"}, DbtSettings(target="prod"), "prod"),
        ({"DBT_PROFILE": "shop"}, DbtSettings(), ""),
        ({"DBT_PROFILE": "other"}, DbtSettings(profile="other"), "other"),
        ({"DBT_PROFILE": "other", "DBT_TARGET": "prod"}, DbtSettings(target="prod", profile="other"), "other.prod"),
    ],
)
def test_target_and_profile_of_the_environment_mean_what_they_mean_for_dbt(
    project, monkeypatch, environ, settings, environment
):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert with_environment(project, DbtSettings()) == (settings, environment)


def test_a_target_that_is_given_wins_over_the_environment(project, monkeypatch):
    monkeypatch.setenv("DBT_TARGET", "prod")
    assert with_environment(project, DbtSettings(target="dev")) == (DbtSettings(target="dev"), "")


def test_a_run_has_each_setting_once(project):
    own = project_with(project, DbtSettings({"r": 2, "s": 1}, target="prod"))
    orchestrated = OrchestratedProject(own, translator=None, variables={"r": 2, "s": 1})
    args = ["build", "--vars", "{r: 2}", "--target", "prod", "--no-partial-parse"]
    made = dbt_arguments(args, StateAwareRunConfig(), orchestrated)
    assert made[:3] == ["build", "--no-partial-parse", "--vars"]
    assert json.loads(made[3]) == {"r": 2, "s": 1}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["build", "--full-refresh"], ["build", "--full-refresh"]),
        (["-f", "build", "-tprod"], ["build", "--full-refresh", "--target", "prod"]),
        (["-xt", "build", "run"], ["run", "--fail-fast", "--target", "build"]),
        (["--log-level", "debug", "build", "-xy"], ["build", "--log-level", "debug", "-xy"]),
        ([{"--vars": "{a: -f}"}, "seed"], ["seed", "--vars", "{a: -f}"]),
        (["{{ command }}", "-f"], ["{{ command }}", "--full-refresh"]),
    ],
)
def test_the_command_comes_first_and_options_have_their_long_names(arguments, expected):
    assert in_standard_form(arguments, "dbt_args") == expected


@pytest.mark.parametrize("arguments", [[], ["compile"], ["test", "--target", "build"], ["docs", "generate"]])
def test_a_command_that_builds_nothing_is_refused(arguments, project):
    with pytest.raises(InvalidProjectError, match="`dbt_args` has no dbt command that builds"):
        build_state_aware_definitions(project, dbt_args=arguments)


@pytest.mark.parametrize(
    "arguments", [["build", "--select", "a"], ["build", "--exclude=a"], ["build", {"-s": "a"}], ["-m", "a"]]
)
def test_a_selection_among_the_arguments_is_refused(arguments):
    with pytest.raises(InvalidProjectError, match="makes its own selection"):
        check_arguments(arguments, "dbt_args")
    check_arguments(["build", "--full-refresh", "--vars", "{a: --select}"], "dbt_args")


@pytest.mark.parametrize("arguments", [["build", "--defer", "--state", "p"], ["build", {"--favor-state": ""}]])
def test_arguments_that_read_another_environment_are_refused(arguments):
    with pytest.raises(InvalidProjectError, match="reads from another environment"):
        check_arguments(arguments, "dbt_args")
    check_arguments(["build", "--state", "p", "--no-defer"], "dbt_args")


@pytest.mark.parametrize("option", ["--profiles-dir", "--project-dir", "--target-path"])
def test_arguments_that_read_other_files_are_refused(option, project):
    with pytest.raises(InvalidProjectError, match="have to read the same files as dbt"):
        build_state_aware_definitions(project, dbt_args=["build", option, "elsewhere"])


def test_a_resource_that_reads_another_profile_than_the_sensors_is_refused(project, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "profiles.yml").write_text((tmp_path / "profiles.yml").read_text())
    with pytest.raises(InvalidProjectError, match="which the sensors and the plan read"):
        build_state_aware_definitions(project, dbt=DbtCliResource(project, profiles_dir=str(other)))


def test_flags_of_the_resource_are_arguments_of_dbt(project):
    dbt = DbtCliResource(project, global_config_flags=["--state", "p", "--favor-state"])
    with pytest.raises(InvalidProjectError, match="reads from another environment"):
        build_state_aware_definitions(project, dbt=dbt)
    quiet = DbtCliResource(project, global_config_flags=["--quiet", "-x"])
    assert in_standard_form(command_of(quiet, ["build"]), "dbt_args") == ["build", "--quiet", "--fail-fast"]


def test_arguments_that_hide_results_are_left_out():
    given = [
        "--quiet",
        "build",
        "--log-level",
        "error",
        "--no-write-json",
        "--indirect-selection=eager",
        "--threads",
        "2",
    ]
    assert without_hiding(given) == ["build", "--threads", "2"]


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, {"DBT_INDIRECT_SELECTION": "empty", "DBT_LOG_LEVEL": "info", "RUN_CACHE_DISABLED": "true"}),
        ({"DBT_LOG_LEVEL": "debug"}, {"DBT_LOG_LEVEL": "debug"}),
        ({"DBT_ENGINE_LOG_LEVEL": "error"}, {"DBT_LOG_LEVEL": "info", "DBT_ENGINE_LOG_LEVEL": None}),
        ({"DBT_ENGINE_TARGET_PATH": "x"}, {"DBT_ENGINE_TARGET_PATH": None}),
        ({"DBT_ENGINE_MANAGE_STATE": "true"}, {"DBT_ENGINE_MANAGE_STATE": "false"}),
    ],
)
def test_settings_that_runs_rely_on_win_over_those_of_the_environment(environ, expected):
    found = settings_of_all_runs(environ, "dbt")
    assert {name: found.get(name) for name in expected} == expected
    assert environ or "DBT_ENGINE_MANAGE_STATE" not in found


def test_another_dbt_on_the_path_is_noticed(tmp_path, monkeypatch):
    assert not other_dbt("dbt")
    script = tmp_path / "dbt_elsewhere"
    script.write_text("#!/bin/sh\necho 'dbt 2.0.1'\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert "which is dbt 2.0.1" in other_dbt("dbt_elsewhere")
    assert settings_of_all_runs({}, "dbt_elsewhere")["DBT_ENGINE_MANAGE_STATE"] == "false"


def test_the_env_file_of_the_current_folder_does_not_stay_in_the_process(tmp_path):
    """From dbt 1.12 on, an import puts it there: a later change of the file, or the project's own file, would not count."""
    files = {
        ".env": "RATE=9",
        "shop/.env": "RATE=4",
        "shop/dbt_project.yml": "{name: shop, version: 1.0.0, profile: shop}",
        "shop/profiles.yml": "shop: {target: dev, outputs: {dev: {type: duckdb, path: w.duckdb}}}",
        "look.py": "import os\nfrom pathlib import Path\nfrom dagster_sao.warehouse.dbt_private.config import load_config\n"
        "folder = Path('shop').absolute()\nload_config(folder, folder, None, None, {})\nprint(os.environ.get('RATE'))",
    }
    (tmp_path / "shop").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    found = subprocess.run([sys.executable, "look.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout == "None\n"


def test_dbt_finds_the_profile_of_a_project_with_a_relative_folder(project, monkeypatch):
    """dbt starts in the project's folder, and the folder of the definitions is another."""
    monkeypatch.chdir(project.project_dir.parent)
    relative = DbtProject(project.project_dir.name)
    orchestrated = OrchestratedProject(relative, DagsterDbtTranslator())
    dbt = _for_project(DbtCliResource(relative), orchestrated, needs_adapter=False)
    assert dbt.profiles_dir == str(project.project_dir)
