"""The body of the dbt assets: capture, decide, lease, build, record.

The versions that a build consumes are frozen before dbt starts; its record is part of the event that dbt's own success
leads to. So a run that is killed at any instant leaves the state at or behind the warehouse, never ahead of it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

import dagster as dg
from dagster_dbt import DbtCliResource

from dagster_sao.core.decision.decide import Action
from dagster_sao.core.decision.decide_tests import TestAction
from dagster_sao.core.errors import DagsterSaoError
from dagster_sao.orchestration import clock
from dagster_sao.orchestration.dbt.commands import Invocation, Invocations
from dagster_sao.orchestration.dbt.efficient_testing import TestSettings
from dagster_sao.orchestration.dbt.invocation_folders import DEFAULT_KEPT, remove_old_folders
from dagster_sao.orchestration.events.batched_events import store_step_events
from dagster_sao.orchestration.events.door import errors_masked, mask_log, masked_event, masked_metadata
from dagster_sao.orchestration.leases.dead_runs import end_dead_runs
from dagster_sao.orchestration.messages import sentence
from dagster_sao.orchestration.private.dagster_internals import (
    expect_no_check_results,
    remember_outputs,
    report_engine_event,
)
from dagster_sao.orchestration.private.dbt_commands import lean_resource
from dagster_sao.orchestration.private.open_files import kept_open
from dagster_sao.orchestration.project.dbt_arguments import command_of
from dagster_sao.orchestration.project.in_memory import refuse_what_does_not_survive
from dagster_sao.orchestration.project.orchestrated import OrchestratedProject
from dagster_sao.orchestration.runs.capture import RunCapture
from dagster_sao.orchestration.runs.claims import Attempt, Claims, ready_tests
from dagster_sao.orchestration.runs.config import StateAwareRunConfig, TestStrategy, with_job_config
from dagster_sao.orchestration.runs.dbt_runs import DbtRuns
from dagster_sao.orchestration.runs.outcomes import Outcomes
from dagster_sao.orchestration.runs.recorder import Recorder
from dagster_sao.orchestration.runs.report import RunReport, reused_checks
from dagster_sao.orchestration.runs.run_plan import RunInputs, RunPlan, decide_run
from dagster_sao.orchestration.runs.setup import Finish as Finish  # noqa: PLC0414 (part of what is called here)
from dagster_sao.orchestration.runs.setup import RunSetup, read_setup
from dagster_sao.orchestration.selection.resolve import selection_words
from dagster_sao.orchestration.state.read_state import read_state
from dagster_sao.orchestration.state.relation_notes import write_moved
from dagster_sao.warehouse.dbt_private.environment import is_imported_dbt
from dagster_sao.warehouse.redaction import masked


def execute_dbt_assets(  # noqa: PLR0913
    context: dg.AssetExecutionContext,
    dbt: DbtCliResource,
    project: OrchestratedProject,
    *,
    args: Sequence[str] = ("build",),
    config: StateAwareRunConfig | None = None,
    finish: Finish | None = None,
    kept_dbt_folders: int = DEFAULT_KEPT,
    testing: TestSettings | None = None,
) -> Iterator[Any]:
    """Build the selected dbt assets that are to be built, and report the others as reused.

    In a run that is state-aware, such as the automation sensor's, each node is decided again; in any other run the user
    asked for what is selected, and all of it is built. Yields what dagster-dbt yields, with the build record on each
    output.

    Raises dagster.Failure when a node or an error-severity test failed, after all that could be built was, or when the
    failure of an earlier run stands.
    """
    mask_log(context.log)
    with errors_masked(), kept_open(context.instance, context.run.run_id):
        config = with_job_config(context, config or StateAwareRunConfig())
        try:
            variant = project.variant(config.target, config.vars)
            if variant is not project:
                refuse_what_does_not_survive(variant, variant.load())
            args = command_of(dbt, args)
            dbt = _for_project(dbt, variant, needs_adapter=finish is not None)
            execution = _Execution(read_setup(context, dbt, variant, args, config, finish, testing or TestSettings()))
            try:
                yield from map(masked_event, execution.run())
            finally:
                execution.clean_up(kept_dbt_folders)
        except DagsterSaoError as error:
            raise dg.Failure(sentence(error)) from None


class _Execution:
    """Makes attempts: one, unless other runs are building some of it, or what failed is tried again."""

    def __init__(self, setup: RunSetup) -> None:
        self._setup, self._config, self._graph = setup, setup.config, setup.graph
        self._started = time.monotonic()
        self._outcomes = Outcomes(setup.graph, setup.asked)
        self._claims = Claims(setup, self._outcomes)
        self._capture = RunCapture(setup)
        self._report = RunReport(setup.context.log, setup.graph, setup.loaded.keys, setup.project.environment)
        self._recorder = Recorder(setup, self._outcomes, self._report, self._claims.writers.attempt_id)
        self._invocations = Invocations(setup.loaded, selection_words(setup.project, setup.loaded))
        self._dbt = DbtRuns(
            setup, self._outcomes, self._recorder, self._report, self._claims, self._capture, self._invocations
        )
        self._said_waiting: dict[str, str] = {}
        self._restored: set[str] = set()
        """The views that were skipped after a failure, and for which it was decided whether they are created all the same."""

    def run(self) -> Iterator[Any]:
        setup, outcomes = self._setup, self._outcomes
        end_dead_runs(setup.instance)
        expect_no_check_results(setup.context)
        remember_outputs(setup.context)
        with self._claims.heartbeat():
            with closing(self._capture):
                self._capture.look()
                self._report.sources_had(self._capture.problems)
                yield from self._attempts()
                yield from self._run_deferred_tests()
                self._note_what_is_left()
            ended_well = setup.run_id if outcomes.is_whole else None
            setup.log_state.settle(setup.loaded.keys, clock.now(), ended_well)
        if self._report.has_anything:
            text, metadata = self._report.summary(time.monotonic() - self._started)
            self._report_on_run(text, metadata)
        # A successful run would look as if it had mended the failure.
        if not outcomes.errors and (stuck := self._report.stuck(setup.asked.selected)):
            outcomes.error(stuck)
        if outcomes.errors:
            raise dg.Failure(" ".join(outcomes.errors))

    def _report_on_run(self, text: str, metadata: Mapping[str, Any]) -> None:
        report_engine_event(self._setup.instance, self._setup.context.run, masked(text), masked_metadata(metadata))

    def clean_up(self, kept: int) -> None:
        """Remove the folders that dbt wrote for runs that have ended, but for the newest `kept`."""
        if self._dbt.target is not None:
            remove_old_folders(self._dbt.target, self._setup.instance, kept)

    def _attempts(self) -> Iterator[Any]:
        outcomes, config = self._outcomes, self._config
        todo, retries, is_done = set(self._setup.asked.selected), config.retries, False
        is_stopped = partial(outcomes.is_stopped, fail_fast=config.fail_fast)
        while not is_done and not is_stopped():
            attempt = self._attempt(todo)
            if todo and todo == attempt.waiting:
                yield from self._say_waiting(attempt)
                self._claims.wait_until_free(attempt.taken)
                continue
            yield from self._build(attempt, is_last=not retries)
            todo = set(attempt.waiting)
            is_done = not todo
            if is_done and retries and outcomes.is_retryable:
                self._pause_before_retry(retries)
                todo, retries, is_done = outcomes.try_again(), retries - 1, False
            elif is_done and not is_stopped():
                todo = self._views_to_restore()
                is_done = not todo
        yield from self._dbt.not_started(uid for uid in self._graph.nodes if uid in todo)
        if outcomes.lost:
            outcomes.error(outcomes.lost)

    def _attempt(self, todo: set[str]) -> Attempt:
        progress = self._outcomes.progress(todo, self._recorder.stopping)

        def decide() -> RunPlan:
            return decide_run(RunInputs(self._setup.asked, self._capture.state(), clock.now(), progress))

        return self._claims.attempt(decide, self._invocations)

    def _views_to_restore(self) -> set[str]:
        """Return the views that this run dropped, and then skipped because something else that they read failed: once."""
        skipped = {uid for uid in self._outcomes.skipped_builds - self._restored if self._graph.nodes[uid].is_view}
        if not skipped:
            return set()
        self._restored |= skipped
        progress = self._outcomes.progress(skipped, self._recorder.stopping)
        # What was requested is not built on what failed a moment ago, unless it is lost.
        asked = replace(self._setup.asked, requests={})
        plan = decide_run(RunInputs(asked, self._capture.state(), clock.now(), progress)).plan
        return {uid for uid in skipped if plan.decisions[uid].builds and plan.decisions[uid].is_restored}

    def _build(self, attempt: Attempt, *, is_last: bool) -> Iterator[Any]:
        plan, outcomes = attempt.plan, self._outcomes
        self._dbt.begin(attempt.decided.recorded.functions, plan.functions)
        tests = ready_tests(self._graph, plan.tests, attempt.waiting)
        due = [uid for uid in tests if plan.tests[uid].runs]
        self._recorder.begin(attempt.decided, attempt.waiting)
        self._report.planned(plan, attempt.builds, attempt.waiting, due)
        yield from self._say_waiting(attempt)
        yield from self._reuse(attempt)
        # What the run has answered before keeps its answer.
        not_run = [uid for uid in tests if not plan.tests[uid].runs and outcomes.verdict(uid) is None]
        yield from self._not_tested(not_run, attempt)
        if self._config.test_strategy is TestStrategy.DEFERRED:
            outcomes.defer(due)
            due = []
        self._begin_writing(attempt)
        yield from (self._report.starts(uid) for uid in attempt.builds if self._said_waiting.pop(uid, ""))
        for invocation in self._commands(attempt, due):
            yield from self._dbt.run(invocation, is_last=is_last)
        outcomes.close_tests(tests)
        self._claims.writers.end(outcomes.attempts_without_build, outcomes.untouched)

    def _begin_writing(self, attempt: Attempt) -> None:
        setup, recorded = self._setup, attempt.decided.recorded
        if attempt.builds:
            setup.log_state.unsettle(setup.context.run, setup.loaded.project, attempt.builds, recorded)
        limits = self._setup.limits
        self._claims.writers.begin(
            attempt.builds, attempt.plan.decisions, recorded, limits.text if limits is not None else ""
        )

    def _commands(self, attempt: Attempt, tests: Sequence[str]) -> list[Invocation]:
        order = attempt.plan.in_order(attempt.builds, tests)
        uncalled = [uid for uid in attempt.plan.uncalled if uid not in attempt.waiting]
        return self._invocations.choose(order, self._outcomes.decisions, uncalled)

    def _say_waiting(self, attempt: Attempt) -> Iterator[Any]:
        for uid, message in self._claims.waits(attempt):
            if self._said_waiting.get(uid) != message:
                self._said_waiting[uid] = message
                yield self._report.waits(uid, message)

    def _reuse(self, attempt: Attempt) -> Iterator[Any]:
        decisions, builds = attempt.plan.decisions, attempt.decided.recorded.builds
        decided = {uid: one for uid, one in decisions.items() if not one.builds and uid not in attempt.waiting}
        reused = {uid: one for uid, one in decided.items() if one.action is Action.REUSE}
        if reused:
            self._report_on_run(*self._report.reused(reused, builds))
        observations = []
        for uid, decision in decided.items():
            if uid not in reused:
                self._outcomes.skip(uid)
            if uid not in reused or self._config.observe_reused:
                observations.append(self._report.not_built(uid, decision, builds.get(uid)))
        yield from store_step_events(self._setup.context, observations)

    def _not_tested(self, tests: Sequence[str], attempt: Attempt) -> Iterator[Any]:
        """Report the tests that are not run. The verdict of one that is reused stays as it was."""
        decisions, verdicts = attempt.plan.tests, attempt.decided.recorded.verdicts
        for uid in tests:
            self._report.not_run(uid, decisions[uid], verdicts.get(uid))
        planned = self._setup.planned_checks
        reused = [uid for uid in tests if decisions[uid].action is TestAction.REUSE and uid in planned]
        checks = {uid: self._setup.checks[uid] for uid in reused}
        yield from store_step_events(self._setup.context, reused_checks(checks, decisions, verdicts))

    def _pause_before_retry(self, retries: int) -> None:
        retry = self._config.retries - retries
        seconds = self._config.retry_delay_seconds * 2**retry
        again = sorted(self._outcomes.failed | self._outcomes.retryable_tests)
        names = ", ".join(self._graph.label(uid) for uid in again)
        self._setup.context.log.warning(
            f"Tries {names} again in {seconds:g} s (retry {retry + 1} of {self._config.retries})."
        )
        time.sleep(seconds)

    def _run_deferred_tests(self) -> Iterator[Any]:
        """Run the tests that were due, after all that was built."""
        unknown, table = self._recorder.stopping, self._setup.log_state.functions
        tests = self._graph.tests
        due = [uid for uid in self._outcomes.deferred_tests if unknown.isdisjoint(tests[uid].about)]
        self._claims.hold(self._invocations.functions([], due))
        self._dbt.begin(table.read() if self._graph.functions else {})
        for invocation in self._invocations.choose(due, self._outcomes.decisions):
            yield from self._dbt.run(invocation, is_last=True)

    def _note_what_is_left(self) -> None:
        """Note what the run left: the rows that it built, and what moved while it built what reads it.

        The run's own hooks may have moved it, which is news once only.
        """
        built, setup = self._outcomes.built, self._setup
        # Functions alone change a database too.
        self._capture.note_database()
        if not built or self._outcomes.lost:
            return
        try:
            found = self._capture.found_at_end(self._recorder.state, built)
            state = read_state(setup.instance, setup.project, setup.loaded, clock.now())
            moved = {
                uid: parents for uid, parents in self._recorder.moved_in_run(*found).items() if uid in state.builds
            }
            write_moved(setup.instance, setup.project.state_name, state.builds, moved)
            # What was built for an alteration gets its token from a later look: a token taken too early cannot start a loop.
            self._capture.note_what_is_left(built - self._recorder.state.altered_relations.keys())
        except DagsterSaoError as error:
            setup.context.log.warning(f"The warehouse could not be probed after this run: {sentence(error)}")


def _for_project(dbt: DbtCliResource, project: OrchestratedProject, *, needs_adapter: bool) -> DbtCliResource:
    """Return the resource with the target and profile that the plan was made for, also where the environment names them.

    Its flags are among the run's arguments. `needs_adapter` tells whether something will ask the warehouse through dagster-dbt.
    """
    own = project.dbt_project
    named = {"target": own.target, "profile": own.profile}
    given = {name: value for name, value in named.items() if value is not None}
    own_dbt = dbt.model_copy(
        update={**given, "profiles_dir": os.fspath(own.profiles_dir.absolute()), "global_config_flags": []}
    )
    return lean_resource(own_dbt, is_imported=is_imported_dbt(dbt.dbt_executable), needs_adapter=needs_adapter)
