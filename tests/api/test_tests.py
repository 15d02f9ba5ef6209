"""What plan, build, explain and state report about tests, on a view whose test fails."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace

import duckdb
import pytest
from click.testing import CliRunner
from dagster_dbt import DagsterDbtTranslatorSettings
from dbt.artifacts.schemas.run import RunResultsArtifact

from dagster_sao import StateAwareDbtTranslator
from dagster_sao.api import TestStatus
from dagster_sao.cli import main
from dagster_sao.core.state.state import VerdictStatus
from dbt_dagster_sao.data_tests.handover import How
from tests.support.corner_shop import BELOW, FRAGILE, ORDERS, RATES, STG, TOTALS, open_shop
from tests.support.parsing import parsing_here

SCHEMA = """
sources:
  - name: raw
    schema: raw
    tables:
      - name: orders
        config: {loaded_at_query: "select max(loaded_at) from {{ this }}"}
        columns:
          - name: id
            data_tests: [{not_null: {name: has_id}}]
models:
  - name: stg_orders
    columns:
      - name: amount
        data_tests: [{not_null: {name: has_amount}}]
  - name: orders
    columns:
      - name: id
        data_tests: [{unique: {name: one_row_each, config: {severity: warn}}}]
seeds:
  - name: rates
    columns:
      - name: rate
        data_tests: [{not_null: {name: has_rate}}]
unit_tests:
  - name: keeps_amounts
    model: orders
    given:
      - input: ref('stg_orders')
        rows: [{id: 1, amount: 2}]
    expect:
      rows: [{id: 1, amount: 2}]
"""
TWO_NULLS = """
insert into raw.orders values
    (2, null, timestamp '2026-01-02 10:00:00'), (3, null, timestamp '2026-01-02 10:00:00')
"""
REPAIRED = "update raw.orders set amount = 1, loaded_at = timestamp '2026-01-03 10:00:00' where amount is null"
GOT_TWO = "Got 2 results, configured to fail if != 0"
HELD = {ORDERS, FRAGILE, TOTALS, BELOW}


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A plan, a build whose test fails, the same again, all questions then, and a build of repaired rows without checks."""
    shop = open_shop(tmp_path_factory.mktemp("audited"))
    (shop.project_dir / "models" / "schema.yml").write_text(SCHEMA)
    told = SimpleNamespace(shop=shop)

    def execute(statement):
        with closing(duckdb.connect(str(shop.database))) as connection:
            connection.execute(statement)

    def command(*args):
        name, *rest = args
        return CliRunner().invoke(main, [name, "--project-dir", str(shop.project_dir), *rest], catch_exceptions=False)

    execute(TWO_NULLS)
    with pytest.MonkeyPatch.context() as patch, shop.instance() as instance, parsing_here():
        for name, value in shop.environment.items():
            patch.setenv(name, value)
        patch.setenv("COLUMNS", "160")
        project = shop.project(instance)
        told.first_plan = project.plan()
        told.build = command("build", "-o", "json")
        told.written = (shop.project_dir / "target" / "run_results.json").read_text()
        told.again = project.build(raise_on_failure=False)
        told.written_again = (shop.project_dir / "target" / "run_results.json").read_text()
        told.second = command("build", "--quiet")
        told.plan = project.plan()
        told.node, told.test = project.explain("orders"), project.explain("has_amount")
        told.unit_test = project.explain("keeps_amounts")
        told.state, told.verdict, told.states = (
            project.state("stg_orders"),
            project.state("has_amount"),
            project.states(),
        )
        told.pages = {
            name: str(getattr(told, name))
            for name in ("plan", "node", "test", "unit_test", "state", "verdict", "states")
        }
        execute(REPAIRED)
        settings = DagsterDbtTranslatorSettings(enable_asset_checks=False)
        unchecked = shop.project(instance, translator=StateAwareDbtTranslator(settings=settings))
        told.unchecked = unchecked.build()
        told.after = unchecked.explain("has_amount")
    return told


@pytest.fixture(autouse=True)
def environment(told, monkeypatch):
    """The variables of the audited shop in place of those of the corner shop."""
    for name, value in told.shop.environment.items():
        monkeypatch.setenv(name, value)


def by_name(results):
    return {test.name: test for test in results.tests.values()}


def test_a_plan_tells_which_tests_would_be_run_and_in_which_order(told):
    plan = told.first_plan
    assert set(plan.test_runs) == set(plan.tests)
    assert len(plan.tests) == 5
    assert {decision.reason.value for decision in plan.tests.values()} == {"never_run"}
    assert plan.summary().endswith("; 5 of 5 tests to run")
    assert "Not run before in this environment" in str(plan)
    order = [uid.split(".")[2] for uid in plan.to_dict()["order"]]
    assert order.index("stg_orders") < order.index("has_amount") < order.index("orders")


def test_a_failing_test_fails_the_build_and_holds_what_it_gates(told):
    assert told.build.exit_code == 1
    document = json.loads(told.build.stdout)
    assert not document["success"]
    nodes = {node["unique_id"]: node for node in document["nodes"]}
    assert nodes[STG]["status"] == "success"
    assert {uid for uid, node in nodes.items() if node["status"] == "held"} == HELD
    assert {nodes[uid]["message"] for uid in HELD} == {"Upstream test failed: has_amount"}
    tests = {test["name"]: test for test in document["tests"]}
    assert tests["has_amount"]["status"] == tests["has_amount"]["verdict"] == "fail"
    assert (tests["has_amount"]["failures"], tests["has_amount"]["message"]) == (2, GOT_TWO)
    assert tests["has_id"]["status"] == "pass"
    assert document["test_counts"]["fail"] == 1


def test_a_build_ends_with_what_failed_and_not_with_what_is_held_for_it(told):
    assert f"has_amount: {GOT_TWO}" in told.build.stderr.splitlines()
    assert "fail has_amount (2 rows)." in told.build.stderr
    (line,) = told.second.stderr.splitlines()
    assert line.startswith("has_amount: Failed ")


def test_a_verdict_that_stands_is_reused_and_fails_the_build_again(told):
    results = told.again
    test = by_name(results)["has_amount"]
    assert (test.status, test.verdict, test.failures) == (TestStatus.REUSED, VerdictStatus.FAIL, 2)
    assert test.message.startswith("Failed ")
    assert not results.success
    assert results.failing_tests == [test]
    assert results.culprits == []
    assert {uid for uid, node in results.items() if node.status.value == "held"} == HELD
    assert by_name(results)["one_row_each"].status is TestStatus.SKIPPED
    assert "tests: 1 pass, 3 reused, 1 skipped" in results.summary()
    assert "has_amount" in str(results)
    assert told.second.exit_code == 1


def test_a_reused_verdict_is_no_new_pass_to_dbts_tools(told):
    entries = {entry["unique_id"].split(".")[2]: entry for entry in json.loads(told.written)["results"]}
    again = {entry["unique_id"].split(".")[2]: entry for entry in json.loads(told.written_again)["results"]}
    assert (entries["has_amount"]["status"], entries["has_amount"]["failures"]) == ("fail", 2)
    assert (again["has_id"]["status"], again["has_amount"]["status"]) == ("skipped", "skipped")
    assert again["has_id"]["message"].startswith("Passed ")
    assert again["has_id"]["message"].endswith(" ago on the same code and data")


def test_dbt_reads_the_run_results_with_failing_tests(told, tmp_path):
    path = tmp_path / "run_results.json"
    path.write_text(told.written)
    assert RunResultsArtifact.read_and_check_versions(str(path)).results


def test_a_plan_shows_the_tests_that_fail_and_counts_the_others(told):
    plan = told.plan
    (failing,) = (test for test in plan.to_dict()["tests"] if test["name"] == "has_amount")
    assert (failing["action"], failing["reason"]) == ("reuse", "same_data")
    assert failing["eligible_at"]
    assert plan.test_runs == []
    page = told.pages["plan"]
    assert "has_amount" in page
    assert "Upstream test failed: has_amount" in page
    assert "has_id" not in page
    assert "3 tests reused" in page


def test_an_explanation_of_a_node_tells_its_tests_and_what_holds_it(told):
    node = told.node
    assert {test.state.name for test in node.tests} == {"one_row_each", "keeps_amounts"}
    assert [test.state.name for test in node.held_by] == ["has_amount"]
    assert {"has_amount", "has_id", "keeps_amounts"} == set(node.gated_by.values())
    page = told.pages["node"]
    assert "Now: hold. Upstream test failed: has_amount" in page
    assert "Gated by 3 tests:" in page
    assert "(2 rows)" in page
    assert node.to_dict()["held_by"] == [told.test.unique_id]


def test_an_explanation_of_a_test_tells_its_verdict_its_versions_and_what_it_holds(told):
    test = told.test
    assert (test.name, test.severity, test.unit_test_of, test.code_changes) == ("has_amount", "error", "", ())
    assert [(read.name, read.changed) for read in test.reads] == [("stg_orders", False)]
    assert {node.unique_id for node in test.gates if node.is_held} == HELD
    page = told.pages["test"]
    assert "Now: reuse. Failed " in page
    assert "Next eligible: " in page
    assert "(2 rows). May be tried again at" in page
    assert "Holds 4 nodes:" in page
    assert set(test.to_dict()["holds"]) == HELD
    assert told.unit_test.unit_test_of == "orders"
    assert "Unit test of orders" in told.pages["unit_test"]


@pytest.mark.parametrize(
    ("how", "proof", "line"),
    [
        (How.RUN, "", ""),
        (How.MERGED, "", "One query answered it together with other tests"),
        (
            How.PROVEN,
            "not_null(amount) holds: raw.orders.amount is not null",
            "Proven, not run: not_null(amount) holds:",
        ),
    ],
)
def test_an_explanation_of_a_test_tells_how_its_answer_was_found(told, how, proof, line):
    verdict = replace(told.verdict.verdict, status=VerdictStatus.PASS, how=how, proof=proof)
    explanation = replace(told.test, state=replace(told.verdict, verdict=verdict))
    found = [text for text in str(explanation).splitlines() if text.startswith(("One query", "Proven"))]
    assert [text.startswith(line) for text in found] == ([True] if line else [])
    state = explanation.to_dict()["state"]
    assert (state["how"], state["proof"]) == (how.value, proof or None)


def test_a_state_lists_verdicts_and_what_fails(told):
    (entry,) = told.state.to_dict()["tests"]
    assert (entry["status"], entry["failures"], entry["attempts"]) == ("fail", 2, 1)
    assert entry["versions"].keys() == {STG}
    assert entry["run_id"] == json.loads(told.build.stdout)["run_id"]
    assert entry == told.verdict.to_dict()
    assert "May be tried again at" in told.pages["verdict"]
    assert " ago (2 rows)" in told.pages["states"]
    assert "has_amount" in told.pages["state"]
    assert [test.name for test in told.states.tests] == ["has_id"]


def test_tests_that_dagster_does_not_show_have_results_too(told):
    results = told.unchecked
    assert results.success
    assert {test.name: test.status.value for test in results.tests.values()} == {
        "has_id": "pass",
        "has_amount": "pass",
        "one_row_each": "pass",
        "has_rate": "reused",
        "keeps_amounts": "reused",
    }
    assert results[ORDERS].status.value == "success"
    assert results[RATES].status.value == "reused"
    assert told.after.reads[0].changed is False
    assert not any(node.is_held for node in told.after.gates)
