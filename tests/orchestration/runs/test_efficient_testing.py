"""Runs whose data tests are answered with fewer queries, with real dbt on DuckDB: the same answers, and how each was found."""

from __future__ import annotations

import json
from contextlib import closing
from types import SimpleNamespace

import dagster as dg
import duckdb
import pytest
from dagster_dbt import DbtProject

from dagster_sao import DbtBuildFailed, StateAwareProject, build_state_aware_definitions
from dagster_sao.core.state.state import VerdictStatus
from dagster_sao.orchestration.events.event_schema import HOW_KEY, MERGED_KEY, PROOF_KEY
from tests.conftest import run_dbt

pytestmark = pytest.mark.slow

PROJECT = """
name: shop
profile: shop
flags: {send_anonymous_usage_stats: false}
models: {shop: {+materialized: table}}
"""
PROFILE = "shop: {target: dev, outputs: {dev: {type: duckdb, path: 'DATABASE', threads: 3}}}"
MODELS = {
    "stg_orders": "select * from {{ source('raw', 'orders') }}",
    "stg_customers": "select * from {{ source('raw', 'customers') }}",
    "orders": """
        select o.order_id, c.customer_id, o.status
        from {{ ref('stg_orders') }} as o
        left join {{ ref('stg_customers') }} as c on o.customer_id = c.customer_id
    """,
    "below": "select order_id from {{ ref('orders') }}",
}
SCHEMA = """
sources:
  - name: raw
    schema: raw
    tables:
      - {name: orders, config: {loaded_at_query: "select max(loaded_at) from raw.loads"}}
      - {name: customers, config: {loaded_at_query: "select max(loaded_at) from raw.loads"}}
models:
  - name: stg_orders
    columns:
      - {name: order_id, data_tests: [unique: {name: order_ids}, not_null: {name: orders_have_ids}]}
      - name: status
        data_tests:
          - accepted_values: {name: statuses, arguments: {values: [new, paid]}}
          - accepted_values: {name: all_paid, arguments: {values: [paid]}, config: {severity: warn}}
      - name: customer_id
        data_tests:
          - relationships: {name: of_customers, arguments: {to: ref('stg_customers'), field: customer_id}}
          - not_null: {name: some_customers, config: {where: "status = 'paid'", store_failures: true}}
  - name: stg_customers
    columns:
      - {name: customer_id, data_tests: [unique: {name: customer_ids}, not_null: {name: customers_have_ids}]}
  - name: orders
    columns:
      - {name: order_id, data_tests: [unique: {name: ids_of_joined}]}
      - {name: customer_id, data_tests: [not_null: {name: customers_of_joined}]}
"""
LOAD = """
create schema raw;
create table raw.loads as select timestamp '2026-01-01 10:00:00' as loaded_at;
create table raw.orders (order_id int, customer_id int, status text);
create table raw.customers (customer_id int);
insert into raw.orders values (1, 1, 'new'), (2, 1, 'paid'), (3, 2, 'paid');
insert into raw.customers values (1), (2);
"""
MERGED = {"order_ids", "orders_have_ids", "statuses", "customer_ids", "customers_have_ids"}


class Shop:
    """The project in a folder, and its Dagster instance."""

    def __init__(self, folder, schema=SCHEMA):
        self.folder, self.database = folder, folder / "shop.duckdb"
        (folder / "models").mkdir()
        (folder / "dbt_project.yml").write_text(PROJECT)
        (folder / "profiles.yml").write_text(PROFILE.replace("DATABASE", str(self.database)))
        (folder / "models" / "schema.yml").write_text(schema)
        for name, sql in MODELS.items():
            (folder / "models" / f"{name}.sql").write_text(sql)
        self.execute(LOAD)
        run_dbt(folder, "parse", "--target-path", str(folder / "target"))
        (folder / "home").mkdir()
        self.instance = dg.DagsterInstance.local_temp(str(folder / "home"))

    def execute(self, statements):
        with closing(duckdb.connect(str(self.database))) as connection:
            return connection.execute(statements).fetchall()

    def load(self, statements):
        self.execute(f"{statements}; insert into raw.loads select max(loaded_at) + interval 1 hour from raw.loads")

    def build(self, **options):
        # No proof is verified by chance.
        definitions = build_state_aware_definitions(DbtProject(self.folder), verify_proofs=0)
        project = StateAwareProject.from_definitions(definitions, instance=self.instance)
        try:
            results = project.build(**options)
        except DbtBuildFailed as failure:
            results = failure.results
        written = json.loads((self.folder / "target" / "run_results.json").read_text())["results"]
        checks = {}
        for key in self.instance.event_log_storage.get_latest_asset_check_execution_by_key(
            [*project.orchestrated.load().check_keys.values()]
        ).values():
            if key.event.dagster_event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION:
                evaluation = key.event.dagster_event.asset_check_evaluation_data
                checks[evaluation.check_name] = {name: value.value for name, value in evaluation.metadata.items()}
        return SimpleNamespace(
            results=results,
            status={test.name: test.status.value for test in results.tests.values()},
            failures={test.name: test.failures for test in results.tests.values()},
            how={test.name: test.how for test in results.tests.values()},
            proof={test.name: test.proof for test in results.tests.values()},
            written={result["unique_id"].split(".")[2]: result for result in written},
            checks=checks,
            project=project,
        )

    def events(self, run_id):
        logs = self.instance.all_logs(run_id)
        return [str(entry.dagster_event.message if entry.dagster_event else entry.user_message) for entry in logs]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A first build with merged tests, the same without, both on rows that break some, and the same again."""
    merged, plain = (Shop(tmp_path_factory.mktemp(name).resolve()) for name in ("merged", "plain"))
    told = SimpleNamespace(merged=merged, first=merged.build(), plain_first=plain.build(efficient_testing="off"))
    for shop in (merged, plain):
        shop.load("insert into raw.orders values (3, 9, 'lost'), (null, null, 'paid')")
    told.broken, told.plain_broken = merged.build(), plain.build(efficient_testing="off")
    told.again = merged.build()
    return told


def answers(run):
    return {name: (run.status[name], run.failures[name], run.written[name]["status"]) for name in run.status}


def test_each_test_has_the_answer_that_dbt_gives_when_it_runs_alone(built):
    assert answers(built.first) == answers(built.plain_first)
    assert answers(built.broken) == answers(built.plain_broken)
    found = answers(built.broken)
    assert (found["order_ids"][:2], found["orders_have_ids"][:2]) == (("fail", 1), ("fail", 1))
    assert (found["statuses"][:2], found["all_paid"][:2]) == (("fail", 1), ("warn", 2))


def test_messages_and_stored_failures_are_dbts_own(built):
    for merged, plain in ((built.first, built.plain_first), (built.broken, built.plain_broken)):
        for name, one in merged.written.items():
            if one["status"] not in {"success", "reused"}:
                assert (name, one["message"]) == (name, plain.written[name]["message"])
    assert len(built.merged.execute("select * from main_dbt_test__audit.some_customers")) == 1


def test_the_same_models_are_held(built):
    nodes = [{uid: node.status for uid, node in run.results.items()} for run in (built.broken, built.plain_broken)]
    assert nodes[0] == nodes[1]
    assert {status.value for status in nodes[0].values()} == {"success", "held"}


def test_tests_of_one_relation_share_a_query(built):
    assert {name for name, how in built.first.how.items() if how == "merged"} >= MERGED
    assert {how for name, how in built.plain_first.how.items()} == {"run"}
    assert built.first.how["all_paid"] == built.first.how["some_customers"] == "run"  # it warns; it stores its failures


def test_what_fails_ran_alone_and_what_passes_beside_it_did_not(built):
    assert built.broken.how["order_ids"] == built.broken.how["statuses"] == "run"
    assert built.broken.how["customer_ids"] == "merged"


def test_a_reused_verdict_is_called_reused(built):
    assert {built.again.how[name] for name in ("customer_ids", "order_ids")} == {"reused"}


def test_the_check_in_dagster_says_how_its_answer_was_found(built):
    shared = built.first.checks["order_ids"]
    assert (shared[HOW_KEY], shared[MERGED_KEY] >= 3) == ("merged", True)
    assert built.plain_first.checks["order_ids"][HOW_KEY] == "run"
    assert built.again.checks["customer_ids"][HOW_KEY] == "reused"


def test_the_runs_summary_counts_the_queries_that_were_spared(built):
    (summary,) = [text for text in built.merged.events(built.first.results.run_id) if "; tests: " in text]
    assert "merged)" in summary


def test_explain_and_the_state_tell_how_a_verdict_was_found(built):
    state = built.first.project.state("customer_ids")
    assert state.verdict is not None
    assert (state.to_dict()["how"], state.verdict.status) == ("merged", VerdictStatus.PASS)
    assert "One query answered it together with other tests" in str(built.first.project.explain("customer_ids"))


@pytest.fixture(scope="module")
def proven(tmp_path_factory):
    """A first build with proofs, new customers, and rows that break what a proof relies on."""
    shop = Shop(tmp_path_factory.mktemp("proven").resolve())
    told = SimpleNamespace(shop=shop, first=shop.build(efficient_testing="all"))
    told.only_joined = shop.build(efficient_testing="all", force="orders")
    shop.load("insert into raw.customers values (2)")
    told.broken = shop.build(efficient_testing="all")
    return told


def test_dbts_documented_example_is_proven_and_its_counterpart_runs(proven):
    assert proven.first.how["ids_of_joined"] == "proven"
    assert proven.first.status["ids_of_joined"] == "pass"
    assert proven.first.how["customers_of_joined"] in {"run", "merged"}
    assert "stg_orders.order_id is unique (passed in this run)" in proven.first.proof["ids_of_joined"]
    assert "stg_customers.customer_id, which is unique (passed in this run)" in proven.first.proof["ids_of_joined"]


def test_a_proof_is_in_the_check_and_in_run_results(proven):
    check = proven.first.checks["ids_of_joined"]
    assert (check[HOW_KEY], check[PROOF_KEY]) == ("proven", proven.first.proof["ids_of_joined"])
    entry = proven.first.written["ids_of_joined"]
    assert (entry["status"], entry["failures"]) == ("pass", 0)
    assert proven.first.proof["ids_of_joined"] in entry["adapter_response"]["_message"]


def test_a_proof_relies_on_verdicts_of_earlier_runs_that_stand(proven):
    assert proven.only_joined.how["order_ids"] == "reused"
    assert proven.only_joined.how["ids_of_joined"] == "proven"
    assert f"run {proven.first.results.run_id[:4]})" in proven.only_joined.proof["ids_of_joined"]


def test_nothing_is_proven_from_a_test_that_fails(proven):
    assert proven.broken.status["customer_ids"] == "fail"
    assert proven.broken.how.get("ids_of_joined") != "proven"
    assert "proven" not in set(proven.broken.how.values())
