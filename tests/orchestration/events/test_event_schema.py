"""What one process writes into an event, any other reads: also an older event, or a newer one."""

from __future__ import annotations

from datetime import timedelta

import dagster as dg
import pytest

from dagster_sao.core.decision.decide import Action, Decision, Reason
from dagster_sao.core.state.state import FailedAttempt
from dagster_sao.orchestration.events import event_schema
from dagster_sao.orchestration.events.event_schema import (
    GivenNode,
    NodeEvent,
    Outcome,
    ReusedNode,
    build_metadata,
    decided_metadata,
    failure_metadata,
    given_metadata,
    given_nodes,
    node_event,
    outcome_metadata,
    reused_metadata,
    reused_nodes,
    run_end_metadata,
    source_problems_of_run,
)
from tests.orchestration.events.test_record_json import BUILD
from tests.orchestration.shops import NOW

DECISION = Decision(Action.BUILD, Reason.NEW_DATA, "1 upstream has changed")

# What is stored in event logs: a name or value that changes here is one that nobody finds again.
STORED_OUTCOMES = {
    "BUILT": "build",
    "REUSED": "reused",
    "HELD": "hold",
    "SKIPPED": "skip",
    "FAILED": "failed",
    "WAITS": "waits",
    "STARTS": "starts",
    "LOST": "lost",
    "NOTICED": "noticed",
}
STORED_KEYS = {
    "DECISION_KEY": "dagster_sao/decision",
    "REASON_KEY": "dagster_sao/reason",
    "REASON_CODE_KEY": "dagster_sao/reason_code",
    "SECONDS_SAVED_KEY": "dagster_sao/seconds_saved",
    "DURATION_KEY": "dagster_sao/duration_seconds",
    "BUILD_KEY": "dagster_sao/build",
    "ELSEWHERE_KEY": "dagster_sao/builds_elsewhere",
    "FAILURE_KEY": "dagster_sao/failure",
    "VERDICT_AT_KEY": "dagster_sao/verdict_at",
    "VERDICT_RUN_KEY": "dagster_sao/verdict_run",
    "FAILED_ROWS_KEY": "dagster_dbt/failed_row_count",
    "HOW_KEY": "dagster_sao/how",
    "MERGED_KEY": "dagster_sao/tests_in_query",
    "QUERY_SECONDS_KEY": "dagster_sao/query_seconds",
    "PROOF_KEY": "dagster_sao/proof",
    "PROBE_KEY": "dagster_sao/probe",
    "PROBE_SECONDS_KEY": "dagster_sao/probe_seconds",
    "HISTORY_KEY": "dagster_sao/history",
    "LOADED_AT_KEY": "dagster_sao/max_loaded_at",
    "AGE_KEY": "dagster_sao/age_seconds",
    "MEASURED_FROM_KEY": "dagster_sao/measured_from",
    "WARN_AFTER_KEY": "dagster_sao/warn_after",
    "ERROR_AFTER_KEY": "dagster_sao/error_after",
    "WARN_AFTER_SECONDS_KEY": "dagster_sao/warn_after_seconds",
    "ERROR_AFTER_SECONDS_KEY": "dagster_sao/error_after_seconds",
    "REMAINING_KEY": "dagster_sao/remaining_seconds",
    "STALE_AT_KEY": "dagster_sao/stale_at",
    "_GIVEN_TO_DBT_KEY": "dagster_sao/given_to_dbt",
    "_INTERRUPTIONS_KEY": "dagster_sao/interruptions",
    "SOURCE_PROBLEMS_KEY": "dagster_sao/source_problems",
    "REUSED_KEY": "dagster_sao/reused",
    "TESTS_KEY": "dagster_sao/tests",
    "PROJECT_METADATA_KEY": "dagster_sao/project",
    "DATA_VERSION_TAG": "dagster/data_version",
    "PROJECT_TAG": "dagster_sao/project",
    "CONDITION_TAG": "dagster_sao/requested_by_condition",
    "TESTS_TAG": "dagster_sao/tests",
    "CARRIERS_TAG": "dagster_sao/carriers",
    "_UNSETTLED_TAG": "dagster_sao/unsettled.",
}


def test_outcomes_keep_the_values_that_are_stored():
    assert {outcome.name: outcome.value for outcome in Outcome} == STORED_OUTCOMES


def test_keys_and_tags_keep_the_names_that_are_stored():
    found = {name: value for name, value in vars(event_schema).items() if name.endswith(("_KEY", "_TAG"))}
    assert found == STORED_KEYS


@pytest.mark.parametrize("outcome", Outcome)
def test_only_an_outcome_that_tells_what_became_of_a_node_is_final(outcome):
    on_the_way = {Outcome.WAITS, Outcome.STARTS, Outcome.LOST, Outcome.NOTICED}
    assert outcome.is_final == (outcome not in on_the_way)


@pytest.mark.parametrize("action", Action)
def test_each_decision_has_an_outcome(action):
    assert Outcome.of(action).is_final


def test_a_build_is_read_as_it_was_written():
    found = node_event(build_metadata(DECISION, BUILD, invocation_id="i"))
    assert (found.outcome, found.message, found.reason_code) == (Outcome.BUILT, DECISION.message, "new_data")
    assert (found.seconds, found.build["invocation_id"], found.has_failed) == (3.25, "i", False)


def test_a_reused_node_is_read_as_it_was_written():
    found = node_event(decided_metadata(Outcome.REUSED, DECISION, seconds_saved=3.0))
    assert found == NodeEvent(Outcome.REUSED, DECISION.message, "new_data", 0.0, {}, has_failed=False)


def test_what_a_run_reuses_is_one_event_and_read_as_it_was_written():
    nodes = [
        ReusedNode("model.a", "no_new_data", "No new changes on any upstreams", 3.0),
        ReusedNode("model.b", "no_new_data", "No new changes on any upstreams"),
        ReusedNode("model.v", "view_current", "View reads current data", 0.5),
    ]
    assert list(reused_nodes(reused_metadata(nodes))) == nodes
    assert list(reused_nodes(outcome_metadata(Outcome.FAILED, "broken"))) == []


def test_a_failure_is_read_as_it_was_written():
    record = failure_metadata(FailedAttempt(NOW, 1), "")
    found = node_event({**outcome_metadata(Outcome.FAILED, "broken"), **record})
    assert (found.outcome, found.message, found.has_failed) == (Outcome.FAILED, "broken", True)


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"dagster_sao/decision": "postponed"},
        {"dagster_sao/decision": dg.MetadataValue.json(["x"]), "dagster_sao/duration_seconds": "long"},
    ],
    ids=["of others", "of another version", "malformed"],
)
def test_an_event_that_cannot_be_read_reports_nothing(metadata):
    found = node_event(metadata)
    assert (found.outcome, found.seconds, found.build, found.has_failed) == (None, 0.0, {}, False)


def test_what_a_run_gives_to_dbt_is_read_as_it_was_written():
    given = [GivenNode("model.a", "run 2026", "origin", 2, 3), GivenNode("model.b", "")]
    assert list(given_nodes(given_metadata(given))) == given
    failure = given[0].failure(NOW)
    assert (failure.failed_at, failure.attempts, failure.origin) == (NOW, 2, "origin")
    assert (failure.after, failure.sequence) == ("run 2026", 3)


def test_a_given_node_without_its_interruption_counts_as_a_first_attempt():
    older = {"dagster_sao/given_to_dbt": dg.MetadataValue.json({"model.a": "mark"})}
    assert list(given_nodes(older)) == [GivenNode("model.a", "mark")]


def test_the_end_of_a_run_is_read_as_it_was_written():
    tests = {"test.a": {"result": "reused", "reason": "same", "status": "pass", "failures": 0}}
    end = run_end_metadata(["raw.orders cannot be probed"], tests)
    assert event_schema.tests_of_run(end) == tests
    assert list(source_problems_of_run(end)) == ["raw.orders cannot be probed"]
    assert (event_schema.tests_of_run({}), list(source_problems_of_run({}))) == ({}, [])


def test_the_duration_of_a_build_is_in_its_event():
    assert build_metadata(DECISION, BUILD)["dagster_sao/duration_seconds"] == timedelta(seconds=3.25).total_seconds()
