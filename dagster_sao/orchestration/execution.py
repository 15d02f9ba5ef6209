"""The body of the dbt assets: capture, decide, build, record.

The versions that a build consumes are frozen before dbt starts; its record is part of the event that dbt's own success
leads to. So a run that is killed at any instant leaves the state at or behind the warehouse, never ahead of it.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import dagster as dg
from dagster_dbt import DbtCliResource

from dagster_sao.core.decide import Action, Decision, Reason, Request
from dagster_sao.core.errors import DagsterSaoError
from dagster_sao.core.fingerprint import Fingerprint
from dagster_sao.core.ledger import Ledger
from dagster_sao.core.plan import Plan, make_plan
from dagster_sao.core.state import FailedAttempt, FailureKind, SourceState, StateSnapshot
from dagster_sao.orchestration import clock
from dagster_sao.orchestration.freshness import record_unseen_sources
from dagster_sao.orchestration.invocations import Invocation, Invocations
from dagster_sao.orchestration.private import (
    DbtCliInvocation,
    DbtEventIterator,
    last_check_evaluation,
)
from dagster_sao.orchestration.project import (
    LoadedProject,
    OrchestratedProject,
    read_code,
    read_manifest,
    sentence,
)
from dagster_sao.orchestration.records import (
    BUILD_KEY,
    DECISION_KEY,
    DURATION_KEY,
    FAILURE_KEY,
    REASON_CODE_KEY,
    REASON_KEY,
    SECONDS_SAVED_KEY,
    build_to_json,
    failure_to_json,
)
from dagster_sao.orchestration.run_config import StateAwareRunConfig
from dagster_sao.orchestration.snapshot import take_snapshot
from dagster_sao.orchestration.state import CONDITION_TAG, PROJECT_TAG, event_log_state

_INDIRECT_SELECTION = "DBT_INDIRECT_SELECTION"

Finish = Callable[[DbtEventIterator[Any]], Iterable[Any]]
"""What to do with the events of an invocation before they are yielded, such as fetching row counts."""


def execute_dbt_assets(  # noqa: PLR0913
    context: dg.AssetExecutionContext,
    dbt: DbtCliResource,
    project: OrchestratedProject,
    *,
    translator: Any,  # noqa: ANN401 (a DagsterDbtTranslator or a component's)
    args: Sequence[str] = ("build",),
    config: StateAwareRunConfig | None = None,
    finish: Finish | None = None,
) -> Iterator[Any]:
    """Build the selected dbt assets that are to be built, and report the others as reused.

    In a run that the automation sensor asked for, each node is decided again; in any other run the user asked for what is
    selected, and all of it is built. Yields what dagster-dbt yields, with the build record on each output.

    Raises dagster.Failure when a node or an error-severity test failed, after all that could be built was.
    """
    yield from _Execution(
        context, dbt, project, translator, list(args), config or StateAwareRunConfig(), finish or iter
    ).run()


class _Execution:
    def __init__(  # noqa: PLR0913, PLR0917
        self,
        context: dg.AssetExecutionContext,
        dbt: DbtCliResource,
        project: OrchestratedProject,
        translator: Any,  # noqa: ANN401
        args: list[str],
        config: StateAwareRunConfig,
        finish: Finish,
    ) -> None:
        self._context = context
        self._dbt = dbt
        self._project = project
        self._translator = translator
        self._args = args
        self._config = config
        self._finish = finish
        self._keys = project.keys()
        self._loaded = project.load()
        self._started_at = clock.now()
        self._log_state = event_log_state(context.instance, project)
        self._selected = {
            uid for key in context.selected_asset_keys if (uid := self._keys.unique_ids.get(key)) in self._keys.nodes
        }
        self._state = self._capture()
        self._plan = self._make_plan()
        self._invocations = Invocations(self._loaded, self._plan)
        self._ledger = Ledger(self._loaded.project, self._state)
        self._built: set[str] = set()
        self._failed: set[str] = set()
        self._errors: list[str] = []

    def run(self) -> Iterator[Any]:
        tests = self._reported_tests()
        due = {uid for uid in tests if self._is_due(uid)}
        self._log_plan()
        yield from self._reuse(tests - due)
        invocations = self._invocations.choose(due, all_tests=self._dbt_may_choose_tests(due))
        if self._plan.builds:
            self._log_state.unsettle(self._context.run.run_id)
        for invocation in invocations:
            yield from self._run_invocation(invocation)
        ended_well = None if self._failed else self._context.run.run_id
        self._log_state.settle(self._keys, clock.now(), ended_well)
        if self._errors:
            raise dg.Failure(" ".join(dict.fromkeys(self._errors)))

    # What is known before dbt starts

    def _capture(self) -> StateSnapshot:
        graph = self._loaded.project.graph
        state = take_snapshot(self._context.instance, self._project, self._started_at)
        above = graph.ancestors(self._selected)
        unseen = [
            source
            for uid, source in graph.sources.items()
            if uid in above and uid not in state.sources and not self._project.is_loaded_by_dagster(uid)
        ]
        try:
            tokens = record_unseen_sources(
                self._context.instance, self._project, self._loaded, unseen, states=state.sources, now=self._started_at
            )
        except DagsterSaoError as error:
            # Without a token the next probe looks like new data: one build too many, none too few.
            self._context.log.warning(f"Sources without a recorded state could not be probed: {error}")
            tokens = {}
        seen = {uid: SourceState(token, self._started_at) for uid, token in tokens.items()}
        return replace(
            state, sources={**state.sources, **seen}, builds=dict(state.builds), failures=dict(state.failures)
        )

    @property
    def _is_automated(self) -> bool:
        return PROJECT_TAG in self._context.run.tags

    def _make_plan(self) -> Plan:
        if self._is_automated:
            asked = set(json.loads(self._context.run.tags.get(CONDITION_TAG, "[]")))
        else:
            asked = self._selected
        full = "--full-refresh" in self._args
        request = Request.FULL_REFRESH if full else Request.BUILD
        return make_plan(
            self._loaded.project,
            self._state,
            now=self._started_at,
            selection=self._selected,
            requests=dict.fromkeys(asked & self._selected, request),
        )

    def _reported_tests(self) -> set[str]:
        """Return the tests that this run answers for: the selected checks, and the tests of its nodes without a check."""
        checks = self._project.check_keys()
        selected = self._context.selected_asset_check_keys
        return {
            uid
            for uid in self._loaded.project.graph.tests
            if (checks[uid] in selected if uid in checks else self._read_by_test(uid) & self._selected)
        }

    def _is_due(self, test: str) -> bool:
        """Whether a test is run: when any node that it reads is built, or when it was selected without its nodes."""
        read = self._read_by_test(test)
        return bool(read & set(self._plan.builds)) or not read & self._selected

    def _dbt_may_choose_tests(self, due: set[str]) -> bool:
        """Whether the tests to run are those that dbt would run by itself: all that read a node which is built."""
        builds = set(self._plan.builds)
        checks = self._project.check_keys()
        wanted = {checks[uid] for uid in due if uid in checks}
        left_out = any(
            key not in wanted and self._read_by_test(uid) & builds
            for uid, key in checks.items()
            if key.asset_key in self._context.selected_asset_keys
        )
        return not left_out and all(self._read_by_test(uid) & builds for uid in due)

    def _read_by_test(self, test: str) -> set[str]:
        parents = self._loaded.project.graph.tests[test].parents
        return {uid for parent in parents for uid in _through_ephemerals(parent, self._loaded)}

    def _log_plan(self) -> None:
        builds, selected = len(self._plan.builds), len(self._plan.decisions)
        self._context.log.info(f"{builds} to build, {selected - builds} not, of {selected} selected.")

    # What is not built

    def _reuse(self, tests: set[str]) -> Iterator[Any]:
        for uid, decision in self._plan.decisions.items():
            if not decision.builds:
                yield self._observation(uid, decision)
        checks = self._project.check_keys()
        for uid in sorted(tests & set(checks)):
            last = last_check_evaluation(self._context.instance, checks[uid])
            # A planned check that is not reported would replace its last result by `skipped`.
            if last is not None:
                yield dg.AssetCheckResult(
                    asset_key=last.asset_key,
                    check_name=last.check_name,
                    passed=last.passed,
                    severity=last.severity,
                    metadata={
                        **last.metadata,
                        DECISION_KEY: Action.REUSE.value,
                        REASON_KEY: "Skipped due to model reuse",
                    },
                )

    def _observation(self, uid: str, decision: Decision) -> dg.AssetObservation:
        action = "reused" if decision.action is Action.REUSE else decision.action.value
        metadata: dict[str, Any] = {
            DECISION_KEY: action,
            REASON_CODE_KEY: decision.reason.value,
            REASON_KEY: decision.message,
        }
        last_build = self._state.builds.get(uid)
        if last_build is not None:
            metadata[SECONDS_SAVED_KEY] = (last_build.ended_at - last_build.started_at).total_seconds()
        self._context.log.info(f"{self._label(uid)}: {action}. {decision.message}")
        return dg.AssetObservation(self._keys.by_unique_id[uid], description=decision.message, metadata=metadata)

    def _label(self, uid: str) -> str:
        return self._loaded.project.graph.label(uid)

    # What is built

    def _run_invocation(self, invocation: Invocation) -> Iterator[Any]:
        below = self._loaded.project.graph.descendants(self._failed) if self._failed else set()
        yield from (self._skipped(uid) for uid in invocation.nodes if uid in below)
        nodes = [uid for uid in invocation.nodes if uid not in below]
        if not nodes and not invocation.tests:
            return
        process = self._start_dbt(invocation, nodes)
        yield from self._finish(DbtEventIterator(self._events(process, nodes), process))
        yield from self._failures(process, nodes)

    def _start_dbt(self, invocation: Invocation, nodes: Sequence[str]) -> DbtCliInvocation:
        with _environment(_INDIRECT_SELECTION, None if invocation.tests is None else "empty"):
            process = self._dbt.cli(
                self._invocations.arguments(invocation, nodes, self._args),
                manifest=self._loaded.manifest,
                dagster_dbt_translator=self._translator,
                raise_on_error=False,
            )
        # dagster-dbt would select by itself if it were given the context, so it gets it after.
        process.context = self._context
        process.project = self._project.dbt_project
        return process

    def _events(self, invocation: DbtCliInvocation, nodes: Sequence[str]) -> Iterator[Any]:
        built_code = _BuiltCode(invocation, self._project, set(nodes))
        for event in invocation.stream_raw_events():
            for asset_event in event.to_default_asset_events(
                manifest=self._loaded.manifest,
                dagster_dbt_translator=self._translator,
                context=self._context,
                target_path=invocation.target_path,
                project=self._project.dbt_project,
            ):
                if isinstance(asset_event, dg.Output):
                    yield self._recorded(asset_event, event.raw_event, built_code)
                else:
                    yield asset_event

    def _recorded(self, output: dg.Output[Any], raw_event: Mapping[str, Any], built_code: _BuiltCode) -> dg.Output[Any]:
        """Return dbt's output with the build record, and let the children in this run consume the new version."""
        node_info = raw_event["data"]["node_info"]
        uid = node_info["unique_id"]
        decision = self._plan.decisions[uid]
        build = self._ledger.record(
            uid,
            started_at=_moment(node_info.get("node_started_at"), self._started_at),
            ended_at=clock.now(),
            run_id=self._context.run.run_id,
            fingerprint=built_code.fingerprint(uid),
            full_refresh=decision.full_refresh,
        )
        self._built.add(uid)
        metadata = {
            **output.metadata,
            DECISION_KEY: Action.BUILD.value,
            REASON_CODE_KEY: decision.reason.value,
            REASON_KEY: decision.message,
            DURATION_KEY: (build.ended_at - build.started_at).total_seconds(),
            BUILD_KEY: dg.MetadataValue.json(
                build_to_json(build, invocation_id=raw_event["info"].get("invocation_id"))
            ),
        }
        with warnings.catch_warnings():
            # That an output names its data version is beta in Dagster, and chosen here on purpose.
            warnings.simplefilter("ignore", dg.BetaWarning)
            return dg.Output(
                value=None,
                output_name=output.output_name,
                metadata=metadata,
                data_version=dg.DataVersion(build.data_version),
                tags=output.tags,
            )

    # What failed

    def _failures(self, invocation: DbtCliInvocation, nodes: Sequence[str]) -> Iterator[Any]:
        error = invocation.get_error()
        if error is None:
            return
        self._errors.append(sentence(error))
        results = _run_results(invocation)
        for uid in nodes:
            if uid in self._built:
                continue
            status = results.get(uid, "error")
            if status == "skipped":
                yield self._skipped(uid)
            else:
                self._failed.add(uid)
                yield self._failed_attempt(uid, FailureKind.BUILD, "dbt could not build it")
        graph = self._loaded.project.graph
        for test_id, status in results.items():
            test = graph.tests.get(test_id)
            if test is not None and status in {"fail", "error"} and test.is_error:
                for uid in {
                    n for parent in test.parents for n in _through_ephemerals(parent, self._loaded)
                } & self._built:
                    self._failed.add(uid)
                    yield self._failed_attempt(uid, FailureKind.TEST, f"Its test {test.name} failed")

    def _failed_attempt(self, uid: str, kind: FailureKind, message: str) -> dg.AssetObservation:
        fingerprint = self._loaded.project.fingerprints[uid].digest
        consumed = self._ledger.consumed(uid)
        before = self._state.failures.get(uid)
        is_repeated = before is not None and before.fingerprint == fingerprint and before.consumed == consumed
        failure = FailedAttempt(
            failed_at=clock.now(),
            attempts=before.attempts + 1 if before is not None and is_repeated else 1,
            fingerprint=fingerprint,
            consumed=consumed,
            kind=kind,
            previous=self._state.builds.get(uid),
        )
        return dg.AssetObservation(
            self._keys.by_unique_id[uid],
            description=message,
            metadata={
                DECISION_KEY: "failed",
                REASON_KEY: message,
                FAILURE_KEY: dg.MetadataValue.json(failure_to_json(failure)),
            },
        )

    def _skipped(self, uid: str) -> dg.AssetObservation:
        graph = self._loaded.project.graph
        parents = [p for p in graph.nodes[uid].parents if p in self._failed] or list(graph.nodes[uid].parents)
        names = ", ".join(graph.label(parent) for parent in parents)
        return self._observation(uid, Decision(Action.SKIP, Reason.UPSTREAM_FAILED, f"Upstream failed: {names}"))


class _BuiltCode:
    """The code that dbt itself read for a run, which may be newer than the manifest that the plan was made from."""

    def __init__(self, invocation: DbtCliInvocation, project: OrchestratedProject, nodes: set[str]) -> None:
        self._invocation = invocation
        self._project = project
        self._nodes = nodes
        self._fingerprints: dict[str, Fingerprint] | None = None

    def fingerprint(self, uid: str) -> Fingerprint | None:
        if self._fingerprints is None:
            self._fingerprints = self._read()
        return self._fingerprints.get(uid)

    def _read(self) -> dict[str, Fingerprint]:
        path = self._invocation.target_path / "manifest.json"
        project = self._project
        try:
            variables = project.load().variables
            fingerprinter = read_code(project.dbt_project, read_manifest(path), variables, project.selection)
            graph = fingerprinter.graph
            return {uid: fingerprinter.fingerprint(graph.nodes[uid]) for uid in self._nodes if uid in graph.nodes}
        except (OSError, ValueError, DagsterSaoError):
            # `--no-write-json`, or an engine that writes none: the plan's own manifest is what is known.
            return {}


def _through_ephemerals(uid: str, loaded: LoadedProject) -> Iterator[str]:
    """Yield `uid`, or for an ephemeral model the nodes that it is inlined from."""
    graph = loaded.project.graph
    if uid in graph.nodes or uid in graph.sources:
        yield uid
        return
    for parent in (loaded.manifest["nodes"].get(uid, {}).get("depends_on") or {}).get("nodes") or []:
        yield from _through_ephemerals(parent, loaded)


def _run_results(invocation: DbtCliInvocation) -> Mapping[str, str]:
    try:
        return {r["unique_id"]: r["status"] for r in invocation.get_artifact("run_results.json")["results"]}
    except (OSError, ValueError, KeyError):
        return {}


def _moment(text: str | None, default: datetime) -> datetime:
    if not text:
        return default
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


@contextmanager
def _environment(name: str, value: str | None) -> Iterator[None]:
    """Set a variable for the process that is started within; None leaves it as it is."""
    before = os.environ.get(name)
    if value is not None:
        os.environ[name] = value
    try:
        yield
    finally:
        if before is not None:
            os.environ[name] = before
        elif value is not None:
            del os.environ[name]
