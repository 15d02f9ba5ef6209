"""The vocabulary of events: every metadata key, tag and outcome, with one writer and one reader for each kind of event.

The values under these keys are stored for good, so a name or value here never changes. The JSON of whole records is in
`record_json`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum
from typing import Any, TypedDict

import dagster as dg

from dagster_sao.core.decision.decide import Action, Decision
from dagster_sao.core.decision.decide_tests import TestAction, TestDecision
from dagster_sao.core.state.state import FailedAttempt, LastBuild, Verdict
from dagster_sao.orchestration.events.record_json import build_to_json, failure_to_json
from dbt_dagster_sao.data_tests.handover import AnsweredTest, How

# Keys of events about nodes.
DECISION_KEY = "dagster_sao/decision"
"""An `Outcome`; with the result of a test, a `TestAction`."""
REASON_KEY = "dagster_sao/reason"
REASON_CODE_KEY = "dagster_sao/reason_code"
SECONDS_SAVED_KEY = "dagster_sao/seconds_saved"
DURATION_KEY = "dagster_sao/duration_seconds"
BUILD_KEY = "dagster_sao/build"
ELSEWHERE_KEY = "dagster_sao/builds_elsewhere"
"""With a build: the last builds of the node in the other targets of the profile, by target."""
FAILURE_KEY = "dagster_sao/failure"

# Keys of events about tests.
VERDICT_AT_KEY = "dagster_sao/verdict_at"
VERDICT_RUN_KEY = "dagster_sao/verdict_run"
"""With the result of a test that was not run: when, and by which run, it was computed."""
FAILED_ROWS_KEY = "dagster_dbt/failed_row_count"
"""As dagster-dbt names it."""

HOW_KEY = "dagster_sao/how"
"""How its answer was found: a `How`."""
MERGED_KEY = "dagster_sao/tests_in_query"
"""With the result of a test that one query answered with others: how many tests this query answered."""
QUERY_SECONDS_KEY = "dagster_sao/query_seconds"
"""Its share of the time that this query took."""
PROOF_KEY = "dagster_sao/proof"

# Keys of events about sources.
PROBE_KEY = "dagster_sao/probe"
PROBE_SECONDS_KEY = "dagster_sao/probe_seconds"
HISTORY_KEY = "dagster_sao/history"
LOADED_AT_KEY = "dagster_sao/max_loaded_at"
AGE_KEY = "dagster_sao/age_seconds"
MEASURED_FROM_KEY = "dagster_sao/measured_from"
WARN_AFTER_KEY = "dagster_sao/warn_after"
ERROR_AFTER_KEY = "dagster_sao/error_after"
"""The thresholds in the metadata of a source's asset, for people."""
WARN_AFTER_SECONDS_KEY = "dagster_sao/warn_after_seconds"
ERROR_AFTER_SECONDS_KEY = "dagster_sao/error_after_seconds"
REMAINING_KEY = "dagster_sao/remaining_seconds"
STALE_AT_KEY = "dagster_sao/stale_at"

# Keys of events about runs.
_GIVEN_TO_DBT_KEY = "dagster_sao/given_to_dbt"
"""The nodes that dbt builds next, each with the mark of its last build."""
_INTERRUPTIONS_KEY = "dagster_sao/interruptions"
"""Beside these nodes: the failure to record for each if the run reports nothing more about it."""
SOURCE_PROBLEMS_KEY = "dagster_sao/source_problems"
"""At the end of a run: a sentence for each source that the run could not probe, or that is not tracked."""
REUSED_KEY = "dagster_sao/reused"
"""When a run has decided: the nodes that it reuses, by reason."""
TESTS_KEY = "dagster_sao/tests"
"""At the end of a run: the result of each of its tests, also of those that Dagster shows on no asset."""

# Keys in the metadata of assets.
PROJECT_METADATA_KEY = "dagster_sao/project"
"""The metadata of a dbt asset under which its project is found."""

# Tags.
DATA_VERSION_TAG = "dagster/data_version"
PROJECT_TAG = "dagster_sao/project"
"""On the runs that a sensor of this package started: the dbt project's name."""
CONDITION_TAG = "dagster_sao/requested_by_condition"
"""On such a run: the nodes that a condition composed by the user requested, which the run builds in any case."""
TESTS_TAG = "dagster_sao/tests"
"""On such a run: the requested tests that Dagster does not show as a check of the run."""
CARRIERS_TAG = "dagster_sao/carriers"
"""On a run that was asked only for such tests: "yes". Its nodes are there because Dagster takes a run without any for a run of all."""
_UNSETTLED_TAG = "dagster_sao/unsettled."


class Outcome(str, Enum):
    """What an event reports about a node."""

    BUILT = "build"
    REUSED = "reused"
    HELD = "hold"
    SKIPPED = "skip"
    FAILED = "failed"
    WAITS = "waits"
    """The run cannot build it yet."""
    STARTS = "starts"
    """The run builds it after it waited."""
    LOST = "lost"
    """The run lost the lease, so it does not know the outcome of the node."""
    NOTICED = "noticed"
    """A look at the relation found something out of order. Not about a run."""

    @property
    def is_final(self) -> bool:
        """Whether it is the outcome of the node in the run."""
        return self in _FINAL

    @classmethod
    def of(cls, action: Action) -> Outcome:
        """Return the outcome of a decision that was carried out."""
        return _OUTCOMES[action]


_FINAL = frozenset({Outcome.BUILT, Outcome.REUSED, Outcome.HELD, Outcome.SKIPPED, Outcome.FAILED})
_OUTCOMES = {
    Action.BUILD: Outcome.BUILT,
    Action.REUSE: Outcome.REUSED,
    Action.HOLD: Outcome.HELD,
    Action.SKIP: Outcome.SKIPPED,
}


def plain(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of an event as Python values."""
    return {name: getattr(value, "value", value) for name, value in metadata.items()}


def from_timestamp(timestamp: float) -> datetime:
    """Return seconds since the epoch as a time in UTC."""
    return datetime.fromtimestamp(timestamp, timezone.utc)


def unsettled_tag(state_name: str) -> str:
    """Return the tag of a run from before dbt starts: "yes" until all that the run failed to build was built later."""
    return _UNSETTLED_TAG + state_name


@dataclass(frozen=True, slots=True)
class NodeEvent:
    """What an event reports about a node."""

    outcome: Outcome | None
    """None where the event does not name any, or this version does not know the one that it names."""
    message: str
    reason_code: str
    seconds: float
    build: Mapping[str, Any]
    """The record of a build, empty for none."""
    has_failed: bool
    """Whether the event carries the record of a failed attempt."""


def node_event(metadata: Mapping[str, Any]) -> NodeEvent:
    """Return what the metadata of a materialization or observation reports about a node."""
    values = plain(metadata)
    build = values.get(BUILD_KEY)
    return NodeEvent(
        outcome=_outcome(values.get(DECISION_KEY)),
        message=str(values.get(REASON_KEY) or ""),
        reason_code=str(values.get(REASON_CODE_KEY) or ""),
        seconds=_number(values.get(DURATION_KEY)),
        build=build if isinstance(build, Mapping) else {},
        has_failed=FAILURE_KEY in values,
    )


def outcome_metadata(outcome: Outcome, message: str) -> dict[str, Any]:
    """Return the metadata of an event about a node that no decision was carried out for."""
    return {DECISION_KEY: outcome.value, REASON_KEY: message}


def decided_metadata(
    outcome: Outcome, decision: Decision, message: str = "", seconds_saved: float | None = None
) -> dict[str, Any]:
    """Return the metadata of an event about a decision. `message` stands for the decision's own."""
    metadata: dict[str, Any] = {
        DECISION_KEY: outcome.value,
        REASON_CODE_KEY: decision.reason.value,
        REASON_KEY: message or decision.message,
    }
    if seconds_saved is not None:
        metadata[SECONDS_SAVED_KEY] = seconds_saved
    return metadata


def failure_metadata(failure: FailedAttempt, environment: str) -> dict[str, Any]:
    """Return the part of an event that records a failed attempt."""
    return {FAILURE_KEY: dg.MetadataValue.json(failure_to_json(failure, environment))}


def build_metadata(
    decision: Decision,
    build: LastBuild,
    *,
    invocation_id: str | None = None,
    environment: str = "",
    elsewhere: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the metadata of the event that records a build. `elsewhere` are the records of other environments."""
    record = build_to_json(build, invocation_id=invocation_id, environment=environment)
    metadata = {
        **decided_metadata(Outcome.BUILT, decision),
        DURATION_KEY: build.seconds,
        BUILD_KEY: dg.MetadataValue.json(record),
    }
    return {**metadata, ELSEWHERE_KEY: dg.MetadataValue.json(dict(elsewhere))} if elsewhere else metadata


def decided_test_metadata(decision: TestDecision) -> dict[str, Any]:
    """Return why a test was run or not, as metadata of the result of its check."""
    return {
        DECISION_KEY: decision.action.value,
        REASON_CODE_KEY: decision.reason.value,
        REASON_KEY: decision.message,
    }


def how_metadata(verdict: Verdict, answered: AnsweredTest | None) -> dict[str, Any]:
    """Return how a verdict was found, as metadata of the result of its check. `answered` is None where dbt ran the test."""
    metadata: dict[str, Any] = {HOW_KEY: verdict.how.value}
    if verdict.proof:
        metadata[PROOF_KEY] = verdict.proof
    if answered is not None and answered.how is How.MERGED:
        metadata |= {MERGED_KEY: answered.merged, QUERY_SECONDS_KEY: answered.seconds}
    return metadata


def verdict_metadata(verdict: Verdict, reason: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of the result of a check: the verdict and, as `reason`, why it stands."""
    return {
        "status": verdict.status.value,
        **({FAILED_ROWS_KEY: verdict.failures} if verdict.failures is not None else {}),
        **reason,
        VERDICT_AT_KEY: dg.MetadataValue.timestamp(verdict.at),
        VERDICT_RUN_KEY: dg.MetadataValue.dagster_run(verdict.run_id),
    }


def is_reused(values: Mapping[str, Any]) -> bool:
    """Return whether plain metadata of a check's result belongs to a test that was not run."""
    return values.get(DECISION_KEY) == TestAction.REUSE


class ResultOfTest(TypedDict, total=False):
    """The result of a test at the end of a run."""

    result: str
    """In dbt's words: pass, warn, fail, error; else reused or skipped."""
    reason: str
    status: str
    """The verdict that stands, where there is one."""
    failures: int | None
    how: str
    """How the verdict was found (`How`); `reused` for one of an earlier run."""
    proof: str
    """Of a proven test: why it finds no failures."""


@dataclass(frozen=True, slots=True)
class ReusedNode:
    """A node that a run reuses, and why."""

    unique_id: str
    reason_code: str
    message: str
    seconds_saved: float = 0.0


def reused_metadata(nodes: Iterable[ReusedNode]) -> dict[str, Any]:
    """Return the metadata of the event by which a run reports all the nodes that it reuses at once."""
    # By reason: most have the same one, and the event is stored for good.
    found: dict[tuple[str, str], dict[str, float]] = {}
    for node in nodes:
        found.setdefault((node.reason_code, node.message), {})[node.unique_id] = node.seconds_saved
    groups = [{"reason_code": code, "reason": message, "nodes": found[code, message]} for code, message in found]
    return {REUSED_KEY: dg.MetadataValue.json(groups)}


def reused_nodes(metadata: Mapping[str, Any]) -> Iterator[ReusedNode]:
    """Yield the nodes that a run reports in an event as reused; none in any other event."""
    for group in plain(metadata).get(REUSED_KEY) or ():
        for uid, saved in group["nodes"].items():
            yield ReusedNode(uid, group["reason_code"], group["reason"], saved)


def run_end_metadata(source_problems: Iterable[str], tests: Mapping[str, ResultOfTest]) -> dict[str, Any]:
    """Return the part of a run's last event that other processes read."""
    return {
        SOURCE_PROBLEMS_KEY: dg.MetadataValue.json(list(source_problems)),
        TESTS_KEY: dg.MetadataValue.json(dict(tests)),
    }


def tests_of_run(metadata: Mapping[str, Any]) -> Mapping[str, ResultOfTest]:
    """Return the results of a run's tests from its last event, by unique id; nothing from any other event."""
    return plain(metadata).get(TESTS_KEY) or {}


def source_problems_of_run(metadata: Mapping[str, Any]) -> Iterable[str]:
    """Return the sources in which a run may not see new data, a sentence each, from its last event."""
    return plain(metadata).get(SOURCE_PROBLEMS_KEY) or ()


@dataclass(frozen=True, slots=True)
class GivenNode:
    """A node that a run gives to dbt, with the failure to record if the run reports nothing more about it."""

    unique_id: str
    mark: str
    """The mark of the last build before it."""
    origin: str = ""
    attempts: int = 1
    sequence: int = 0

    def failure(self, at: datetime) -> FailedAttempt:
        """Return the failed attempt."""
        return FailedAttempt(at, self.attempts, origin=self.origin, after=self.mark, sequence=self.sequence)


def given_metadata(nodes: Iterable[GivenNode]) -> dict[str, Any]:
    """Return the metadata of the event by which a run gives nodes to dbt."""
    nodes = list(nodes)
    interruptions = {node.unique_id: [node.origin, node.attempts, node.sequence] for node in nodes}
    return {
        _GIVEN_TO_DBT_KEY: dg.MetadataValue.json({node.unique_id: node.mark for node in nodes}),
        _INTERRUPTIONS_KEY: dg.MetadataValue.json(interruptions),
    }


def given_nodes(metadata: Mapping[str, Any]) -> Iterator[GivenNode]:
    """Yield the nodes that a run gives to dbt in an event; none in any other event."""
    values = plain(metadata)
    interruptions = values.get(_INTERRUPTIONS_KEY) or {}
    for unique_id, mark in (values.get(_GIVEN_TO_DBT_KEY) or {}).items():
        origin, attempts, sequence = interruptions.get(unique_id) or ("", 1, 0)
        yield GivenNode(unique_id, mark, origin, attempts, sequence)


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0


def _outcome(value: object) -> Outcome | None:
    try:
        return Outcome(value)
    except ValueError:
        return None
