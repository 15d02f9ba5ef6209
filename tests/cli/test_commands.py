"""The command line: what is on stdout, how it exits, and that it shares the state of the instance."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import closing

import dagster as dg
import duckdb
import pytest
from click.testing import CliRunner

from dagster_sao.cli import main
from dagster_sao.cli.commands import commands
from dagster_sao.orchestration.events.event_schema import SOURCE_PROBLEMS_KEY
from dagster_sao.orchestration.private.dagster_internals import metadata_of_engine_event
from tests.support.corner_shop import ORDERS, RATES, TOTALS, open_shop
from tests.support.environments import environment_for
from tests.support.parsing import parsing_here

COMMANDS = ["plan", "build", "explain", "state", "reset", "tests", "sources", "notify", "doctor"]


@pytest.fixture(scope="module")
def shop(opened):
    """The corner shop after a first build, and one of new rows."""
    with parsing_here():
        with pytest.MonkeyPatch.context() as patch, opened.instance() as instance:
            for name, value in opened.environment.items():
                patch.setenv(name, value)
            project = opened.project(instance)
            project.build()
            opened.load_orders(2, 2)
            project.build("orders totals")
        yield opened


@pytest.fixture
def run(shop):
    """Run a command on the corner shop."""

    def invoke(*args, **options):
        options.setdefault("catch_exceptions", False)
        command, *rest = args
        return CliRunner().invoke(main, [command, "--project-dir", str(shop.project_dir), *rest], **options)

    return invoke


def test_every_command_says_what_it_does_with_examples():
    assert set(commands.commands) == set(main.list_commands(None)) == set(COMMANDS)
    for name in COMMANDS:
        result = CliRunner().invoke(main, [name, "--help"])
        assert result.exit_code == 0
        assert f"dagster-sao {name}" in result.output


@pytest.mark.parametrize(
    "args",
    [
        ["plan", "--no-refresh-sources"],
        ["explain", "orders"],
        ["explain", "not_null_orders_id"],
        ["state", "not_null_orders_id"],
        ["state"],
        ["state", "orders"],
        ["sources", "--probe"],
        ["doctor"],
    ],
    ids=" ".join,
)
def test_json_is_one_document_and_all_of_stdout(run, args):
    result = run(*args, "-o", "json")
    assert result.exit_code == 0, result.stderr
    assert isinstance(json.loads(result.stdout), dict)


def test_a_plan_names_decisions_as_the_api_does(run):
    document = json.loads(run("plan", "-s", "orders totals", "--no-refresh-sources", "-o", "json").stdout)
    assert {row["unique_id"]: row["reason"] for row in document["decisions"]}[ORDERS] == "no_new_data"
    assert document["forecast"]["threads"] == 2


@pytest.mark.parametrize(
    "words", [["-s", "orders totals"], ["-s", "orders", "-s", "totals"], ["--select", "orders", "totals"]], ids=" ".join
)
def test_dbt_selects_with_several_options_and_with_spaces(run, words):
    result = run("plan", *words, "--no-refresh-sources", "-o", "json")
    assert {row["unique_id"] for row in json.loads(result.stdout)["decisions"]} == {ORDERS, TOTALS}


def test_a_yaml_selector_selects(run):
    document = json.loads(run("plan", "--selector", "daily", "--no-refresh-sources", "-o", "json").stdout)
    assert {row["unique_id"] for row in document["decisions"]} == {ORDERS, "model.corner_shop.stg_orders"}


def test_an_explanation_is_for_people_too(run):
    text = run("explain", "totals").stdout
    assert "Now: reuse. No new changes on all upstreams: waiting for rates" in text
    assert "Last built:" in text
    assert "build_after: 1h" in text


def test_text_has_no_colours_where_there_is_no_terminal(run):
    assert "\x1b" not in run("plan", "--no-refresh-sources").stdout


def test_no_color_is_honoured_on_a_terminal(monkeypatch):
    from dagster_sao.cli.output import Output

    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    assert Output("text").err.no_color


def test_a_build_of_nothing_new_exits_with_0(run, shop):
    result = run("build", "-s", "orders", "-o", "json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["counts"] == {"reused": 1}
    assert "reused orders" in result.stderr
    with shop.instance() as instance:
        assert instance.get_run_by_id(document["run_id"]).status is dg.DagsterRunStatus.SUCCESS


def test_a_selection_of_nothing_is_a_warning_and_no_failure_as_in_dbt(run):
    result = run("build", "-s", "nobody", "-o", "json")
    assert result.exit_code == 0
    assert "'nobody' matches no node" in result.stderr
    assert json.loads(result.stdout)["nodes"] == []


def test_a_criterion_that_matches_nothing_is_a_warning(run):
    result = run("build", "-s", "orders", "nobody", "-o", "json")
    assert "The selection criterion 'nobody' does not match any enabled nodes." in result.stderr
    assert json.loads(result.stdout)["counts"] == {"reused": 1}


def test_quiet_leaves_only_the_result(run):
    result = run("build", "-s", "orders", "--quiet")
    assert result.stderr == ""
    assert result.stdout.startswith("1 reused in")
    assert result.stdout.endswith("; tests: 1 reused\n")


def test_a_failed_node_exits_with_1_and_says_why(run, monkeypatch):
    monkeypatch.setenv("CORNER_SHOP_NUMBER", "no number")
    result = run("build", "-s", "fragile+", "--force", "fragile", "-o", "json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert document["counts"] == {"error": 1, "skipped": 1}
    assert "fragile: Runtime Error in model fragile" in result.stderr


def test_a_source_that_cannot_be_probed_is_said_and_fails_no_build(tmp_path, monkeypatch):
    shop = open_shop(tmp_path)
    for name, value in shop.environment.items():
        monkeypatch.setenv(name, value)
    with closing(duckdb.connect(str(shop.database))) as connection:
        connection.execute("alter table raw.orders alter loaded_at type varchar using 'yesterday'")

    def run(*args):
        with parsing_here():
            return CliRunner().invoke(main, [args[0], "--project-dir", str(shop.project_dir), *args[1:]])

    problem = "raw.orders (models/schema.yml) has a loaded_at_query that returned"
    result = run("build", "-s", "rates", "stg_orders", "-o", "json")
    assert result.exit_code == 0, result.stderr
    assert f"Warning: {problem}" in " ".join(result.stderr.split())
    document = json.loads(result.stdout)
    (warning,) = document["warnings"]
    assert warning.startswith(problem)
    assert warning.endswith("Return a date or timestamp")
    (note,) = [
        note for note in json.loads(run("plan", "-s", "stg_orders", "-o", "json").stdout)["notes"] if problem in note
    ]
    assert note == warning
    with shop.instance() as instance:
        events = [entry.dagster_event for entry in instance.all_logs(document["run_id"]) if entry.dagster_event]
    ends = [event for event in events if SOURCE_PROBLEMS_KEY in metadata_of_engine_event(event)]
    assert [problem in event.message for event in ends] == [True]


def test_what_is_reset_is_planned_and_the_whole_only_when_confirmed(run):
    assert run("reset", input="n\n").exit_code == 1
    assert json.loads(run("reset", "-s", "rates", "-o", "json").stdout) == {"forgotten": [RATES]}
    assert "There was nothing to forget" in run("reset", "-s", "rates").stdout
    document = json.loads(run("plan", "-s", "rates", "--no-refresh-sources", "-o", "json").stdout)
    assert document["decisions"][0]["reason"] == "never_built"


def test_definitions_in_a_file_a_module_and_pyproject_are_found(shop, tmp_path, monkeypatch):
    code = f"""
from dagster_dbt import DbtProject
from dagster_sao import build_state_aware_definitions

defs = build_state_aware_definitions(DbtProject({str(shop.project_dir)!r}))
"""
    (tmp_path / "corner_definitions.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "pyproject.toml").write_text('[tool.dagster]\nmodule_name = "corner_definitions"\n')
    for which in (["-f", "corner_definitions.py"], ["-m", "corner_definitions"], []):
        result = CliRunner().invoke(main, ["state", "orders", *which, "-o", "json"])
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout)["build"]["run_id"]


@pytest.mark.slow
def test_another_target_is_another_environment(shop, run):
    profiles = shop.project_dir / "profiles.yml"
    text = profiles.read_text()
    profiles.write_text(text + "    ci: {type: duckdb, path: \"{{ env_var('CORNER_SHOP_DATABASE') }}\", schema: ci}\n")
    try:
        document = json.loads(run("plan", "-s", "orders", "-t", "ci", "-o", "json").stdout)
    finally:
        profiles.write_text(text)
    assert [row["reason"] for row in document["decisions"]] == ["never_built"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_an_interrupted_build_ends_its_run(shop, tmp_path, name):
    command = [sys.executable, "-c", "from dagster_sao.cli import main; main()", "build", "--select", "fragile"]
    environment = environment_for(tmp_path, **shop.environment, CORNER_SHOP_NUMBER=name)
    process = subprocess.Popen(
        # It waits an hour before it tries the broken model again.
        [*command, "--force", "fragile", "--retries", "1", "--retry-delay", "3600"],
        cwd=shop.project_dir,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert any(line.startswith("error fragile") for line in process.stderr)
        process.send_signal(getattr(signal, name))
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 1
    assert "Traceback" not in told
    with shop.instance() as instance:
        assert instance.get_runs(limit=1)[0].is_finished


@pytest.mark.parametrize("output", [pytest.param("text", marks=pytest.mark.slow), "json"])
def test_a_real_process_keeps_stdout_clean(shop, output, tmp_path):
    command = [sys.executable, "-c", "from dagster_sao.cli import main; main()", "build", "--select", "rates"]
    done = subprocess.run(
        [*command, "--force", "rates", "--output", output],
        cwd=shop.project_dir,
        env=environment_for(tmp_path, **shop.environment),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "success rates" in done.stderr
    if output == "json":
        assert json.loads(done.stdout)["counts"] == {"success": 1}
    else:
        assert done.stdout.startswith("1 success in")
        assert len(done.stdout.splitlines()) == 1
