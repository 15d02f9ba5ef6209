"""How the data tests of a project would be answered: by `StateAwareProject.tests` and `dagster-sao tests`."""

from __future__ import annotations

import json
from contextlib import closing
from types import SimpleNamespace

import dagster as dg
import duckdb
import pytest
from click.testing import CliRunner

from dagster_sao import StateAwareProject
from dagster_sao.api.data_tests.answers import _as_sentence
from dagster_sao.api.data_tests.values import DataTestReports
from dagster_sao.cli import main
from dagster_sao.orchestration.state.contradictions import stop_proofs
from tests.support.parsing import parsing_here

PROJECT = """
name: shop
profile: shop
flags: {send_anonymous_usage_stats: false}
models: {shop: {+materialized: table}}
"""
PROFILE = "shop: {target: dev, outputs: {dev: {type: duckdb, path: 'DATABASE', threads: 2}}}"
FILES = {
    "models/stg_orders.sql": "select order_id, customer_id, status from {{ source('raw', 'orders') }}",
    "models/orders.sql": "select order_id, status from {{ ref('stg_orders') }} where order_id < 1000",
    "models/kept.sql": "{{ config(materialized='incremental') }} select order_id from {{ ref('stg_orders') }}",
    "models/asking.sql": """
        {% if execute %}{% set found = run_query('select * from raw.settings') %}{% endif %}
        select order_id from {{ ref('orders') }}
    """,
    "tests/no_negative_ids.sql": "select * from {{ ref('orders') }} where order_id < 0",
    "models/schema.yml": """
sources:
  - name: raw
    schema: raw
    tables: [{name: orders, config: {loaded_at_query: "select max(loaded_at) from raw.loads"}}]
models:
  - name: stg_orders
    columns:
      - {name: order_id, data_tests: [unique: {name: order_ids}, not_null: {name: orders_have_ids}]}
      - name: status
        data_tests: [accepted_values: {name: statuses, arguments: {values: [new, paid]}}]
  - name: orders
    columns:
      - name: order_id
        data_tests:
          - unique: {name: ids}
          - not_null: {name: have_ids, config: {severity: warn, where: "status = 'paid'"}}
          - not_null: {name: stored, config: {store_failures: true}}
          - unique: {name: never_proven, config: {meta: {dagster_sao: {efficient_testing: aggregate}}}}
      - name: status
        data_tests: [accepted_values: {name: paid, arguments: {values: [paid]}, config: {severity: warn}}]
  - name: kept
    columns: [{name: order_id, data_tests: [unique: {name: kept_ids}]}]
  - name: asking
    columns: [{name: order_id, data_tests: [unique: {name: asked_ids}]}]
unit_tests:
  - name: keeps_ids
    model: orders
    given: [{input: ref('stg_orders'), rows: [{order_id: 1}]}]
    expect: {rows: [{order_id: 1}]}
""",
}
LOAD = """
create schema raw;
create table raw.loads as select timestamp '2026-01-01 10:00:00' as loaded_at;
create table raw.settings as select 1 as setting;
create table raw.orders as select range as order_id, 1 as customer_id, if(range = 1, 'new', 'paid') as status from range(3);
"""
KEPT = "The rows of kept may differ from its query's: it is an incremental model, which keeps rows of earlier builds."


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """The tests before anything was built, and after a build; then a compilation that fails, and a contradicted proof."""
    folder = tmp_path_factory.mktemp("measured").resolve()
    database = folder / "shop.duckdb"
    files = {"dbt_project.yml": PROJECT, "profiles.yml": PROFILE.replace("DATABASE", str(database)), **FILES}
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    home = folder / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")

    def execute(statements):
        with closing(duckdb.connect(str(database))) as connection:
            connection.execute(statements)

    def command(*args):
        return CliRunner().invoke(main, ["tests", "--project-dir", str(folder), *args], catch_exceptions=False)

    execute(LOAD)
    told = SimpleNamespace(folder=folder)
    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.from_config(str(home)) as instance:
        patch.setenv("DAGSTER_HOME", str(home))
        with parsing_here():
            project = StateAwareProject(folder, instance=instance)
        told.before = project.tests()
        told.files_left = {path.name for path in (folder / "target").iterdir()}
        told.run_id = project.build(efficient_testing="off").run_id
        stop_proofs(instance, project.orchestrated.state_name, print, "ids", "unique(order_id) holds: by mistake")
        told.after = command("--select", "orders", "-o", "json")
        told.trusted = command("--select", "orders", "--trust-proofs")
        execute("drop table raw.settings")
        told.failing = command("--select", "asking")
    return told


def by_name(reports):
    return {report.name: report for report in reports}


def test_every_data_test_of_the_selection_has_a_row_and_no_unit_test(told):
    assert set(by_name(told.before)) == {
        *("order_ids", "orders_have_ids", "statuses", "ids", "have_ids", "stored", "never_proven", "paid"),
        *("kept_ids", "asked_ids", "no_negative_ids"),
    }
    assert {test["name"] for test in json.loads(told.after.stdout)["tests"]} == {
        *("ids", "have_ids", "stored", "never_proven", "paid", "no_negative_ids")
    }


def test_what_follows_from_tests_upstream_is_proven_as_if_they_passed(told):
    found = by_name(told.before)
    assert (found["ids"].how.value, found["ids"].why_not) == ("proven", "")
    assert "stg_orders.order_id is unique (if it passes)" in found["ids"].proof
    assert found["have_ids"].how.value == "proven"
    assert found["ids"].model == "model.shop.orders"


def test_a_recorded_verdict_is_named_with_its_run(told):
    document = json.loads(told.after.stdout)
    (ids,) = (test for test in document["tests"] if test["name"] == "ids")
    assert ids["how"] == "proven"
    assert f", run {told.run_id[:4]})" in ids["proof"]
    assert (ids["decision"], ids["reason"]) == ("reuse", "same_data")
    assert ids["message"].startswith("Passed ")
    assert (ids["merged_with"], ids["why_not"]) == (0, None)


def test_the_others_are_merged_with_the_tests_of_their_relation(told):
    found = by_name(told.before)
    merged = {name for name, report in found.items() if report.how.value == "merged"}
    assert merged == {"order_ids", "orders_have_ids", "statuses", "never_proven", "paid", "no_negative_ids"}
    assert {found[name].merged_with for name in merged} == {2}
    assert told.before.queries == 2 + sum(report.how.value == "run" for report in told.before)


@pytest.mark.parametrize(
    ("name", "why_not"),
    [
        ("stored", "The test stores its failures."),
        ("kept_ids", KEPT),
        ("never_proven", "Its own efficient_testing setting allows no proof."),
        ("no_negative_ids", "The test is not about one model."),
    ],
)
def test_each_test_that_is_not_proven_says_why_in_one_sentence(told, name, why_not):
    assert by_name(told.before)[name].why_not == why_not


def test_every_reason_is_a_sentence(told):
    assert all(bool(report.why_not) == (report.how.value != "proven") for report in told.before)
    assert all(report.why_not.endswith(".") for report in told.before if report.why_not)
    assert by_name(told.before)["paid"].why_not == "status could be 'new'."
    assert _as_sentence("the test has a limit") == "The test has a limit."


def test_the_decision_is_the_plans(told):
    assert {(report.decision.action.value, report.decision.message) for report in told.before} == {
        ("run", "Not run before in this environment")
    }


def test_the_last_line_counts(told):
    assert told.before.summary().startswith("shop: 11 data tests. Now: 11 run. If rebuilt: 6 merged, ")
    text = told.trusted.stdout
    assert (
        text.splitlines()[-1] == "shop: 6 data tests. Now: 6 reuse. If rebuilt: 3 merged, 2 proven, 1 run, so 2 queries"
    )
    assert json.loads(told.after.stdout)["counts"] == {
        "now": {"reuse": 6},
        "if_rebuilt": {"merged": 3, "proven": 2, "run": 1},
        "queries": 2,
    }


def test_the_table_shows_the_proof_and_the_reason(told):
    page = " ".join(told.trusted.stdout.split())
    assert "if its model were rebuilt" in page
    assert "merged with 2 others" in page
    assert "The test stores its failures." in page
    assert "proven. unique(order_id) holds:" in page


def test_a_contradicted_proof_is_shown_until_proofs_are_trusted_again(told):
    noted = json.loads(told.after.stdout)["contradiction"]
    assert noted.startswith("ids failed, although it was proven: unique(order_id) holds: by mistake.")
    assert told.trusted.stderr.startswith(f"Proofs are trusted again. {noted[:30]}")
    assert "although" not in told.trusted.stdout


def test_what_dbt_cannot_compile_is_one_sentence(told):
    assert told.failing.exit_code == 2
    (line,) = told.failing.stderr.splitlines()
    assert line.startswith(f"Error: dbt cannot compile the project in {told.folder}: ")
    assert "settings" in line


def test_the_projects_target_folder_has_nothing_of_the_compilation(told):
    assert "compiled" not in told.files_left


def test_a_selection_without_tests_is_a_count():
    assert str(DataTestReports("shop", (), 0)) == "shop: 0 data tests"
