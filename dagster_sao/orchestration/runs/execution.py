"""The body of the dbt assets: capture, decide, lease, build, record.

The versions that a build consumes are frozen before dbt starts; its record is part of the event that dbt's own success
leads to. So a run that is killed at any instant leaves the state at or behind the warehouse, never ahead of it.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_dbt import DbtCliResource

from dagster_sao.core.code.fingerprint import Fingerprint
from dagster_sao.core.code.versions import digest
from dagster_sao.core.decision.decide import (
    Action,
    Decision,
    Reason,
    Request,
    upstream_failed,
    upstream_test_failed,
)
from dagster_sao.core.decision.decide_functions import FunctionDecision
from dagster_sao.core.decision.decide_tests import TestAction, TestDecision, TestReason
from dagster_sao.core.decision.plan import Mode, Plan
from dagster_sao.core.decision.view_rules import is_materialized_view
from dagster_sao.core.errors import DagsterSaoError, InvalidSelectionError
from dagster_sao.core.state.state import StateSnapshot, VerdictStatus
from dagster_sao.orchestration import clock
from dagster_sao.orchestration.dbt.build_results import batch_results, not_refreshed
from dagster_sao.orchestration.dbt.commands import Invocation, Invocations
from dagster_sao.orchestration.dbt.invocation_folders import DEFAULT_KEPT, remove_old_folders
from dagster_sao.orchestration.dbt.limits import limits_of
from dagster_sao.orchestration.dbt.process import DbtEvent, DbtProcess, answer_in, function_created_in
from dagster_sao.orchestration.dbt.sightings import Sightings
from dagster_sao.orchestration.dbt.statuses import is_build, unaccounted
from dagster_sao.orchestration.events.batched_events import store_step_events
from dagster_sao.orchestration.events.door import errors_masked, mask_log, masked_event, masked_metadata
from dagster_sao.orchestration.events.event_schema import CONDITION_TAG, PROJECT_TAG
from dagster_sao.orchestration.leases.dead_runs import end_dead_runs
from dagster_sao.orchestration.leases.leases import LEASES_LOST, Leases
from dagster_sao.orchestration.leases.writers import RunWriters
from dagster_sao.orchestration.private.dagster_internals import (
    DbtEventIterator,
    expect_no_check_results,
    report_engine_event,
    step_key,
)
from dagster_sao.orchestration.private.dbt_selection import WordSelector
from dagster_sao.orchestration.project.dbt_arguments import (
    check_no_selection,
    read_arguments,
    vars_arguments,
    without_hiding,
    without_settings,
)
from dagster_sao.orchestration.project.in_memory import refuse_what_does_not_survive
from dagster_sao.orchestration.project.orchestrated import OrchestratedProject, sentence
from dagster_sao.orchestration.project.seed_files import SeedFile, seed_files
from dagster_sao.orchestration.project.selection import NodeSelection, resolve_selection
from dagster_sao.orchestration.project.selection_words import SelectionWords
from dagster_sao.orchestration.runs.capture import RunCapture
from dagster_sao.orchestration.runs.config import StateAwareRunConfig, TestStrategy, with_job_config
from dagster_sao.orchestration.runs.dbt_tests import RunTests
from dagster_sao.orchestration.runs.explicit_requests import explicit_requests
from dagster_sao.orchestration.runs.recorder import Recorder, recorded_build
from dagster_sao.orchestration.runs.reexecution import failed_in_parent
from dagster_sao.orchestration.runs.report import RunReport, reused_checks
from dagster_sao.orchestration.runs.run_plan import RunPlanner
from dagster_sao.orchestration.state.event_log import event_log_state
from dagster_sao.orchestration.state.functions import RunFunctions
from dagster_sao.orchestration.state.read_state import take_snapshot
from dagster_sao.orchestration.state.relation_notes import write_moved
from dagster_sao.warehouse.redaction import masked

_POLL_SECONDS = 1.0
_IN_NODES = frozenset({"model", "seed", "snapshot", "test"})
"""What a manifest has among its `nodes`."""

Finish = Callable[[DbtEventIterator[Any]], Iterable[Any]]
"""What to do with the events of an invocation before they are yielded, such as fetching row counts."""


def execute_dbt_assets(  # noqa: PLR0913
    context: dg.AssetExecutionContext,
    dbt: DbtCliResource,
    project: OrchestratedProject,
    *,
    args: Sequence[str] = ("build",),
    config: StateAwareRunConfig | None = None,
    finish: Finish | None = None,
    kept_dbt_folders: int = DEFAULT_KEPT,
) -> Iterator[Any]:
    """Build the selected dbt assets that are to be built, and report the others as reused.

    In a run that is state-aware, such as the automation sensor's, each node is decided again; in any other run the user
    asked for what is selected, and all of it is built. Yields what dagster-dbt yields, with the build record on each
    output.

    Raises dagster.Failure when a node or an error-severity test failed, after all that could be built was, or when the
    failure of an earlier run stands.
    """
    mask_log(context.log)
    with errors_masked():
        config = with_job_config(context, config or StateAwareRunConfig())
        try:
            variant = project.variant(config.target, config.vars)
            if variant is not project:
                refuse_what_does_not_survive(variant, variant.load())
            dbt = _for_project(dbt, variant)
            arguments = _dbt_arguments(args, config, variant)
            execution = _Execution(context, dbt, variant, arguments, config, finish)
            try:
                yield from map(masked_event, execution.run())
            finally:
                execution.clean_up(kept_dbt_folders)
        except DagsterSaoError as error:
            raise dg.Failure(sentence(error)) from None


@dataclass
class _Round:
    """What a run builds at one time: all that it may, under leases and decided while it holds them."""

    state: StateSnapshot
    plan: Plan
    waiting: frozenset[str]
    """What others are building, and all below it."""
    held_by: Mapping[str, str]
    """What others are building or creating, or what calls a function that they are creating, with the id of their run."""
    taken: frozenset[str]
    """The relations that others hold."""
    builds: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.builds = [uid for uid in self.plan.builds if uid not in self.waiting]


class _Execution:
    def __init__(  # noqa: PLR0913, PLR0917
        self,
        context: dg.AssetExecutionContext,
        dbt: DbtCliResource,
        project: OrchestratedProject,
        args: list[str],
        config: StateAwareRunConfig,
        finish: Finish | None,
    ) -> None:
        self._context = context
        self._dbt = dbt
        self._project = project
        self._config = config
        self._args = args
        self._limits = limits_of(args, project.dbt_project.project_dir)
        self._finish = finish or iter
        self._loaded = project.load()
        self._graph = self._loaded.project.graph
        self._keys = self._loaded.keys
        self._started = time.monotonic()
        self._log_state = event_log_state(context.instance, project)
        self._log_state.verdicts.prepare()
        self._is_automated = PROJECT_TAG in context.run.tags
        aware = config.state_aware
        self._is_state_aware = self._is_automated if aware is None else aware
        self._selected = self._selection()
        self._executed_again = failed_in_parent(context.instance, context.run, self._keys)
        """What failed in the run that this one executes again, None where there is none."""
        self._requests = self._requested()
        self._planner = RunPlanner(
            self._loaded,
            frozenset(self._selected),
            self._requests,
            Mode.SENSOR if self._is_automated else Mode.JOB,
            context.run.run_id,
            defers=config.defer,
            favors_state=config.favor_state,
        )
        self._tests = RunTests(
            context, self._loaded, self._selected, state_aware=self._is_state_aware, strategy=self._test_strategy()
        )
        if self._executed_again is not None:
            verdicts = self._log_state.verdicts.read()
            self._tests.insist(uid for uid, verdict in verdicts.items() if verdict.is_failing)
        self._deferred_tests: dict[str, None] = {}
        self._leases = Leases(context.instance, context.run.run_id)
        self._relations = {uid: self._relation(uid) for uid in (*self._graph.nodes, *self._graph.functions)}
        self._writers = RunWriters(
            context.instance,
            self._loaded,
            self._leases,
            self._relations,
            project.state_name,
            context.run.run_id,
        )
        self._functions_due: Mapping[str, FunctionDecision] = {}
        self._functions = RunFunctions(self._log_state.functions, self._loaded.project, context.run.run_id)
        self._capture = RunCapture(
            context,
            project,
            self._loaded,
            self._selected,
            refresh=config.refresh_sources and not self._is_automated,
            may_ask=config.refresh_sources,
            state_aware=self._is_state_aware,
        )
        self._report = RunReport(context.log, self._graph, self._keys, project.environment)
        self._recorder = Recorder(
            context,
            self._loaded.project,
            self._report,
            self._log_state.builds_elsewhere,
            self._writers.attempt_id,
            self._log_state.place,
        )
        self._invocations = Invocations(self._loaded, self._recorder.decisions, self._selection_words())
        self._process: DbtProcess | None = None
        self._target: Path | None = None
        """Where dbt writes a folder each time that it is started."""
        self._said_waiting: dict[str, str] = {}
        self._interrupted: set[str] = set()
        """What dbt may have begun when it stopped at the first failure."""
        self._lost = ""
        self._errors: list[str] = []

    def run(self) -> Iterator[Any]:
        end_dead_runs(self._context.instance)
        expect_no_check_results(self._context)
        with self._leases.heartbeat(self._lose, step_key=step_key(self._context), renewed=self._renewed):
            with closing(self._capture):
                self._capture.look()
                self._report.source_problems = self._capture.problems
                yield from self._rounds()
                yield from self._run_deferred_tests()
                self._note_what_moved()
            is_whole = not (self._recorder.failed or self._recorder.limited_builds or self._lost)
            ended_well = self._context.run.run_id if is_whole else None
            self._log_state.settle(self._keys, clock.now(), ended_well)
        if self._report.outcomes or self._report.tests or self._report.functions:
            instance, run = self._context.instance, self._context.run
            text, metadata = self._report.summary(time.monotonic() - self._started)
            report_engine_event(instance, run, masked(text), masked_metadata(metadata))
        # A run that came out well would seem to have mended the failure.
        if not self._errors and (stuck := self._report.stuck()):
            self._errors.append(stuck)
        if self._errors:
            raise dg.Failure(" ".join(dict.fromkeys(self._errors)))

    def clean_up(self, kept: int) -> None:
        """Remove the folders that dbt wrote for runs that have ended, but for the newest `kept`."""
        if self._target is not None:
            remove_old_folders(self._target, self._context.instance, kept)

    # What is asked for

    def _selection(self) -> set[str]:
        assets = self._context.selected_asset_keys
        selected = {uid for key in assets if (uid := self._keys.unique_ids.get(key)) in self._keys.nodes}
        config = self._config
        if not (config.select or config.exclude or config.selector):
            return selected
        wanted = NodeSelection(config.select, config.exclude, config.selector, state=config.state_path)
        return selected & resolve_selection(self._project, self._loaded, wanted, warn=self._context.log.warning)

    def _selection_words(self) -> SelectionWords:
        manifest, dbt_project = self._loaded.manifest, self._project.dbt_project
        return SelectionWords(manifest, WordSelector(manifest, dbt_project.project_dir, dbt_project.profiles_dir))

    def _requested(self) -> dict[str, Request]:
        if "--full-refresh" in self._args:
            return dict.fromkeys(self._selected, Request.FULL_REFRESH)
        asked = set(json.loads(self._context.run.tags.get(CONDITION_TAG, "[]"))) & self._selected
        asked |= (self._executed_again or set()) & self._selected
        requests = explicit_requests(
            self._project, self._loaded, self._selected, self._config, state_aware=self._is_state_aware
        )
        return {**dict.fromkeys(asked, Request.BUILD), **requests}

    def _test_strategy(self) -> TestStrategy:
        # Of dbt's commands that build, only `build` tests.
        return self._config.test_strategy if self._args[:1] == ["build"] else TestStrategy.SKIP

    def _relation(self, uid: str) -> str:
        graph = self._graph
        if uid in graph.functions:
            return digest([graph.adapter_type, "function", graph.functions[uid].relation_name.lower()])
        return digest([graph.adapter_type, (graph.nodes[uid].relation_name or f"{self._project.name}.{uid}").lower()])

    # Rounds: one, unless others are building some of it, or what failed is tried again

    def _rounds(self) -> Iterator[Any]:
        todo, retries, is_done = set(self._selected), self._config.retries, False
        while not is_done and not self._is_stopped:
            round_ = self._begin(todo)
            if todo and todo == round_.waiting:
                yield from self._wait(round_)
                continue
            yield from self._build(round_, is_last=not retries)
            todo = set(round_.waiting)
            is_done = not todo
            if is_done and retries and (self._recorder.failed or self._recorder.retryable_tests):
                self._pause_before_retry(retries)
                todo, retries, is_done = self._again(), retries - 1, False
        yield from self._not_started(uid for uid in self._graph.nodes if uid in todo)
        if self._lost:
            self._errors.append(self._lost)

    def _begin(self, todo: set[str]) -> _Round:
        """Decide, claim what is to be built, and decide again until nothing more has to be claimed."""
        while True:
            state = self._capture.state(frozenset(self._recorder.holding | self._recorder.skipped))
            plan = self._planner.decide(state, clock.now(), self._tests.scope, todo=todo, requests=self._requests)
            functions = [uid for uid, decision in plan.functions.items() if decision.creates]
            claim = self._leases.claim(self._relations[uid] for uid in (*plan.builds, *functions))
            held_by = self._held_by(claim.held_by, plan.builds, functions)
            waiting = frozenset(held_by) | (
                self._graph.descendants(held_by) & set(plan.decisions) if held_by else set()
            )
            round_ = _Round(state, plan, waiting, held_by, frozenset(claim.held_by))
            # Nothing is held while something is waited for.
            tests = self._tests.ready(plan.test_runs, waiting)
            kept = (*round_.builds, *self._invocations.functions(round_.builds, tests), *plan.uncalled)
            self._leases.release(self._leases.held - {self._relations[uid] for uid in kept})
            if not claim.granted & self._leases.held:
                return round_

    def _held_by(self, taken: Mapping[str, str], builds: Sequence[str], functions: Sequence[str]) -> dict[str, str]:
        """Return what others keep from being built or created now, by who `taken` says holds its relation."""
        found = {uid: taken[self._relations[uid]] for uid in (*builds, *functions) if self._relations[uid] in taken}
        # Two runs may have two versions of one function: its callers are built with the one that their own run created.
        for uid in builds:
            for function in self._graph.nodes[uid].functions:
                if function in found:
                    found.setdefault(uid, found[function])
        return found

    def _wait(self, round_: _Round) -> Iterator[Any]:
        """Wait until one of the models that others are building is free."""
        yield from self._say_waiting(round_)
        self._poll_until_free(round_.taken)

    def _poll_until_free(self, relations: frozenset[str]) -> None:
        """Return when others have let go of one of `relations`."""
        while len(self._leases.holders(relations)) == len(relations) and not self._lost:
            time.sleep(_POLL_SECONDS)

    def _say_waiting(self, round_: _Round) -> Iterator[Any]:
        for uid in (uid for uid in self._graph.nodes if uid in round_.waiting):
            run_id = round_.held_by.get(uid)
            what = "it" if self._relations[uid] in round_.taken else "a function that it calls"
            message = f"Waits for run {run_id[:8]}, which is building {what}" if run_id else "Waits for what it reads"
            if self._said_waiting.get(uid) != message:
                self._said_waiting[uid] = message
                yield self._report.waits(uid, message)

    def _again(self) -> set[str]:
        """Return the nodes that are tried again: those that failed, and what these or a test that could not be run held back."""
        failed, tests = set(self._recorder.failed), self._recorder.retryable_tests
        blocked = (self._graph.descendants(failed) | self._gated_by(tests)) & self._recorder.skipped
        self._recorder.start_anew(failed | blocked, tests)
        # The reason of the first attempt still holds, but a node that just failed would be held.
        self._requests = {**self._requests, **{uid: self._requests.get(uid, Request.BUILD) for uid in failed}}
        self._tests.reopen(tests, failed | blocked)
        return failed | blocked

    def _pause_before_retry(self, retries: int) -> None:
        attempt = self._config.retries - retries
        seconds = self._config.retry_delay_seconds * 2**attempt
        again = sorted(self._recorder.failed | self._recorder.retryable_tests)
        names = ", ".join(self._graph.label(uid) for uid in again)
        self._context.log.warning(
            f"Tries {names} again in {seconds:g} s (retry {attempt + 1} of {self._config.retries})."
        )
        if self._recorder.failed_tests == self._recorder.retryable_tests:
            self._errors.clear()
        time.sleep(seconds)

    def _gated_by(self, tests: Iterable[str]) -> set[str]:
        return {uid for test in tests for uid in self._graph.gates.gated_by(test)}

    @property
    def _is_stopped(self) -> bool:
        has_failed = bool(self._recorder.failed or self._recorder.failed_tests)
        return bool(self._lost) or (self._config.fail_fast and has_failed)

    def _not_started(self, nodes: Iterable[str]) -> Iterator[Any]:
        """Say of nodes that the run does not come to them."""
        why = self._lost or "Not started: the run stops at the first failure (fail_fast)"
        for uid in nodes:
            self._recorder.skipped.add(uid)
            yield self._report.not_started(uid, why)

    # One round

    def _build(self, round_: _Round, *, is_last: bool) -> Iterator[Any]:
        plan = round_.plan
        self._functions.begin(round_.state.functions)
        self._functions_due = plan.functions
        tests = self._tests.ready(plan.tests, round_.waiting)
        due = [uid for uid in tests if plan.tests[uid].runs]
        self._recorder.begin(plan, self._planner.captured(round_.state), round_.waiting)
        self._report.planned(plan, round_.builds, round_.waiting, due)
        yield from self._say_waiting(round_)
        yield from self._reuse(round_)
        yield from self._not_tested([uid for uid in tests if not plan.tests[uid].runs], round_)
        if self._config.test_strategy is TestStrategy.DEFERRED:
            self._deferred_tests.update(dict.fromkeys(due))
            due = []
        if round_.builds:
            self._log_state.unsettle(self._context.run, self._loaded.project, round_.builds, round_.state)
        self._writers.begin(round_.builds, plan.decisions, round_.state)
        yield from (self._report.starts(uid) for uid in round_.builds if self._said_waiting.pop(uid, ""))
        invocations = self._invocations.choose(plan.in_order(round_.builds, due))
        uncalled = [uid for uid in plan.uncalled if uid not in round_.waiting]
        if uncalled:
            # With the last: they may read what is built before.
            invocations = invocations or [Invocation()]
            invocations[-1].uncalled = uncalled
        for invocation in invocations:
            yield from self._run_invocation(invocation, is_last=is_last)
        self._tests.answer(tests)
        self._writers.end(
            {uid: self._recorder.failures[uid] for uid in self._recorder.failed | self._recorder.limited_builds},
            self._recorder.skipped - self._interrupted,
        )

    def _reuse(self, round_: _Round) -> Iterator[Any]:
        observations = []
        for uid, decision in round_.plan.decisions.items():
            if not decision.builds and uid not in round_.waiting:
                if decision.action is not Action.REUSE:
                    self._recorder.skipped.add(uid)
                observations.append(self._report.not_built(uid, decision, round_.state.builds.get(uid)))
        yield from store_step_events(self._context, observations)

    def _not_tested(self, tests: Sequence[str], round_: _Round) -> Iterator[Any]:
        """Report the tests that are not run: of what is reused its verdict, as it was."""
        decisions, verdicts = round_.plan.tests, round_.state.verdicts
        for uid in tests:
            self._report.not_run(uid, decisions[uid], verdicts.get(uid))
        reused = [uid for uid in tests if decisions[uid].action is TestAction.REUSE and uid in self._tests.planned]
        checks = {uid: self._tests.checks[uid] for uid in reused}
        yield from store_step_events(self._context, reused_checks(checks, decisions, verdicts))

    def _run_invocation(self, invocation: Invocation, *, is_last: bool) -> Iterator[Any]:
        if self._is_stopped:
            yield from self._not_started(invocation.nodes)
            return
        yield from self._without_functions(invocation.nodes)
        blocked = self._blocked()
        yield from (self._skipped(uid) for uid in invocation.nodes if uid in blocked - self._recorder.failed)
        nodes = [uid for uid in invocation.nodes if uid not in blocked]
        unknown = blocked - (self._recorder.failed - self._recorder.holding)
        tests = [uid for uid in invocation.tests if unknown.isdisjoint(self._graph.tests[uid].about)]
        functions = [*self._functions_for(nodes, tests), *invocation.uncalled]
        if functions and not nodes:
            # `dbt test` creates none, and `dbt build` does not run all tests.
            yield from self._run_dbt(invocation, [], [], is_last=is_last, functions=functions)
            functions = []
        tests = [uid for uid in tests if not self._functions.failed_among(self._graph.tests[uid].functions)]
        if nodes or tests:
            yield from self._run_dbt(invocation, nodes, tests, is_last=is_last, functions=functions)
        yield from self._report_unanswered(invocation.tests)
        self._write_verdicts()

    def _functions_for(self, nodes: Sequence[str], tests: Sequence[str]) -> list[str]:
        """Return the functions that are to be created for nodes and tests: those that this round has not created."""
        return self._invocations.functions(nodes, tests, self._functions.created | self._functions.failed)

    def _without_functions(self, nodes: Iterable[str]) -> Iterator[dg.AssetObservation]:
        """Record that nodes cannot be built because dbt could not create a function that they call."""
        for uid in nodes:
            failed = self._functions.failed_among(self._graph.nodes[uid].functions)
            if failed and uid not in self._recorder.built | self._recorder.failed:
                yield self._recorder.build_failed(uid, upstream_failed(failed, self._loaded.project.labels))

    def _run_dbt(
        self,
        invocation: Invocation,
        nodes: Sequence[str],
        tests: Sequence[str],
        *,
        functions: Sequence[str],
        is_last: bool,
    ) -> Iterator[Any]:
        """Run dbt once: create functions, build nodes and run tests."""
        arguments = self._invocations.arguments(invocation, nodes, tests, self._args, functions)
        # A failure that is tried again is none yet.
        if self._config.fail_fast and is_last:
            arguments.append("--fail-fast")
        self._recorder.replace_functions(self._functions.start(functions))
        self._recorder.attempt(nodes)
        self._capture.expect(self._recorder.state, nodes, tests)
        seeds = dict(seed_files(self._project.dbt_project.project_dir, self._loaded.manifest, nodes))
        if not self._still_holds([*nodes, *functions]):
            yield from self._left_to_others(nodes)
            return
        self._process = DbtProcess(
            self._context,
            self._dbt,
            self._project,
            self._loaded,
            arguments,
        )
        self._target = self._process.invocation.target_path.parent
        events = DbtEventIterator(
            self._events(self._process, nodes, [*tests, *functions], seeds), self._process.invocation
        )
        for event in self._finish(events):
            yield event
            # Stored by now: others may build what this run has built.
            if (uid := recorded_build(event)) is not None:
                self._writers.built(uid, self._recorder.builds[uid])
        self._write_verdicts()
        self._report.is_untraced |= not self._process.is_traced() and not self._recorder.built.isdisjoint(nodes)
        yield from self._failures(self._process, nodes, functions)
        yield from self._not_done(self._process, nodes, tests, functions)
        self._write_functions()
        self._process = None

    def _blocked(self) -> set[str]:
        """Return what cannot be built after what has failed in this run, and what failed itself."""
        failed = self._recorder.failed
        below = failed | self._graph.descendants(self._recorder.holding) if failed else set()
        if self._config.test_strategy is not TestStrategy.IMMEDIATE:
            return below
        return below | (self._gated_by(self._recorder.failed_tests) - self._recorder.built)

    def _events(
        self, process: DbtProcess, nodes: Sequence[str], others: Sequence[str], seeds: Mapping[str, SeedFile]
    ) -> Iterator[Any]:
        checksums = {uid: seed.checksum for uid, seed in seeds.items() if seed.checksum}
        seen = Sightings(process, [*nodes, *others], checksums)
        answered: set[str] = set()
        for event in self._proven(process, seeds):
            if self._lost:
                continue  # others may be building by now: what dbt says is no longer what the relations hold
            if (function := function_created_in(event.raw)) is not None:
                self._function_created(function, seen.code(function))
            answer = answer_in(event.raw)
            test = self._tests.test(answer.unique_id) if answer is not None else None
            if answer is not None and test is not None:
                if test.unique_id in answered:  # dbt logs it in two ways
                    continue
                answered.add(test.unique_id)
                if self._functions.missing_among(test.functions):
                    answer = replace(answer, status=VerdictStatus.ERROR)  # it may have called other code
                self._recorder.answered(test, answer, seen)
                # One that Dagster shows on no asset is in the run's table alone.
                if (check := self._tests.checks.get(test.unique_id)) is not None:
                    yield from self._recorder.check_events(test.unique_id, check, event.asset_events)
                continue
            if not event.is_result:
                continue
            uid = event.unique_id
            if self._is_unasked(event, nodes):
                if uid not in answered:
                    answered.add(uid)
                    yield from self._not_asked_for(uid)
            # dagster-dbt takes what dbt reuses for built.
            elif uid not in self._graph.nodes or is_build(event.raw):
                for asset_event in event.asset_events():
                    if not isinstance(asset_event, dg.Output) or self._still_holds([uid]):
                        yield self._recorded(asset_event, event, seen)

    def _is_unasked(self, event: DbtEvent, nodes: Collection[str]) -> bool:
        """Return whether dbt built something that it was not asked for. Tests are let run with others of their name."""
        uid = event.unique_id
        is_newer = event.resource_type in _IN_NODES and uid not in self._loaded.manifest["nodes"]
        return is_newer or (uid in self._graph.nodes and uid not in nodes and is_build(event.raw))

    def _not_asked_for(self, uid: str) -> Iterator[Any]:
        """Report what dbt did beside what it was asked for."""
        if uid not in self._graph.nodes:
            self._context.log.warning(f"dbt ran {uid}, which is newer than this run's manifest: it is not recorded.")
            return
        why = (
            f"dbt built {self._graph.label(uid)}, which this run did not ask for: the project has changed since this run's manifest"
            " was parsed. Parse the project again, and reload the code location."
        )
        self._errors.append(why)
        yield self._recorder.build_failed(uid, why)

    def _recorded(self, asset_event: object, event: DbtEvent, seen: Sightings) -> object:
        """Return one of dagster-dbt's events with the build record, where what dbt built is what it was asked for."""
        if isinstance(asset_event, dg.Output):
            uid = event.unique_id
            if missing := self._not_created_for(uid, seen.code(uid)):
                name = self._graph.label(uid)
                why = f"dbt built {name} without creating {', '.join(missing)} first, so with other code than the project's."
                self._errors.append(why)
                return self._recorder.build_failed(uid, why)
            if why := self._not_refreshed(uid, event):
                self._errors.append(f"{self._graph.label(uid)}: {why}.")
                return self._recorder.build_failed(uid, why)
            if self._limits is not None and uid in self._graph.nodes:
                return self._recorder.limited(uid, self._limits)
        return self._recorder.recorded(asset_event, event.raw, seen)

    def _not_refreshed(self, uid: str, event: DbtEvent) -> str:
        """Return why dbt did not refresh a materialized view that it calls a success; empty for any other node."""
        node = self._graph.nodes.get(uid)
        if node is None or not is_materialized_view(node):
            return ""
        was_there = uid in self._recorder.state.builds and uid not in self._recorder.state.missing_relations
        is_created = self._recorder.decisions[uid].full_refresh
        return not_refreshed(str(event.raw["data"].get("status") or ""), was_there=was_there and not is_created)

    def _not_created_for(self, uid: str, read: Fingerprint | None) -> list[str]:
        """Return the names of the functions that a node calls and that dbt has not created before it.

        `read` is the code that dbt read, which may call others than the plan's.
        """
        if uid not in self._graph.nodes:
            return []
        missing = self._functions.missing_among(self._graph.nodes[uid].functions)
        planned = self._loaded.project.fingerprints[uid].functions
        return [self._graph.label(function) for function in missing] + sorted(
            (read.functions if read else planned) - planned
        )

    def _function_created(self, uid: str, code: Fingerprint | None) -> None:
        if uid not in self._graph.functions:
            return  # newer than the plan, which calls it nowhere
        known = (code or self._loaded.project.fingerprints[uid]).digest
        self._functions.create(uid, known)
        decision = self._functions_due.get(uid)
        self._report.functions[uid] = (
            "created",
            decision.message if decision is not None else "dbt created it with others",
        )
        self._recorder.function_created(uid, known)

    def _write_functions(self) -> None:
        try:
            self._functions.write()
        except DagsterSaoError as error:
            # One of which nothing is known is created again with the views that call it.
            self._context.log.warning(sentence(error))

    def _proven(self, process: DbtProcess, seeds: Mapping[str, SeedFile]) -> Iterator[DbtEvent]:
        """Yield what dbt says once it is known whether what it read is what was captured: no record claims more."""
        waiting: list[DbtEvent] = []
        for event in process.events():
            waiting.append(event)
            if not any(one.is_result for one in waiting) or self._capture.is_due_again():
                yield from self._taken(process, waiting, seeds)
                waiting = []
        yield from self._taken(process, waiting, seeds)

    def _taken(
        self, process: DbtProcess, events: Sequence[DbtEvent], seeds: Mapping[str, SeedFile]
    ) -> Iterator[DbtEvent]:
        if any(event.is_result for event in events):
            moved, unknown = self._capture.look_again(process.file_read())
            loaded = frozenset(uid for uid, seed in seeds.items() if seed.has_moved)
            self._recorder.looked_again(moved, unknown, loaded)
        yield from events

    def _report_unanswered(self, tests: Iterable[str]) -> Iterator[Any]:
        """Report the tests that were due and that dbt did not come to: what they read is not there to be tested."""
        unknown = self._recorder.failed | self._recorder.skipped
        labels = self._loaded.project.labels
        for uid in tests:
            if uid in self._recorder.verdicts:
                continue
            test = self._graph.tests[uid]
            functions = self._functions.failed_among(test.functions)
            if functions and test.model not in unknown:
                # Without an answer it would be asked for again at once.
                yield from self._recorder.not_runnable(
                    test, self._tests.checks.get(uid), upstream_failed(functions, labels)
                )
            else:
                about = self._graph.tests[uid].about
                missing = [read for read in about if read in unknown] or about
                message = upstream_failed(missing, labels)
                self._report.not_run(uid, TestDecision(TestAction.SKIP, TestReason.UPSTREAM_FAILED, message), None)

    def _write_verdicts(self) -> None:
        if self._lost:
            return
        try:
            self._log_state.verdicts.write(self._recorder.take_unwritten(), self._graph.tests)
        except DagsterSaoError as error:
            # A test without its verdict is run again: nothing is taken for tested that was not.
            self._context.log.warning(f"{sentence(error)} Their tests are run again.")

    def _failures(self, process: DbtProcess, nodes: Sequence[str], functions: Sequence[str]) -> Iterator[Any]:
        error = process.error()
        if self._lost:
            yield from self._left_to_others(nodes)
            return
        if not error:
            return
        self._errors.append(error)
        if self._config.fail_fast:
            self._interrupted.update(nodes)
        killed = process.killed_by()
        results, statuses = process.results(), process.statuses()
        # One that dbt skipped reads something that failed: so do its callers.
        not_created = self._functions.missing_among(functions)
        broken = [uid for uid in not_created if statuses.get(uid, "skipped" if killed else "error") != "skipped"]
        self._functions.fail(broken)
        self._report.functions.update(dict.fromkeys(broken, ("failed", "dbt could not create it")))
        yield from self._without_functions(nodes)
        for uid in nodes:
            if uid in self._recorder.built | self._recorder.failed:
                continue
            status = statuses.get(uid)
            if killed and status is None:
                yield self._recorder.interrupted(uid, killed)
            elif status != "skipped":
                yield self._recorder.build_failed(uid, batches=batch_results(results, uid))
        blocked = self._blocked()
        for uid in nodes:
            if uid not in self._recorder.built | self._recorder.failed:
                is_below = uid in blocked or not self._config.fail_fast
                yield from [self._skipped(uid)] if is_below else self._not_started([uid])

    def _not_done(
        self, process: DbtProcess, nodes: Sequence[str], tests: Sequence[str], functions: Sequence[str]
    ) -> Iterator[Any]:
        """Fail what dbt was asked for and did not do, though it ended well: without a word it would be asked again, for ever."""
        if process.error():
            return
        missing = [uid for uid in nodes if uid not in self._recorder.built | self._recorder.failed]
        unanswered = [uid for uid in tests if uid not in self._recorder.verdicts]
        not_created = self._functions.missing_among(functions)
        if not (missing or unanswered or not_created):
            return
        names = {uid: self._graph.label(uid) for uid in (*missing, *unanswered, *not_created)}
        reasons = list(unaccounted(names, process.statuses(), process.known()))
        self._errors += reasons
        why = " ".join(reasons)
        self._functions.fail(not_created)
        self._report.functions.update(dict.fromkeys(not_created, ("failed", why)))
        for uid in missing:
            yield self._recorder.build_failed(uid, why)
        for uid in unanswered:
            yield from self._recorder.not_runnable(self._graph.tests[uid], self._tests.checks.get(uid), why)

    def _skipped(self, uid: str) -> dg.AssetObservation:
        """Report a node that is not built for what failed in this run."""
        self._recorder.skipped.add(uid)
        labels, gates = self._loaded.project.labels, self._graph.gates
        tests = tuple(sorted(test for test in self._recorder.failed_tests if gates.gates(test, uid)))
        if tests and self._config.test_strategy is TestStrategy.IMMEDIATE:
            message = upstream_test_failed(tests, labels)
            return self._report.not_built(uid, Decision(Action.HOLD, Reason.UPSTREAM_TEST_FAILED, message, tests), None)
        parents = self._graph.nodes[uid].parents
        failed = [p for p in parents if p in self._recorder.holding | self._recorder.skipped]
        message = upstream_failed(failed or parents, labels)
        return self._report.not_built(uid, Decision(Action.SKIP, Reason.UPSTREAM_FAILED, message), None)

    def _run_deferred_tests(self) -> Iterator[Any]:
        """Run the tests that were due, after all that was built."""
        unknown = self._recorder.holding | self._recorder.skipped
        due = [uid for uid in self._deferred_tests if unknown.isdisjoint(self._graph.tests[uid].about)]
        self._hold(self._invocations.functions([], due))
        self._functions.begin(self._log_state.functions.read() if self._graph.functions else {})
        for invocation in self._invocations.choose(due):
            yield from self._run_invocation(invocation, is_last=True)

    def _note_what_moved(self) -> None:
        """Note what moved while the run built what reads it: its own hooks may have moved it, which is news once only."""
        built, instance = self._recorder.built, self._context.instance
        if not built or self._lost:
            return
        self._capture.note_database()
        try:
            found = self._capture.found_at_end(self._recorder.state, built, has_hooks=self._has_hooks(built))
        except DagsterSaoError as error:
            self._context.log.warning(f"What moved during this run is not known: {sentence(error)}")
            return
        state = take_snapshot(instance, self._project, self._loaded, clock.now())
        moved = {uid: parents for uid, parents in self._recorder.moved_in_run(*found).items() if uid in state.builds}
        write_moved(instance, self._project.state_name, state.builds, moved)

    def _has_hooks(self, built: Iterable[str]) -> bool:
        nodes: Mapping[str, Any] = self._loaded.manifest["nodes"]
        configs = (nodes[uid].get("config") or {} for uid in built)
        return any(config.get("pre-hook") or config.get("post-hook") for config in configs) or any(
            node.get("resource_type") == "operation" for node in nodes.values()
        )

    def _hold(self, functions: Iterable[str]) -> None:
        """Return when this run may create functions, and nobody else does."""
        relations = {self._relations[uid] for uid in functions}
        while (taken := self._leases.claim(relations).held_by) and not self._lost:
            self._leases.release()
            self._poll_until_free(frozenset(taken))

    def _still_holds(self, unique_ids: Iterable[str]) -> bool:
        """Return whether this run still holds what it leased of nodes and functions; otherwise it stops writing."""
        if not self._lost and not self._leases.keep(self._relations[uid] for uid in unique_ids):
            self._lose(LEASES_LOST)
        return not self._lost

    def _left_to_others(self, nodes: Iterable[str]) -> Iterator[Any]:
        """Report nodes whose leases ran out: another run may be building them, or may have built them."""
        for uid in nodes:
            if uid not in self._recorder.built | self._recorder.failed:
                self._recorder.skipped.add(uid)
                yield self._report.lost(uid, self._lost)

    def _renewed(self) -> None:
        if (process := self._process) is not None:
            process.leases_renewed()

    def _lose(self, why: str) -> None:
        """Stop writing, in any thread: others may build what this run was building."""
        self._lost = why
        if self._process is not None:
            # Beside the thread that takes what dbt says, which dbt may wait for.
            threading.Thread(target=self._process.stop, name="dagster_sao-stop", daemon=True).start()


def _for_project(dbt: DbtCliResource, project: OrchestratedProject) -> DbtCliResource:
    """Return the resource with the target and profile that the plan was made for, also where the environment names them."""
    own = project.dbt_project
    named = {"target": own.target, "profile": own.profile}
    return dbt.model_copy(update={name: value for name, value in named.items() if value is not None})


def _dbt_arguments(args: Sequence[str], config: StateAwareRunConfig, project: OrchestratedProject) -> list[str]:
    check_no_selection(args, "dbt_args")
    arguments = without_hiding(without_settings(args, "--vars"))
    if project.dbt_project.target is not None:
        arguments = without_settings(arguments, "--target")
    if project.dbt_project.profile is not None:
        arguments = without_settings(arguments, "--profile")
    # What is computed for a run, such as from its partition, is known here and nowhere else.
    given = {name: v for name, v in read_arguments(args, "dbt_args").variables.items() if name not in config.vars}
    arguments += vars_arguments({**project.variables, **given})
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
