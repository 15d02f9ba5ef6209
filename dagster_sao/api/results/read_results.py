"""Reads the results of a run from its events, and from dbt's own artifacts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType
from typing import Any

import dagster as dg

from dagster_sao.api.display import counted
from dagster_sao.api.results.values import BuildResults, NodeResult, NodeStatus, TestResult, TestStatus
from dagster_sao.core.manifest.graph import ProjectGraph
from dagster_sao.core.state.state import VerdictStatus
from dagster_sao.orchestration.events.event_schema import (
    FAILED_ROWS_KEY,
    HOW_KEY,
    PROOF_KEY,
    REASON_KEY,
    Outcome,
    ResultOfTest,
    ReusedNode,
    is_reused,
    node_event,
    plain,
    reused_nodes,
    source_problems_of_run,
    tests_of_run,
)
from dagster_sao.orchestration.messages import one_line
from dagster_sao.orchestration.private.dagster_internals import metadata_of_engine_event
from dagster_sao.orchestration.project.loaded import LoadedProject

_STATUSES = {
    Outcome.BUILT: NodeStatus.SUCCESS,
    Outcome.HELD: NodeStatus.HELD,
    Outcome.SKIPPED: NodeStatus.SKIPPED,
    Outcome.LOST: NodeStatus.SKIPPED,
    Outcome.FAILED: NodeStatus.ERROR,
}
_VERDICTS: Mapping[str | None, VerdictStatus] = {status.value: status for status in VerdictStatus}
_NOT_RUN = frozenset({TestStatus.REUSED, TestStatus.SKIPPED})


def read_results(  # noqa: PLR0913 (what a run leaves)
    events: Iterable[dg.DagsterEvent],
    loaded: LoadedProject,
    selected: Iterable[str],
    *,
    run_id: str,
    started_at: datetime,
    ended_at: datetime,
    error: str = "",
    said: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> BuildResults:
    """Return the results of `selected` from the events of their run, oldest first: the last event of each counts.

    `said` are dbt's own results, which have its messages about failures.
    """
    graph, events = loaded.project.graph, list(events)
    heard = {result.unique_id: result for event in events for result in _heard_of_nodes(event, loaded)}
    nodes = {}
    wanted = set(selected)
    for uid in graph.nodes:
        if uid in wanted or uid in heard:
            nodes[uid] = _in_dbts_words(heard.get(uid) or _silent(graph, uid, error), said.get(uid))
    return BuildResults(
        nodes=_with_upstreams(nodes, graph),
        run_id=run_id,
        started_at=started_at,
        ended_at=ended_at,
        tests={
            uid: _test_result(uid, of_run, graph, said.get(uid))
            for uid, of_run in _said_of_tests(events).items()
            if uid in graph.tests
        },
        error=error,
        warnings=tuple(
            dict.fromkeys(one for event in events for one in source_problems_of_run(metadata_of_engine_event(event)))
        ),
    )


def heard_results(
    event: dg.DagsterEvent, loaded: LoadedProject, tests: Mapping[dg.AssetCheckKey, str]
) -> Iterator[NodeResult | TestResult]:
    """Yield the results of nodes, and of `tests` by check, that an event reports; none for most events."""
    if event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION:
        evaluation = event.asset_check_evaluation_data
        uid = tests.get(evaluation.asset_check_key)
        test = _heard_of_test(uid, evaluation, loaded.project.graph) if uid is not None else None
        yield from [test] if test is not None else []
    yield from _heard_of_nodes(event, loaded)


def _said_of_tests(events: Iterable[dg.DagsterEvent]) -> Mapping[str, ResultOfTest]:
    """Return the result of each test, by unique id, that a run reported at its end, with or without an asset check."""
    found: dict[str, ResultOfTest] = {}
    for event in events:
        # Each step of a run reports them. A test that one step ran is reused in the others.
        tests = tests_of_run(metadata_of_engine_event(event))
        found.update({uid: of_run for uid, of_run in tests.items() if uid not in found or _was_run(of_run)})
    return found


def _reused(node: ReusedNode, graph: ProjectGraph) -> NodeResult:
    return NodeResult(
        unique_id=node.unique_id,
        name=graph.label(node.unique_id),
        status=NodeStatus.REUSED,
        message=node.message,
        reason=node.reason_code,
        seconds_saved=node.seconds_saved,
    )


def _was_run(of_run: ResultOfTest) -> bool:
    return TestStatus(of_run["result"]) not in _NOT_RUN


def _heard_of_nodes(event: dg.DagsterEvent, loaded: LoadedProject) -> Iterator[NodeResult]:
    graph = loaded.project.graph
    reused = reused_nodes(metadata_of_engine_event(event))
    yield from (_reused(node, graph) for node in reused if node.unique_id in graph.nodes)
    if (result := _heard_of_node(event, loaded)) is not None:
        yield result


def _heard_of_node(event: dg.DagsterEvent, loaded: LoadedProject) -> NodeResult | None:
    if event.event_type is dg.DagsterEventType.ASSET_MATERIALIZATION:
        metadata = event.step_materialization_data.materialization.metadata
    elif event.event_type is dg.DagsterEventType.ASSET_OBSERVATION:
        metadata = event.asset_observation_data.asset_observation.metadata
    else:
        return None
    uid = loaded.keys.unique_ids.get(event.asset_key) if event.asset_key else None
    reported = node_event(metadata)
    status = _STATUSES.get(reported.outcome) if reported.outcome is not None else None
    if uid is None or uid not in loaded.keys.nodes or status is None:
        return None
    record = reported.build
    return NodeResult(
        unique_id=uid,
        name=loaded.project.graph.label(uid),
        status=status,
        message=reported.message,
        reason=reported.reason_code,
        seconds=reported.seconds,
        started_at=_moment(record.get("started_at")),
        ended_at=_moment(record.get("ended_at")),
        invocation_id=record.get("invocation_id"),
    )


def _heard_of_test(unique_id: str, evaluation: dg.AssetCheckEvaluation, graph: ProjectGraph) -> TestResult | None:
    values = plain(evaluation.metadata)
    verdict = _VERDICTS.get(values.get("status"))
    if verdict is None:
        return None
    return TestResult(
        unique_id=unique_id,
        name=graph.label(unique_id),
        status=TestStatus.REUSED if is_reused(values) else TestStatus(verdict.value),
        message=str(values.get(REASON_KEY) or ""),
        failures=values.get(FAILED_ROWS_KEY),
        verdict=verdict,
        how=str(values.get(HOW_KEY) or ""),
        proof=str(values.get(PROOF_KEY) or ""),
    )


def _test_result(
    unique_id: str, of_run: ResultOfTest, graph: ProjectGraph, said: Mapping[str, Any] | None
) -> TestResult:
    result = TestResult(
        unique_id=unique_id,
        name=graph.label(unique_id),
        status=TestStatus(of_run["result"]),
        message=of_run["reason"],
        failures=of_run.get("failures"),
        verdict=VerdictStatus(of_run["status"]) if "status" in of_run else None,
        how=of_run.get("how", ""),
        proof=of_run.get("proof", ""),
    )
    if result.status in _NOT_RUN or result.verdict is VerdictStatus.PASS:
        return result
    return replace(
        result, message=one_line(str(said.get("message") or "") if said else "") or _without_dbts_words(result)
    )


def _without_dbts_words(result: TestResult) -> str:
    """Return the message for a test that did not pass, if dbt left none (`--no-write-json`)."""
    return (
        "dbt could not run it"
        if result.status is TestStatus.ERROR
        else f"Got {counted(result.failures or 0, 'result')}"
    )


def _silent(graph: ProjectGraph, unique_id: str, error: str) -> NodeResult:
    message = error or "The run ended without reporting its result"
    return NodeResult(unique_id, graph.label(unique_id), NodeStatus.ERROR, message)


def _in_dbts_words(result: NodeResult, said: Mapping[str, Any] | None) -> NodeResult:
    if result.status is not NodeStatus.ERROR or said is None or said["status"] != "error" or not said.get("message"):
        return result
    return replace(result, message=one_line(str(said["message"])))


def _with_upstreams(nodes: Mapping[str, NodeResult], graph: ProjectGraph) -> dict[str, NodeResult]:
    """Return the results with the nearest failed nodes above each skipped one."""
    return {
        uid: replace(result, failed_upstreams=tuple(_failed_above(uid, nodes, graph)))
        if result.status is NodeStatus.SKIPPED
        else result
        for uid, result in nodes.items()
    }


def _failed_above(unique_id: str, nodes: Mapping[str, NodeResult], graph: ProjectGraph) -> Iterator[str]:
    stack, seen = list(graph.nodes[unique_id].parents), set()
    while stack:
        parent = stack.pop(0)
        if parent in seen or parent not in graph.nodes:
            continue
        seen.add(parent)
        result = nodes.get(parent)
        if result is not None and result.status in (NodeStatus.ERROR, NodeStatus.HELD):
            yield parent
        else:
            stack.extend(graph.nodes[parent].parents)


def _moment(text: object) -> datetime | None:
    return datetime.fromisoformat(text) if isinstance(text, str) else None
