"""The body of the dbt assets: capture, decide, lease, build, record.

The versions that a build consumes are frozen before dbt starts; its record is part of the event that dbt's own success
leads to. So a run that is killed at any instant leaves the state at or behind the warehouse, never ahead of it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import dagster as dg
from dagster_dbt import DbtCliResource

from dagster_sao.core.decide import Action, Decision, Reason, Request
from dagster_sao.core.errors import DagsterSaoError, InvalidSelectionError
from dagster_sao.core.plan import Mode, Plan, make_run_plan
from dagster_sao.core.state import StateSnapshot
from dagster_sao.core.versions import digest
from dagster_sao.orchestration import clock
from dagster_sao.orchestration.dbt_process import DbtProcess
from dagster_sao.orchestration.dead_runs import end_dead_runs
from dagster_sao.orchestration.invocations import Invocation, Invocations
from dagster_sao.orchestration.leases import Leases
from dagster_sao.orchestration.private import (
    DbtEventIterator,
    expect_no_check_results,
    report_engine_event,
    step_key,
)
from dagster_sao.orchestration.project import OrchestratedProject, sentence
from dagster_sao.orchestration.recording import Recorder, recorded_build
from dagster_sao.orchestration.reporting import RunReport, reused_checks
from dagster_sao.orchestration.requests import explicit_requests
from dagster_sao.orchestration.run_capture import RunCapture, with_deferred_parents
from dagster_sao.orchestration.run_config import StateAwareRunConfig, TestStrategy, with_job_config
from dagster_sao.orchestration.run_tests import RunTests
from dagster_sao.orchestration.selection import NodeSelection, resolve_selection
from dagster_sao.orchestration.state import CONDITION_TAG, PROJECT_TAG, event_log_state
from dagster_sao.orchestration.step_events import store_step_events

_POLL_SECONDS = 1.0

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

    In a run that is state-aware, such as the automation sensor's, each node is decided again; in any other run the user
    asked for what is selected, and all of it is built. Yields what dagster-dbt yields, with the build record on each
    output.

    Raises dagster.Failure when a node or an error-severity test failed, after all that could be built was.
    """
    config = with_job_config(context, config or StateAwareRunConfig())
    try:
        variant = project.variant(config.target, config.vars)
        if variant is not project:
            dbt = dbt.model_copy(update={"target": variant.dbt_project.target})
        arguments = _dbt_arguments(args, config, variant)
        yield from _Execution(context, dbt, variant, translator, arguments, config, finish).run()
    except DagsterSaoError as error:
        raise dg.Failure(sentence(error)) from error


@dataclass
class _Round:
    """What a run builds at one time: all that it may, under leases and decided while it holds them."""

    state: StateSnapshot
    plan: Plan
    waiting: frozenset[str]
    """What others are building, and all below it."""
    held_by: Mapping[str, str]
    """What others are building, with the id of their run."""
    builds: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.builds = [uid for uid in self.plan.builds if uid not in self.waiting]


class _Execution:
    def __init__(  # noqa: PLR0913, PLR0917
        self,
        context: dg.AssetExecutionContext,
        dbt: DbtCliResource,
        project: OrchestratedProject,
        translator: Any,  # noqa: ANN401
        args: list[str],
        config: StateAwareRunConfig,
        finish: Finish | None,
    ) -> None:
        self._context = context
        self._dbt = dbt
        self._project = project
        self._translator = translator
        self._config = config
        self._args = args
        self._finish = finish or iter
        self._loaded = project.load()
        self._graph = self._loaded.project.graph
        self._keys = self._loaded.keys
        self._started = time.monotonic()
        self._log_state = event_log_state(context.instance, project)
        self._is_automated = PROJECT_TAG in context.run.tags
        aware = config.state_aware
        self._is_state_aware = self._is_automated if aware is None else aware
        self._selected = self._selection()
        self._requests = self._requested()
        self._tests = RunTests(context, self._loaded, self._selected)
        self._leases = Leases(context.instance, context.run.run_id)
        self._relations = {uid: self._relation(uid) for uid in self._graph.nodes}
        self._capture = RunCapture(
            context,
            project,
            self._loaded,
            self._selected,
            refresh=config.refresh_sources and not self._is_automated,
            state_aware=self._is_state_aware,
        )
        self._report = RunReport(context.log, self._graph, self._keys, project.environment)
        self._recorder = Recorder(context, self._loaded.project, self._report, self._log_state.builds_elsewhere)
        self._invocations = Invocations(self._loaded, self._recorder.decisions)
        self._process: DbtProcess | None = None
        self._said_waiting: dict[str, str] = {}
        self._lost = ""
        self._errors: list[str] = []

    def run(self) -> Iterator[Any]:
        end_dead_runs(self._context.instance)
        expect_no_check_results(self._context)
        with self._leases.heartbeat(self._lose, step_key=step_key(self._context)):
            self._capture.look()
            yield from self._rounds()
            if self._config.test_strategy is TestStrategy.DEFERRED:
                yield from self._deferred_tests()
            ended_well = None if self._recorder.failed else self._context.run.run_id
            self._log_state.settle(self._keys, clock.now(), ended_well)
        if self._report.outcomes:
            instance, run = self._context.instance, self._context.run
            report_engine_event(instance, run, *self._report.summary(time.monotonic() - self._started))
        # A run that came out well would seem to have mended the failure.
        if not self._errors and (stuck := self._report.stuck()):
            self._errors.append(stuck)
        if self._errors:
            raise dg.Failure(" ".join(dict.fromkeys(self._errors)))

    # What is asked for

    def _selection(self) -> set[str]:
        assets = self._context.selected_asset_keys
        selected = {uid for key in assets if (uid := self._keys.unique_ids.get(key)) in self._keys.nodes}
        config = self._config
        if not (config.select or config.exclude or config.selector):
            return selected
        wanted = NodeSelection(config.select, config.exclude, config.selector, state=config.state_path)
        return selected & resolve_selection(self._project, self._loaded, wanted, warn=self._context.log.warning)

    def _requested(self) -> dict[str, Request]:
        if "--full-refresh" in self._args:
            return dict.fromkeys(self._selected, Request.FULL_REFRESH)
        asked = set(json.loads(self._context.run.tags.get(CONDITION_TAG, "[]"))) & self._selected
        requests = explicit_requests(
            self._project, self._loaded, self._selected, self._config, state_aware=self._is_state_aware
        )
        return {**dict.fromkeys(asked, Request.BUILD), **requests}

    def _relation(self, uid: str) -> str:
        node = self._graph.nodes[uid]
        return digest([self._graph.adapter_type, (node.relation_name or f"{self._project.name}.{uid}").lower()])

    # Rounds: one, unless others are building some of it, or what failed is tried again

    def _rounds(self) -> Iterator[Any]:
        todo, retries = set(self._selected), self._config.retries
        while not self._is_stopped:
            round_ = self._begin(todo)
            if todo and todo == round_.waiting:
                yield from self._wait(round_)
                continue
            yield from self._build(round_, is_last=not retries)
            todo = set(round_.waiting)
            if not todo and retries and self._recorder.retryable:
                self._pause_before_retry(retries)
                todo, retries = self._again(), retries - 1
            if not todo:
                break
        yield from self._not_started(uid for uid in self._graph.nodes if uid in todo)
        if self._lost:
            self._errors.append(self._lost)

    def _begin(self, todo: set[str]) -> _Round:
        """Decide, claim what is to be built, and decide again until nothing more has to be claimed."""
        while True:
            state = self._capture.state(frozenset(self._recorder.failed | self._recorder.skipped))
            if self._config.defer:
                state = with_deferred_parents(self._loaded, state, self._selected, self._context.run.run_id)
            plan = make_run_plan(
                self._loaded.project,
                state,
                now=clock.now(),
                selection=todo,
                requests=self._requests,
                mode=Mode.SENSOR if self._is_automated else Mode.JOB,
            )
            claim = self._leases.claim(self._relations[uid] for uid in plan.builds)
            held_by = {
                uid: claim.held_by[self._relations[uid]] for uid in plan.builds if self._relations[uid] in claim.held_by
            }
            waiting = frozenset(held_by) | (
                self._graph.descendants(held_by) & set(plan.decisions) if held_by else set()
            )
            round_ = _Round(state, plan, waiting, held_by)
            # Nothing is held while something is waited for.
            self._leases.release(self._leases.held - {self._relations[uid] for uid in round_.builds})
            if not claim.granted & self._leases.held:
                return round_

    def _wait(self, round_: _Round) -> Iterator[Any]:
        """Wait until one of the models that others are building is free."""
        yield from self._say_waiting(round_)
        relations = {self._relations[uid] for uid in round_.held_by}
        while len(self._leases.holders(relations)) == len(relations) and not self._lost:
            time.sleep(_POLL_SECONDS)

    def _say_waiting(self, round_: _Round) -> Iterator[Any]:
        for uid in (uid for uid in self._graph.nodes if uid in round_.waiting):
            run_id = round_.held_by.get(uid)
            message = f"Waits for run {run_id[:8]}, which is building it" if run_id else "Waits for what it reads"
            if self._said_waiting.get(uid) != message:
                self._said_waiting[uid] = message
                yield self._report.waits(uid, message)

    def _again(self) -> set[str]:
        """Return what is tried again: what failed for a reason that may pass, and what it blocked."""
        failed = set(self._recorder.retryable)
        blocked = self._graph.descendants(failed) & self._recorder.skipped
        self._recorder.start_anew(failed | blocked)
        # The reason of the first attempt still holds, but a node that just failed would be held.
        self._requests = {**self._requests, **{uid: self._requests.get(uid, Request.BUILD) for uid in failed}}
        self._tests.reopen(failed | blocked)
        return failed | blocked

    def _pause_before_retry(self, retries: int) -> None:
        attempt = self._config.retries - retries
        seconds = self._config.retry_delay_seconds * 2**attempt
        names = ", ".join(self._graph.label(uid) for uid in sorted(self._recorder.retryable))
        self._context.log.warning(
            f"Tries {names} again in {seconds:g} s (retry {attempt + 1} of {self._config.retries})."
        )
        if self._recorder.failed == self._recorder.retryable:
            self._errors.clear()
        time.sleep(seconds)

    @property
    def _is_stopped(self) -> bool:
        return bool(self._lost) or (self._config.fail_fast and bool(self._recorder.failed))

    def _not_started(self, nodes: Iterable[str]) -> Iterator[Any]:
        """Say of nodes that the run does not come to them."""
        why = self._lost or "Not started: the run stops at the first failure (fail_fast)"
        for uid in nodes:
            self._recorder.skipped.add(uid)
            yield self._report.not_started(uid, why)

    # One round

    def _build(self, round_: _Round, *, is_last: bool) -> Iterator[Any]:
        self._recorder.begin(round_.plan, round_.state, round_.waiting)
        self._report.planned(round_.plan, round_.builds, round_.waiting)
        yield from self._say_waiting(round_)
        yield from self._reuse(round_)
        builds = set(round_.builds)
        ready = self._tests.ready(round_.waiting)
        due = self._tests.due(ready, self._recorder.built | builds)
        yield from self._reuse_checks(ready - due)
        if builds:
            self._log_state.unsettle(self._context.run, round_.builds, round_.state)
        yield from (self._report.starts(uid) for uid in round_.builds if self._said_waiting.pop(uid, ""))
        for invocation in self._invocations_of(round_, due):
            yield from self._run_invocation(invocation, is_last=is_last)
        if self._config.test_strategy is not TestStrategy.DEFERRED:
            self._tests.answer(due)
        self._leases.release()

    def _invocations_of(self, round_: _Round, due: set[str]) -> list[Invocation]:
        builds = set(round_.builds)
        if self._config.test_strategy is not TestStrategy.IMMEDIATE:
            return self._invocations.choose(round_.builds, ())
        if self._tests.may_be_chosen_by_dbt(due, builds, round_.waiting):
            return self._invocations.choose(round_.builds, None)
        return self._invocations.choose(round_.builds, due, unit_tests_of=round_.builds)

    def _reuse(self, round_: _Round) -> Iterator[Any]:
        observations = []
        for uid, decision in round_.plan.decisions.items():
            if not decision.builds and uid not in round_.waiting:
                if decision.action is not Action.REUSE:
                    self._recorder.skipped.add(uid)
                observations.append(self._report.not_built(uid, decision, round_.state.builds.get(uid)))
        yield from store_step_events(self._context, observations)

    def _reuse_checks(self, tests: set[str]) -> Iterator[Any]:
        self._tests.answer(tests)
        checks = [self._tests.checks[uid] for uid in sorted(tests) if uid in self._tests.checks]
        yield from store_step_events(self._context, reused_checks(self._context.instance, checks))

    def _run_invocation(self, invocation: Invocation, *, is_last: bool) -> Iterator[Any]:
        if self._is_stopped:
            yield from self._not_started(invocation.nodes)
            return
        below = self._graph.descendants(self._recorder.failed) if self._recorder.failed else set()
        yield from (self._skipped(uid) for uid in invocation.nodes if uid in below)
        nodes = [uid for uid in invocation.nodes if uid not in below]
        if invocation.nodes and not nodes and not invocation.tests:
            return
        arguments = self._invocations.arguments(invocation, nodes, self._args)
        # A failure that is tried again is none yet.
        if self._config.fail_fast and is_last:
            arguments.append("--fail-fast")
        self._process = DbtProcess(
            self._context,
            self._dbt,
            self._project,
            self._loaded,
            arguments,
            translator=self._translator,
            selects_tests=invocation.tests is not None,
        )
        events = DbtEventIterator(self._events(self._process, nodes), self._process.invocation)
        for event in self._finish(events):
            yield event
            # Stored by now: others may build what this run has built.
            if (uid := recorded_build(event)) is not None:
                self._leases.release([self._relations[uid]])
        yield from self._failures(self._process, nodes)
        self._process = None

    def _events(self, process: DbtProcess, nodes: Sequence[str]) -> Iterator[Any]:
        code = cache(lambda: process.code(nodes))
        for event in process.events():
            for asset_event in event.asset_events:
                yield self._recorder.recorded(asset_event, event.raw, lambda uid: code().get(uid))

    def _failures(self, process: DbtProcess, nodes: Sequence[str]) -> Iterator[Any]:
        error = process.error()
        if not error:
            return
        self._errors.append(error)
        statuses = process.statuses()
        for uid in nodes:
            if uid in self._recorder.built:
                continue
            if statuses.get(uid, "error") == "skipped":
                is_below = bool(self._graph.ancestors([uid]) & self._recorder.failed)
                yield from [self._skipped(uid)] if is_below or not self._config.fail_fast else self._not_started([uid])
            else:
                yield self._recorder.build_failed(uid)
        for test_id, status in statuses.items():
            test = self._graph.tests.get(test_id)
            if test is not None and status in {"fail", "error"} and test.is_error:
                for uid in sorted(self._tests.read_by(test_id) & self._recorder.built):
                    yield self._recorder.test_failed(uid, test.name, could_run=status == "fail")

    def _skipped(self, uid: str) -> dg.AssetObservation:
        self._recorder.skipped.add(uid)
        parents = [p for p in self._graph.nodes[uid].parents if p in self._recorder.failed | self._recorder.skipped]
        names = ", ".join(self._graph.label(parent) for parent in parents or self._graph.nodes[uid].parents)
        decision = Decision(Action.SKIP, Reason.UPSTREAM_FAILED, f"Upstream failed: {names}")
        return self._report.not_built(uid, decision, None)

    def _deferred_tests(self) -> Iterator[Any]:
        """Run the tests of all that was built, after it."""
        due = self._tests.due(self._tests.open, self._recorder.built)
        for invocation in self._invocations.choose([], due, unit_tests_of=self._recorder.built):
            yield from self._run_invocation(invocation, is_last=True)

    def _lose(self, why: str) -> None:
        """Stop writing, in the thread of the heartbeat: others may build what this run was building."""
        self._lost = why
        if self._process is not None:
            self._process.stop()


def _dbt_arguments(args: Sequence[str], config: StateAwareRunConfig, project: OrchestratedProject) -> list[str]:
    arguments = list(args)
    if config.vars:
        arguments += ["--vars", json.dumps(dict(project.variables))]
    if config.full_refresh and "--full-refresh" not in arguments:
        arguments.append("--full-refresh")
    if config.threads is not None:
        arguments += ["--threads", str(config.threads)]
    if config.defer:
        if config.state_path is None:
            msg = "`defer` needs `state`: the folder with the manifest of the environment to defer to."
            raise InvalidSelectionError(msg)
        arguments += ["--defer", "--state", str(config.state_path)]
        if config.favor_state:
            arguments.append("--favor-state")
    return arguments
