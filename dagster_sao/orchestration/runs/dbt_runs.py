"""The dbt commands of a run, one after another: what each builds, and what its log and its end mean for the run."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg

from dagster_sao.core.build_order import seconds_of_builds
from dagster_sao.core.decision.decide_functions import FunctionDecision
from dagster_sao.core.decision.decide_tests import TestAction, TestDecision, TestReason
from dagster_sao.core.decision.messages import upstream_failed
from dagster_sao.core.errors import DagsterSaoError
from dagster_sao.core.state.state import FunctionState, VerdictStatus
from dagster_sao.orchestration import clock
from dagster_sao.orchestration.dbt.build_results import batch_results
from dagster_sao.orchestration.dbt.commands import Invocation, Invocations
from dagster_sao.orchestration.dbt.efficient_testing import data_test_request
from dagster_sao.orchestration.dbt.process import DbtEvent, DbtProcess, TestAnswer, answer_in, function_created_in
from dagster_sao.orchestration.dbt.sightings import Sightings, read_moment
from dagster_sao.orchestration.dbt.statuses import is_build, unaccounted
from dagster_sao.orchestration.messages import sentence
from dagster_sao.orchestration.private.dagster_internals import DbtEventIterator
from dagster_sao.orchestration.project.seed_files import SeedFile, seed_files
from dagster_sao.orchestration.project.surroundings import Moment
from dagster_sao.orchestration.runs.capture import RunCapture
from dagster_sao.orchestration.runs.claims import Claims
from dagster_sao.orchestration.runs.doubts import Doubts, started_badly
from dagster_sao.orchestration.runs.outcomes import Outcomes
from dagster_sao.orchestration.runs.recorder import Recorder, recorded_build
from dagster_sao.orchestration.runs.report import RunReport
from dagster_sao.orchestration.runs.setup import RunSetup
from dagster_sao.orchestration.state.functions import RunFunctions

_IN_NODES = frozenset({"model", "seed", "snapshot", "test"})
"""The kinds of resources that a manifest has among its `nodes`."""
_FAIL_FAST = frozenset({"--fail-fast", "-x"})


class DbtRuns:
    """Runs dbt for one run, and turns its log into events, records and outcomes."""

    def __init__(  # noqa: PLR0913, PLR0917 (who takes part in a run)
        self,
        setup: RunSetup,
        outcomes: Outcomes,
        recorder: Recorder,
        report: RunReport,
        claims: Claims,
        capture: RunCapture,
        invocations: Invocations,
    ) -> None:
        """Start no dbt yet."""
        self._setup, self._outcomes, self._recorder, self._report = setup, outcomes, recorder, report
        self._claims, self._capture, self._invocations = claims, capture, invocations
        self._graph = setup.graph
        self._labels = setup.loaded.project.labels
        of_run = setup.loaded.project, setup.run_id, setup.functions_with_other_sql
        self._functions = RunFunctions(setup.log_state.functions, *of_run)
        self._doubts = Doubts(setup, outcomes, recorder, self._functions)
        self._functions_due: Mapping[str, FunctionDecision] = {}
        self.target: Path | None = None
        """The folder in which dbt writes a folder for each of its commands; None before the first."""

    def begin(self, states: Mapping[str, FunctionState], due: Mapping[str, FunctionDecision] | None = None) -> None:
        """Begin an attempt, with the states of functions and the decisions about them; None for the decisions of the last one."""
        self._functions.begin(states)
        if due is not None:
            self._functions_due = due

    def run(self, invocation: Invocation, *, is_last: bool) -> Iterator[Any]:
        """Run one command: build its nodes and run its tests, except where an earlier failure forbids it."""
        outcomes = self._outcomes
        if outcomes.is_stopped(fail_fast=self._setup.config.fail_fast):
            yield from self.not_started(invocation.nodes)
            return
        yield from self._without_functions(invocation.nodes)
        blocked, failed = self._blocked(), outcomes.failed
        held = blocked - outcomes.restored(self._recorder.holding)
        yield from (self._skipped(uid) for uid in invocation.nodes if uid in held - failed)
        nodes = [uid for uid in invocation.nodes if uid not in held]
        unknown = blocked - (failed - self._recorder.holding)
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
        self._recorder.write_verdicts()

    def not_started(self, nodes: Iterable[str]) -> Iterator[Any]:
        """Report nodes that the run will not reach."""
        why = self._outcomes.lost or "Not started: the run stops at the first failure (fail_fast)"
        for uid in nodes:
            self._outcomes.skip(uid)
            yield self._report.not_started(uid, why)

    # One command

    def _functions_for(self, nodes: Sequence[str], tests: Sequence[str]) -> list[str]:
        """Return the functions to create for nodes and tests: those that this attempt has not created."""
        return self._invocations.functions(nodes, tests, self._functions.created | self._functions.failed)

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
        setup, recorder = self._setup, self._recorder
        arguments = self._invocations.arguments(invocation, nodes, tests, setup.arguments, functions)
        # A node that is retried has not failed for good.
        if setup.config.fail_fast and is_last:
            arguments.append("--fail-fast")
        recorder.replace_functions(self._functions.start(functions))
        recorder.attempt(nodes, is_alone=setup.asked.defers and setup.config.favor_state)
        self._capture.expect(recorder.state, nodes, tests)
        seeds = dict(seed_files(setup.project.dbt_project.project_dir, setup.loaded.manifest, nodes))
        if not self._claims.still_holds([*nodes, *functions]):
            yield from self._left_to_others(nodes)
            return
        request = data_test_request(
            recorder.testing,
            setup.loaded.project,
            recorder.state,
            nodes,
            tests,
            self._outcomes.verdicts,
            recorder.stands,
            clock.now(),
        )
        # What a failure leaves undone then follows from the order.
        keeps_order = functions or not _FAIL_FAST.isdisjoint(arguments)
        seconds = {} if keeps_order else seconds_of_builds(setup.loaded.project, recorder.state, nodes, tests)
        before = read_moment(setup.project, setup.loaded, setup.loaded.manifest)
        process = DbtProcess(setup.context, setup.dbt, setup.project, setup.loaded, arguments, request, seconds)
        self._claims.watch(process)
        self.target = process.invocation.target_path.parent
        seen = self._sightings(process, [*nodes, *tests, *functions], seeds, before)
        events = DbtEventIterator(self._events(process, nodes, seen, seeds), process.invocation)
        for event in setup.finish(events):
            yield event
            # Dagster has stored it by now: others may build what this run has built.
            if (uid := recorded_build(event)) is not None:
                self._claims.writers.built(uid, self._outcomes.build(uid))
        self._recorder.write_verdicts()
        if not process.is_traced() and not self._outcomes.built.isdisjoint(nodes):
            self._report.untraced()
        yield from self._failures(process, nodes, functions)
        yield from self._not_done(process, nodes, tests, functions)
        try:
            self._functions.write()
        except DagsterSaoError as error:
            # A function without a record is created again with the views that call it.
            setup.context.log.warning(sentence(error))
        self._claims.watch(None)

    def _blocked(self) -> AbstractSet[str]:
        """Return the nodes that failed in this run, and those that cannot be built after that."""
        failed = self._outcomes.failed
        below = failed | self._graph.descendants(self._recorder.holding) if failed else set()
        if not self._setup.tests_hold:
            return below
        return below | (self._outcomes.gated_by(self._outcomes.failed_tests) - self._outcomes.built)

    def _events(
        self, process: DbtProcess, nodes: Sequence[str], seen: Sightings, seeds: Mapping[str, SeedFile]
    ) -> Iterator[Any]:
        asked = frozenset(nodes)
        ended: set[str] = set()
        """The tests, and the nodes that dbt was not asked for, whose end has been read: dbt logs it in two ways."""
        for event in self._proven(process, seeds):
            if event.unique_id in asked:
                self._claims.note_relation(event.unique_id, event.relation_name)
            if self._outcomes.lost:
                continue  # others may be building by now: what dbt logs is no longer what the relations hold
            if (function := function_created_in(event.raw)) is not None:
                self._function_created(function, seen)
            answer = answer_in(event.raw)
            if answer is not None and answer.unique_id in self._graph.tests:
                if answer.unique_id not in ended:
                    ended.add(answer.unique_id)
                    answered = process.answered(answer.unique_id)
                    yield from self._answered(replace(answer, answered=answered), event, seen)
            elif event.is_result:
                uid = event.unique_id
                if self._is_unasked(event, nodes):
                    if uid not in ended:
                        ended.add(uid)
                        yield from self._not_asked_for(uid)
                # dagster-dbt counts nodes that dbt reuses as built.
                elif uid not in self._graph.nodes or is_build(event.raw):
                    yield from self._built(event, seen)

    def _sightings(
        self, process: DbtProcess, given: Sequence[str], seeds: Mapping[str, SeedFile], before: Moment | None
    ) -> Sightings:
        checksums = {uid: seed.checksum for uid, seed in seeds.items()}
        files, setup = self._setup.has_planned_files, self._setup
        return Sightings(
            process, setup.project, setup.loaded, given, seed_checksums=checksums, before=before, files=files
        )

    def _answered(self, answer: TestAnswer, event: DbtEvent, seen: Sightings) -> Iterator[Any]:
        """Record dbt's answer about a test. Where Dagster shows no check of it, the run's table alone has it."""
        uid, test = answer.unique_id, self._graph.tests[answer.unique_id]
        why = self._doubts.of_command(uid, seen)
        if why:
            self._outcomes.error(why)
        if why or self._functions.missing_among(test.functions):
            answer = replace(answer, status=VerdictStatus.ERROR)  # it may have read other rows or called other code
        verdict = self._recorder.answered(test, answer, seen)
        if (check := self._setup.checks.get(uid)) is not None:
            yield from self._recorder.check_events(uid, check, verdict, event.asset_events, answer.answered)

    def _built(self, event: DbtEvent, seen: Sightings) -> Iterator[Any]:
        for asset_event in event.asset_events():
            if not isinstance(asset_event, dg.Output) or self._claims.still_holds([event.unique_id]):
                yield self._recorded(asset_event, event, seen)

    def _is_unasked(self, event: DbtEvent, nodes: Collection[str]) -> bool:
        """Return whether dbt built something outside its selection. A test may run with another of its name."""
        uid = event.unique_id
        is_newer = event.resource_type in _IN_NODES and uid not in self._setup.loaded.manifest["nodes"]
        return is_newer or (uid in self._graph.nodes and uid not in nodes and is_build(event.raw))

    def _not_asked_for(self, uid: str) -> Iterator[Any]:
        """Report what dbt did outside its selection."""
        if uid not in self._graph.nodes:
            message = f"dbt ran {uid}, which is newer than this run's manifest: it is not recorded."
            self._setup.context.log.warning(message)
            return
        why = (
            f"dbt built {self._graph.label(uid)}, which this run did not select: the project has changed since this run's manifest"
            " was parsed. Parse the project again, and reload the code location."
        )
        self._outcomes.error(why)
        yield self._recorder.build_failed(uid, why)

    def _recorded(self, asset_event: object, event: DbtEvent, seen: Sightings) -> object:
        """Return one of dagster-dbt's events with the build record, where what dbt built is what it was asked for."""
        if isinstance(asset_event, dg.Output):
            uid = event.unique_id
            if why := self._doubts.of_build(uid, event, seen):
                self._outcomes.error(why)
                return self._recorder.build_failed(uid, why)
            if self._setup.limits is not None and uid in self._graph.nodes:
                return self._recorder.limited(uid, self._setup.limits)
        return self._recorder.recorded(asset_event, event.raw, seen)

    def _function_created(self, uid: str, seen: Sightings) -> None:
        if uid not in self._graph.functions:
            return  # newer than the plan, in which nothing calls it
        if why := self._doubts.of_command(uid, seen):
            self._outcomes.error(why)
            return
        code = seen.code(uid)
        known = (code or self._setup.loaded.project.fingerprints[uid]).digest
        if self._functions.create(uid, known, is_planned=seen.is_of_planned_files):
            self._recorder.function_created(uid, known)
        decision = self._functions_due.get(uid)
        why = decision.message if decision is not None else "dbt created it with others"
        self._report.functions_were("created", [uid], why)

    def _proven(self, process: DbtProcess, seeds: Mapping[str, SeedFile]) -> Iterator[DbtEvent]:
        """Yield what dbt logs once it is certain that dbt read what was captured, so that no record claims more."""
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
        if ended := [event.unique_id for event in events if event.is_result]:
            moved, unknown = self._capture.look_again(process.file_read())
            loaded = frozenset(uid for uid, seed in seeds.items() if seed.has_moved)
            self._recorder.looked_again(moved, unknown, loaded, self._claims.written_meanwhile(ended))
        yield from events

    # How dbt ended

    def _without_functions(self, nodes: Iterable[str]) -> Iterator[dg.AssetObservation]:
        """Record that nodes cannot be built because dbt could not create a function that they call."""
        for uid in nodes:
            failed = self._functions.failed_among(self._graph.nodes[uid].functions)
            if failed and not self._outcomes.is_done(uid):
                yield self._recorder.build_failed(uid, upstream_failed(failed, self._labels))

    def _failures(self, process: DbtProcess, nodes: Sequence[str], functions: Sequence[str]) -> Iterator[Any]:
        error = process.error()
        if self._outcomes.lost:
            yield from self._left_to_others(nodes)
            return
        if not error:
            return
        fail_fast = self._setup.config.fail_fast
        self._outcomes.error(error)
        if fail_fast:
            self._outcomes.interrupt(nodes)
        killed = process.killed_by()
        results, statuses = process.results(), process.statuses()
        # dbt skipped a function because it reads something that failed: so do its callers.
        not_created = self._functions.missing_among(functions)
        broken = [uid for uid in not_created if statuses.get(uid, "skipped" if killed else "error") != "skipped"]
        self._functions.fail(broken)
        self._report.functions_were("failed", broken, "dbt could not create it")
        yield from self._without_functions(nodes)
        for uid in nodes:
            if self._outcomes.is_done(uid):
                continue
            status = statuses.get(uid)
            if killed and status is None:
                yield self._recorder.interrupted(uid, killed)
            elif process.failed_start:  # dbt skips all nodes then, if a flag asks for it
                yield self._recorder.build_failed(uid, started_badly(process.failed_start))
            elif status != "skipped":
                why = "dbt could not build it" if status else f"dbt ended before it built it: {error}"
                yield self._recorder.build_failed(uid, why, batch_results(results, uid))
        blocked = self._blocked()
        for uid in nodes:
            if not self._outcomes.is_done(uid):
                is_below = uid in blocked or not fail_fast
                yield from [self._skipped(uid)] if is_below else self.not_started([uid])

    def _not_done(
        self, process: DbtProcess, nodes: Sequence[str], tests: Sequence[str], functions: Sequence[str]
    ) -> Iterator[Any]:
        """Fail what dbt should have done and did not, although it succeeded: otherwise runs would request it for ever."""
        if process.error():
            return
        missing = [uid for uid in nodes if not self._outcomes.is_done(uid)]
        unanswered = [uid for uid in tests if self._outcomes.verdict(uid) is None]
        not_created = self._functions.missing_among(functions)
        if not (missing or unanswered or not_created):
            return
        names = {uid: self._graph.label(uid) for uid in (*missing, *unanswered, *not_created)}
        reasons = list(unaccounted(names, process.statuses(), process.known()))
        self._outcomes.error(*reasons)
        why = " ".join(reasons)
        self._functions.fail(not_created)
        self._report.functions_were("failed", not_created, why)
        for uid in missing:
            yield self._recorder.build_failed(uid, why)
        for uid in unanswered:
            yield from self._recorder.not_runnable(self._graph.tests[uid], self._setup.checks.get(uid), why)

    def _skipped(self, uid: str) -> dg.AssetObservation:
        """Report a node that is not built because of a failure in this run."""
        decision = self._outcomes.skip_after_failure(
            uid, self._recorder.stopping, self._labels, tests_hold=self._setup.tests_hold
        )
        return self._report.not_built(uid, decision, None)

    def _report_unanswered(self, tests: Iterable[str]) -> Iterator[Any]:
        """Report the tests that were due and that dbt did not reach: the relations that they read are not there to be tested."""
        unknown = self._outcomes.failed | self._outcomes.skipped
        for uid in tests:
            if self._outcomes.verdict(uid) is not None:
                continue
            test = self._graph.tests[uid]
            functions = self._functions.failed_among(test.functions)
            if functions and test.model not in unknown:
                # Without an answer it would be due again at once.
                why = upstream_failed(functions, self._labels)
                yield from self._recorder.not_runnable(test, self._setup.checks.get(uid), why)
            else:
                missing = [read for read in test.about if read in unknown] or test.about
                message = upstream_failed(missing, self._labels)
                self._report.not_run(uid, TestDecision(TestAction.SKIP, TestReason.UPSTREAM_FAILED, message), None)

    def _left_to_others(self, nodes: Iterable[str]) -> Iterator[Any]:
        """Report nodes whose leases expired: another run may be building them, or may have built them."""
        for uid in nodes:
            if not self._outcomes.is_done(uid):
                self._outcomes.skip(uid)
                yield self._report.lost(uid, self._outcomes.lost)
