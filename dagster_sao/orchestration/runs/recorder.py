"""The records of a run: one for each node that it builds, each that fails, and each test that dbt answers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from typing import Any

import dagster as dg

from dagster_sao.core.code.evidence import UNSEEN
from dagster_sao.core.code.fingerprint import SEED_COLUMNS, SEED_FILE, Fingerprint
from dagster_sao.core.decision.origins import origins
from dagster_sao.core.decision.run_ledger import Ledger
from dagster_sao.core.errors import DagsterSaoError
from dagster_sao.core.manifest.graph import ProjectTest
from dagster_sao.core.manifest.policy import EfficientTesting
from dagster_sao.core.state.state import (
    FailedAttempt,
    FailureKind,
    StateSnapshot,
    Verdict,
    VerdictStatus,
    interruption,
)
from dagster_sao.orchestration import clock
from dagster_sao.orchestration.dbt.build_results import BatchResults, left_missing
from dagster_sao.orchestration.dbt.efficient_testing import TestSettings
from dagster_sao.orchestration.dbt.limits import Limits, missing_after
from dagster_sao.orchestration.dbt.process import TestAnswer
from dagster_sao.orchestration.dbt.sightings import Sightings
from dagster_sao.orchestration.events.event_schema import (
    BUILD_KEY,
    DATA_VERSION_TAG,
    REASON_KEY,
    build_metadata,
    decided_test_metadata,
    how_metadata,
)
from dagster_sao.orchestration.messages import sentence
from dagster_sao.orchestration.runs.outcomes import Outcomes
from dagster_sao.orchestration.runs.report import RunReport, verdict_evaluation
from dagster_sao.orchestration.runs.run_plan import RunPlan
from dagster_sao.orchestration.runs.setup import RunSetup
from dagster_sao.orchestration.state.contradictions import stop_proofs
from dbt_dagster_sao.data_tests.handover import AnsweredTest, How


class Recorder:
    """Turns what dbt logs into build records, failed attempts and verdicts, and notes the outcome of each."""

    def __init__(
        self, setup: RunSetup, outcomes: Outcomes, report: RunReport, attempt_id: Callable[[str], str]
    ) -> None:
        """Record nothing yet. `attempt_id` returns the id of the attempt to build a node that is under way."""
        self._outcomes = outcomes
        self._attempt_id = attempt_id
        self._log_state = setup.log_state
        self._log, self._testing = setup.context.log, setup.testing
        self._is_limited = setup.limits is not None
        self._tests_limited_by = setup.limits.of_all_sql if setup.limits is not None else ""
        self._stop_proofs = partial(stop_proofs, setup.instance, setup.project.state_name, setup.context.log.error)
        self._run_id = setup.run_id
        self._run_assets = setup.context.selected_asset_keys
        self._run_checks = setup.context.selected_asset_check_keys
        self._project, self._database = setup.loaded.project, setup.loaded.database
        self._report = report
        self._ledger = Ledger(self._project, StateSnapshot())
        self._state = StateSnapshot()
        self._started_at = clock.now()
        self._yielded: set[object] = set()
        self._moved: frozenset[str] = frozenset()
        self._moved_seeds: frozenset[str] = frozenset()

    @property
    def testing(self) -> TestSettings:
        """How data tests are answered from now on: after a contradicted proof, the run proves nothing more."""
        return self._testing

    @property
    def state(self) -> StateSnapshot:
        """The state that the versions were captured from."""
        return self._state

    @property
    def holding(self) -> set[str]:
        """The nodes that failed in this run and that nothing is built from: with `on_error: continue` dbt goes on."""
        return {uid for uid in self._outcomes.failed if not self._ledger.left(uid)}

    @property
    def stopping(self) -> set[str]:
        """The nodes that nothing is built from, after what has failed in this run."""
        return self.holding | self._outcomes.skipped

    def begin(self, decided: RunPlan, waiting: frozenset[str]) -> None:
        """Take the decisions of an attempt, and the versions that its builds consume, before dbt reads anything."""
        self._state = decided.captured
        self._ledger = Ledger(self._project, self._state)
        self._ledger.moved(self._moved)
        self._started_at = clock.now()
        self._outcomes.decide(decided.plan, waiting)

    def write_verdicts(self) -> None:
        """Keep the verdicts of this run so far, unless another run may have written newer ones."""
        if self._outcomes.lost:
            return
        try:
            self._log_state.verdicts.write(self._outcomes.take_unwritten(), self._project.graph.tests)
        except DagsterSaoError as error:
            # A test without its verdict is run again: nothing counts as tested that was not.
            self._log.warning(f"{sentence(error)} Their tests are run again.")

    def looked_again(
        self, moved: frozenset[str], unknown: Mapping[str, str], seeds: frozenset[str], written: frozenset[str]
    ) -> None:
        """Take the sources and the files of seeds that moved since the versions were captured, and the sources without an answer.

        `written` are the nodes that other runs have written since. From here on, records say that no known version of all
        these was read.
        """
        self._moved, self._moved_seeds = moved, seeds
        self._ledger.moved(moved | written)
        self._ledger.unknown(unknown)

    def moved_in_run(self, tokens: Mapping[str, str], alterations: Mapping[str, str]) -> dict[str, dict[str, str]]:
        """Return the parents of each built node that moved meanwhile, with their versions at the end of the run."""
        found = self._ledger.moved_in_run(tokens, alterations)
        return {uid: found[uid] for uid in self._outcomes.built - self._outcomes.limited}

    def recorded(self, event: object, raw_event: Mapping[str, Any], seen: Sightings) -> object:
        """Return one of dagster-dbt's events, the output of a build with its record.

        Where `seen` has no code of a node, the record has the code of the plan's manifest. Dagster accepts an output or a
        check result once in a run, and only for a selected asset; any other becomes an event of the same content.
        """
        if isinstance(event, dg.Output):
            recorded = self._output(event, raw_event, seen)
            key = self._report.keys.by_unique_id[raw_event["data"]["node_info"]["unique_id"]]
            is_first = key in self._run_assets and not self._is_second(key)
            return recorded if is_first else _materialization(key, recorded)
        return event

    def replace_functions(self, functions: Iterable[str]) -> None:
        """Note that dbt is about to create functions from other code."""
        self._ledger.replace_functions(functions, self._run_id)

    def attempt(self, nodes: Sequence[str], *, is_alone: bool) -> None:
        """Note that dbt is about to build nodes. With `is_alone` it reads all others from another environment."""
        self._ledger.attempt(nodes, self._run_id)
        if is_alone:
            self._ledger.only(nodes, self._run_id)

    def function_created(self, uid: str, code: str) -> None:
        """Note the new code of a function, which readers of a view that calls it consume."""
        self._ledger.function_created(uid, code)

    def answered(self, test: ProjectTest, answer: TestAnswer, seen: Sightings | None) -> Verdict:
        """Record dbt's answer about a test, and return the verdict.

        It is about the versions that were captured, or built before the test was run.
        """
        uid = answer.unique_id
        code, evidence = seen(uid) if seen is not None else (None, UNSEEN)
        verdict = self._ledger.verdict(
            test,
            answer.status,
            at=clock.now(),
            run_id=self._run_id,
            failures=answer.failures,
            fingerprint=code,
            evidence=evidence,
            before=self._state.verdicts.get(uid),
            limited_by="" if test.is_unit_test else self._tests_limited_by,
        )
        mark = verdict.manifest_code_mark if seen is None or seen.is_of_planned_files else ""
        verdict = replace(verdict, database=self._database, manifest_code_mark=mark)
        if answer.answered is not None:
            verdict = self._as_answered(verdict, answer.answered)
            if answer.answered.is_contradicted:
                self._stop_proofs(test.name, answer.answered.proof)
                self._doubt_proofs()
        self._outcomes.answer(uid, verdict)
        self._report.answered(uid, verdict, self._outcomes.test_decision(uid), answer.answered)
        return verdict

    def _doubt_proofs(self) -> None:
        """Prove nothing more, and let all proven tests, of this run and earlier ones, be run again."""
        self._testing = self._testing.limited_to(EfficientTesting.AGGREGATE)
        self._outcomes.doubt_proofs()
        table = self._log_state.verdicts
        try:
            table.forget(uid for uid, verdict in table.read().items() if verdict.how is How.PROVEN)
        except DagsterSaoError as error:
            self._log.warning(f"{sentence(error)} Tests that were proven before are not run again by themselves.")

    def _as_answered(self, verdict: Verdict, answered: AnsweredTest) -> Verdict:
        """Return a verdict with how it was found. A proven one is void if something that its proof relies on has moved."""
        tests = self._project.graph.tests
        read = {uid for premise in answered.premises if premise in tests for uid in tests[premise].reads}
        is_void = answered.how is How.PROVEN and any(self._ledger.has_moved(uid) for uid in read)
        return replace(
            verdict,
            how=answered.how,
            proof=answered.proof if answered.how is How.PROVEN else "",
            versions={} if is_void else verdict.versions,
        )

    def stands(self, test: ProjectTest, verdict: Verdict) -> bool:
        """Return whether a verdict is about a test's code and about what dbt reads now."""
        return self._ledger.stands(test, verdict)

    def check_events(
        self,
        uid: str,
        check: dg.AssetCheckKey,
        verdict: Verdict,
        dagster_events: Callable[[], list[Any]],
        answered: AnsweredTest | None = None,
    ) -> Iterator[Any]:
        """Yield the result of a test that was just answered, on the test's own check.

        `dagster_events` returns dagster-dbt's events, which it makes for the checks that the run was asked for. Dagster accepts
        a result once in a run; any other becomes an event of the same content.
        """
        decision = self._outcomes.test_decision(uid)
        reason = {
            **(decided_test_metadata(decision) if decision is not None else {}),
            **how_metadata(verdict, answered),
        }
        if check in self._run_checks and not self._is_second(check):
            yield from (_with_metadata(event, reason) for event in dagster_events())
        else:
            yield verdict_evaluation(check, verdict, reason)

    def not_runnable(self, test: ProjectTest, check: dg.AssetCheckKey | None, why: str) -> Iterator[Any]:
        """Record that a test could not be run, for `why`, and yield its result in Dagster."""
        answer = TestAnswer(test.unique_id, VerdictStatus.ERROR, None)
        verdict = self.answered(test, answer, None)
        if check is not None:
            yield verdict_evaluation(check, verdict, {REASON_KEY: why}, why)

    def build_failed(self, uid: str, why: str, batches: BatchResults | None = None) -> dg.AssetObservation:
        """Record that dbt could not build a node, for `why`. `batches` are the results of the batches of a microbatch model."""
        fingerprint = self._project.fingerprints[uid].digest
        consumed = self._ledger.consumed(uid)
        before = self._state.failures.get(uid)
        is_repeated = before is not None and before.fingerprint == fingerprint and before.consumed == consumed
        is_microbatch = self._project.graph.nodes[uid].settings.batches is not None
        missing, is_unknown = left_missing(before, batches) if is_microbatch else ((), False)
        # What a limited attempt built is no whole batch either.
        is_unknown |= is_microbatch and self._is_limited
        failure = FailedAttempt(
            failed_at=clock.now(),
            attempts=before.attempts + 1 if before is not None and is_repeated else 1,
            fingerprint=fingerprint,
            consumed=consumed,
            missing_batches=missing,
            batches_unknown=is_unknown,
            left=self._ledger.left(uid),
        )
        return self._failed(uid, failure, why)

    def limited(self, uid: str, limits: Limits) -> dg.AssetObservation:
        """Record that dbt built a part of a node's rows. Nothing may rely on such a build."""
        decision = self._outcomes.decision(uid)
        self._ledger.limited(uid, self._run_id)
        before = self._state.failures.get(uid)
        is_repeated = before is not None and before.kind is FailureKind.LIMITED
        is_new = self._state.builds.get(uid) is None or decision.full_refresh
        missing, is_unknown = missing_after(limits, before, is_new=is_new)
        failure = FailedAttempt(
            failed_at=clock.now(),
            attempts=before.attempts + 1 if before is not None and is_repeated else 1,
            kind=FailureKind.LIMITED,
            limited_by=limits.text,
            missing_batches=missing,
            batches_unknown=is_unknown,
        )
        placed = self._placed(uid, failure)
        self._outcomes.limit(uid, placed)
        return self._report.limited(uid, placed, decision)

    def interrupted(self, uid: str, why: str) -> dg.AssetObservation:
        """Record that dbt was killed before it logged the result of a node."""
        origin = origins(self._project, self._state)[uid]
        return self._failed(uid, interruption(self._state.failures.get(uid), clock.now(), origin), why)

    def _failed(self, uid: str, failure: FailedAttempt, why: str) -> dg.AssetObservation:
        placed = self._placed(uid, failure)
        self._outcomes.fail(uid, placed)
        return self._report.failed(uid, placed, why)

    def _placed(self, uid: str, failure: FailedAttempt) -> FailedAttempt:
        """Return an attempt with its place among the others since the node's last build."""
        after, sequence = self._log_state.place(uid)
        return replace(failure, after=after, sequence=sequence)

    def _is_second(self, what: object) -> bool:
        is_second = what in self._yielded
        self._yielded.add(what)
        return is_second

    def _output(self, output: dg.Output[Any], raw_event: Mapping[str, Any], seen: Sightings) -> dg.Output[Any]:
        """Return dbt's output with the build record, and let the children in this run consume the new version."""
        node_info = raw_event["data"]["node_info"]
        uid = node_info["unique_id"]
        decision = self._outcomes.decision(uid)
        code, evidence = seen(uid)
        has_moved = uid in self._moved_seeds
        build = self._ledger.record(
            uid,
            started_at=_moment(node_info.get("node_started_at"), self._started_at),
            ended_at=clock.now(),
            run_id=self._run_id,
            fingerprint=self._unlike_any(uid, code) if has_moved else code,
            evidence=evidence,
            full_refresh=decision.full_refresh,
            is_planned=seen.is_of_planned_files and not has_moved,
            attempt_id=self._attempt_id(uid),
        )
        self._outcomes.succeed(uid, build)
        self._report.built(uid, decision.message)
        metadata = {
            **output.metadata,
            **build_metadata(
                decision,
                build,
                invocation_id=raw_event["info"].get("invocation_id"),
                environment=self._report.environment,
                elsewhere=self._log_state.builds_elsewhere(uid),
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

    def _unlike_any(self, uid: str, code: Fingerprint | None) -> Fingerprint:
        """Return the fingerprint of a seed whose file was written while dbt loaded it: there is no telling which rows it loaded."""
        known = code or self._project.fingerprints[uid]
        moved = f"moved in {self._run_id}"
        return Fingerprint({**known.parts, SEED_FILE: moved, SEED_COLUMNS: moved})


def recorded_build(event: object) -> str | None:
    """Return the node whose build an event records, None for other events."""
    if isinstance(event, dg.Output | dg.AssetMaterialization) and BUILD_KEY in event.metadata:
        return str(event.metadata["unique_id"].value)
    return None


def _materialization(key: dg.AssetKey, output: dg.Output[Any]) -> dg.AssetMaterialization:
    version = output.data_version
    tags = {**(output.tags or {}), **({DATA_VERSION_TAG: version.value} if version else {})}
    return dg.AssetMaterialization(key, metadata=dict(output.metadata), tags=tags)


def _with_metadata(event: Any, metadata: Mapping[str, Any]) -> Any:  # noqa: ANN401 (any of Dagster's events)
    if not isinstance(event, dg.AssetCheckResult):
        return event
    return event._replace(metadata={**event.metadata, **metadata})


def _moment(text: str | None, default: datetime) -> datetime:
    if not text:
        return default
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
