"""A proof that its own test contradicts, in real runs: an error, no more proofs, and how that ends."""

from __future__ import annotations

import logging
import os
from contextlib import closing
from types import SimpleNamespace

import dagster as dg
import duckdb
import pytest
from dagster_dbt import DbtProject

from dagster_sao import DbtBuildFailed, StateAwareProject, build_state_aware_definitions
from tests.conftest import run_dbt

FILES = {
    "dbt_project.yml": "{name: shop, profile: shop, models: {+materialized: table}, flags: {send_anonymous_usage_stats: false}}",
    "profiles.yml": "shop: {target: dev, outputs: {dev: {type: duckdb, path: 'FOLDER/shop.duckdb', threads: 1}}}",
    "models/orders.sql": "select id from {{ source('raw', 'orders') }}",
    "models/twins.sql": "select id from {{ source('raw', 'orders') }}",
    "models/schema.yml": """
sources: [{name: raw, schema: raw, tables: [{name: orders}]}]
models:
  - name: orders
    columns: [{name: id, data_tests: [not_null: {name: a_have_ids}, unique: {name: b_ids}, not_null: {name: c_have_ids}]}]
  - {name: twins, columns: [{name: id, data_tests: [unique: {name: d_ids}]}]}
""",
}
# dbt imports each module whose name begins so, as it does with this package's.
MISTAKE = """
from dagster_sao.sql.proofs import Proof, QueryProofs

plugins = []
QueryProofs.prove = lambda self, wanted, where="": Proof(f"{wanted} holds: by mistake", frozenset())
"""
SENTENCE = (
    "b_ids failed, although it was proven: unique(id) holds: by mistake. Please report this as a bug of dagster_sao. Until you"
    " install another version or run `dagster-sao tests --trust-proofs`, this project's tests are no longer proven, but run."
)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A run that verifies all proofs, one after the contradiction, and one once proofs are trusted again."""
    folder, plugin = (tmp_path_factory.mktemp(name).resolve() for name in ("mistaken", "plugin"))
    for name, content in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content.replace("FOLDER", str(folder)))
    (plugin / "dbt_with_a_mistake.py").write_text(MISTAKE)
    with closing(duckdb.connect(str(folder / "shop.duckdb"))) as connection:
        connection.execute("create schema raw; create table raw.orders as select 1 as id from range(2)")
    run_dbt(folder, "parse", "--target-path", str(folder / "target"))
    told = SimpleNamespace()

    def build(share, **options):
        definitions = build_state_aware_definitions(DbtProject(folder), efficient_testing="all", verify_proofs=share)
        project = StateAwareProject.from_definitions(definitions, instance=instance)
        try:
            results = project.build(**options)
        except DbtBuildFailed as failure:
            results = failure.results
        logs = [
            (entry.level, str(entry.dagster_event.message if entry.dagster_event else entry.user_message))
            for entry in instance.all_logs(results.run_id)
        ]
        return SimpleNamespace(
            project=project,
            how={test.name: (test.status.value, test.how) for test in results.tests.values()},
            errors=[text for level, text in logs if level == logging.ERROR and "b_ids failed" in text],
            warnings=[text for level, text in logs if level == logging.WARNING],
            summary=next(text for _, text in logs if "; tests: " in text),
        )

    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(plugin), os.environ.get("PYTHONPATH", "")]))
        told.mistaken = build(0.0)
        told.first = build(1.0, force="orders")
        told.second = build(0.0)
        told.ended = told.second.project.trust_proofs()
        told.third = build(0.0, force="orders")
    return told


def test_a_wrong_proof_would_pass(told):
    assert set(told.mistaken.how.values()) == {("pass", "proven")}


def test_a_proven_test_that_runs_and_fails_is_an_error_that_names_the_proof(told):
    assert told.first.how["b_ids"] == ("fail", "run")
    assert told.first.errors == [SENTENCE]


def test_nothing_more_is_proven_in_that_run(told):
    assert "proven" not in {how for _, how in told.first.how.values()}
    # With one thread in the order of their names, so the last was not even verified.
    assert "; verified proofs: 2, contradicted: 1" in told.first.summary


def test_the_next_run_proves_nothing_and_warns(told):
    assert SENTENCE in told.second.warnings
    assert told.second.errors == []
    assert "proven" not in {how for _, how in told.second.how.values()}


def test_what_was_proven_before_is_run_in_the_next_run(told):
    assert told.first.how["d_ids"] == ("reused", "reused")  # of a model that was not built
    assert told.second.how["d_ids"] == ("fail", "run")
    assert {told.second.how[name][0] for name in ("a_have_ids", "b_ids", "c_have_ids")} == {"reused"}


def test_proofs_that_are_trusted_again_are_used_again(told):
    assert told.ended == SENTENCE
    assert {told.third.how[name] for name in ("a_have_ids", "b_ids", "c_have_ids")} == {("pass", "proven")}
    assert SENTENCE not in told.third.warnings
