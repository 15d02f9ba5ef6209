"""What a run records of each node that it builds, of each that fails, and of each test that dbt answers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import dagster as dg

from dagster_sao.core.code.evidence import UNSEEN, Evidence
from dagster_sao.core.code.fingerprint import SEED_COLUMNS, SEED_FILE, Fingerprint
from dagster_sao.core.decision.decide import Decision
from dagster_sao.core.decision.decide_tests import TestDecision
from dagster_sao.core.decision.origins import origins
from dagster_sao.core.decision.plan import Plan
from dagster_sao.core.decision.run_ledger import Ledger
from dagster_sao.core.manifest.graph import ProjectTest
from dagster_sao.core.project import Project
from dagster_sao.core.state.state import (
    FailedAttempt,
    FailureKind,
    LastBuild,
    StateSnapshot,
    Verdict,
    VerdictStatus,
    interruption,
)
from dagster_sao.orchestration import clock
from dagster_sao.orchestration.dbt.build_results import BatchResults, left_missing
from dagster_sao.orchestration.dbt.limits import Limits, missing_after
from dagster_sao.orchestration.dbt.process import TestAnswer
from dagster_sao.orchestration.events.event_schema import (
    BUILD_KEY,
    DATA_VERSION_TAG,
    REASON_KEY,
    build_metadata,
    decided_test_metadata,
)
from dagster_sao.orchestration.runs.report import RunReport, verdict_evaluation

Seen = Callable[[str], tuple[Fingerprint | None, Evidence]]
"""Returns, by unique id, the code of a node or test that dbt read, None where it is not known, and what was seen of it."""


class Recorder:
    """Turns what dbt logs into build records, failed attempts and verdicts, and remembers what became of each."""

    def __init__(  # noqa: PLR0913, PLR0917 (what a run knows)
        self,
        context: dg.AssetExecutionContext,
        project: Project,
        report: RunReport,
        elsewhere: Callable[[str], Mapping[str, Any]],
        attempt_id: Callable[[str], str],
        place: Callable[[str], tuple[str, int]],
    ) -> None:
        """Record nothing yet.

        `elsewhere` tells the records of a node's last builds in other environments, `attempt_id` what tells the attempt that
        is under way from all others, and `place` what tells its last build in this environment from others, and which attempt
        since then the next one is.
        """
        self._place = place
        self._elsewhere = elsewhere
        self._attempt_id = attempt_id
        self._run_id = context.run.run_id
        self._run_assets = context.selected_asset_keys
        self._run_checks = context.selected_asset_check_keys
        self._project = project
        self._report = report
        self._ledger = Ledger(project, StateSnapshot())
        self.state = StateSnapshot()
        """What the versions were captured from."""
        self._started_at = clock.now()
        self._yielded: set[object] = set()
        self.decisions: dict[str, Decision] = {}
        """Why each node is built, reused, held or skipped, as it was decided first."""
        self.built: set[str] = set()
        self.limited_builds: set[str] = set()
        """What was built with a part of its rows."""
        self.builds: dict[str, LastBuild] = {}
        """The last record of each node that was built."""
        self.failed: set[str] = set()
        self.failures: dict[str, FailedAttempt] = {}
        """What was last recorded of each node that failed."""
        self.skipped: set[str] = set()
        """What is not built because of a failure, held nodes included."""
        self.test_decisions: dict[str, TestDecision] = {}
        """Why each test is run or not, as it was decided last."""
        self.verdicts: dict[str, Verdict] = {}
        """The answers that dbt gave in this run, by test."""
        self._unwritten: dict[str, Verdict] = {}
        self._moved: frozenset[str] = frozenset()
        self._moved_seeds: frozenset[str] = frozenset()

    @property
    def holding(self) -> set[str]:
        """The nodes that failed in this run and that nothing is built from: with `on_error: continue` dbt goes on."""
        return {uid for uid in self.failed if not self._ledger.left(uid)}

    @property
    def failed_tests(self) -> set[str]:
        """The tests that failed, or could not be run, in this run."""
        return {uid for uid, verdict in self.verdicts.items() if verdict.is_failing}

    @property
    def retryable_tests(self) -> set[str]:
        """The tests that could not be run, for a reason that may pass."""
        return {uid for uid, verdict in self.verdicts.items() if verdict.status is VerdictStatus.ERROR}

    def begin(self, plan: Plan, state: StateSnapshot, waiting: frozenset[str]) -> None:
        """Take the decisions of a round, and the versions that its builds consume, before dbt reads anything."""
        self.state = state
        self.test_decisions.update(plan.tests)
        self._ledger = Ledger(self._project, state)
        self._ledger.moved(self._moved)
        self._started_at = clock.now()
        for uid, decision in plan.decisions.items():
            if uid not in waiting:
                first = self.decisions.setdefault(uid, decision)
                # What is tried again is built for the reason that it had at first, in the way that it needs now.
                if first.builds and decision.builds:
                    self.decisions[uid] = replace(
                        first, full_refresh=decision.full_refresh, batches_from=decision.batches_from
                    )

    def looked_again(self, moved: frozenset[str], unknown: Mapping[str, str], seeds: frozenset[str]) -> None:
        """Take what moved since the versions were captured: sources, those that nobody knows of, and the files of seeds.

        What is recorded from here on says that it read no known version of them.
        """
        self._moved, self._moved_seeds = moved, seeds
        self._ledger.moved(moved)
        self._ledger.unknown(unknown)

    def moved_in_run(self, tokens: Mapping[str, str], alterations: Mapping[str, str]) -> dict[str, dict[str, str]]:
        """Return for each node that was built the parents that moved meanwhile, with their versions at the run's end."""
        found = self._ledger.moved_in_run(tokens, alterations)
        return {uid: found[uid] for uid in self.built - self.limited_builds}

    def start_anew(self, nodes: set[str], tests: set[str]) -> None:
        """Forget what became of nodes and tests that are tried again."""
        for uid in tests:
            self.verdicts.pop(uid, None)
        for outcome in (self.built, self.failed, self.skipped):
            outcome.difference_update(nodes)
        for uid in nodes:
            if not self.decisions[uid].builds:
                del self.decisions[uid]

    def recorded(self, event: object, raw_event: Mapping[str, Any], seen: Seen) -> object:
        """Return one of dagster-dbt's events, the output of a build with its record.

        Where `seen` has no code of a node, the plan's manifest is what is known. Dagster takes an output or a
        check result once in a run, and only for what is selected; any other becomes an event of the same content.
        """
        if isinstance(event, dg.Output):
            recorded = self._output(event, raw_event, seen)
            key = self._report.keys.by_unique_id[raw_event["data"]["node_info"]["unique_id"]]
            is_first = key in self._run_assets and not self._is_second(key)
            return recorded if is_first else _materialization(key, recorded)
        return event

    def replace_functions(self, functions: Iterable[str]) -> None:
        """Take note that dbt is about to create functions from other code."""
        self._ledger.replace_functions(functions, self._run_id)

    def attempt(self, nodes: Iterable[str]) -> None:
        """Take note that dbt is about to build nodes."""
        self._ledger.attempt(nodes, self._run_id)

    def function_created(self, uid: str, code: str) -> None:
        """Let what reads a view that calls a function consume its new code."""
        self._ledger.function_created(uid, code)

    def answered(self, test: ProjectTest, answer: TestAnswer, seen: Seen) -> None:
        """Record what dbt answered of a test, about the versions that were captured or built before it was run."""
        uid = answer.unique_id
        code, evidence = seen(uid)
        verdict = self._ledger.verdict(
            test,
            answer.status,
            at=clock.now(),
            run_id=self._run_id,
            failures=answer.failures,
            fingerprint=code,
            evidence=evidence,
            before=self.state.verdicts.get(uid),
        )
        self.verdicts[uid] = self._unwritten[uid] = verdict
        self._report.answered(uid, verdict, self.test_decisions.get(uid))

    def check_events(self, uid: str, check: dg.AssetCheckKey, dagster_events: Callable[[], list[Any]]) -> Iterator[Any]:
        """Yield what Dagster shows of a test that was just answered, on the test's own check.

        `dagster_events` returns dagster-dbt's events, which it makes for the checks that the run was asked for. Dagster takes
        a result once in a run; any other becomes an event of the same content.
        """
        decision = self.test_decisions.get(uid)
        reason = decided_test_metadata(decision) if decision is not None else {}
        if check in self._run_checks and not self._is_second(check):
            yield from (_with_metadata(event, reason) for event in dagster_events())
        else:
            yield verdict_evaluation(check, self.verdicts[uid], reason)

    def take_unwritten(self) -> Mapping[str, Verdict]:
        """Return the verdicts that are to be written now."""
        taken, self._unwritten = self._unwritten, {}
        return taken

    def not_runnable(self, test: ProjectTest, check: dg.AssetCheckKey | None, why: str) -> Iterator[Any]:
        """Record that a test could not be run, for `why`, and yield what Dagster shows of it."""
        self.answered(test, TestAnswer(test.unique_id, VerdictStatus.ERROR, None), lambda _: (None, UNSEEN))
        if check is not None:
            yield verdict_evaluation(check, self.verdicts[test.unique_id], {REASON_KEY: why}, why)

    def build_failed(
        self, uid: str, why: str = "dbt could not build it", batches: BatchResults | None = None
    ) -> dg.AssetObservation:
        """Record that dbt could not build a node. `batches` tells what became of the batches of a microbatch model."""
        self.failed.add(uid)
        fingerprint = self._project.fingerprints[uid].digest
        consumed = self._ledger.consumed(uid)
        before = self.state.failures.get(uid)
        is_repeated = before is not None and before.fingerprint == fingerprint and before.consumed == consumed
        is_microbatch = self._project.graph.nodes[uid].settings.batches is not None
        missing, is_unknown = left_missing(before, batches) if is_microbatch else ((), False)
        failure = FailedAttempt(
            failed_at=clock.now(),
            attempts=before.attempts + 1 if before is not None and is_repeated else 1,
            fingerprint=fingerprint,
            consumed=consumed,
            missing_batches=missing,
            batches_unknown=is_unknown,
            left=self._ledger.left(uid),
        )
        return self._report.failed(uid, self._placed(uid, failure), why)

    def limited(self, uid: str, limits: Limits) -> dg.AssetObservation:
        """Record that dbt built a part of a node's rows. It is not a build that anything may rely on."""
        self.built.add(uid)
        self.limited_builds.add(uid)
        self._ledger.limited(uid, self._run_id)
        before = self.state.failures.get(uid)
        is_repeated = before is not None and before.kind is FailureKind.LIMITED
        is_new = self.state.builds.get(uid) is None or self.decisions[uid].full_refresh
        missing, is_unknown = missing_after(limits, before, is_new=is_new)
        failure = FailedAttempt(
            failed_at=clock.now(),
            attempts=before.attempts + 1 if before is not None and is_repeated else 1,
            kind=FailureKind.LIMITED,
            limited_by=limits.text,
            missing_batches=missing,
            batches_unknown=is_unknown,
        )
        return self._report.limited(uid, self._placed(uid, failure), self.decisions[uid])

    def interrupted(self, uid: str, why: str) -> dg.AssetObservation:
        """Record that dbt was killed before it said how the build of a node went."""
        origin = origins(self._project, self.state)[uid]
        failure = interruption(self.state.failures.get(uid), clock.now(), origin)
        self.failed.add(uid)
        return self._report.failed(uid, self._placed(uid, failure), why)

    def _placed(self, uid: str, failure: FailedAttempt) -> FailedAttempt:
        """Return an attempt that failed with its place among the others, and remember it."""
        after, sequence = self._place(uid)
        self.failures[uid] = placed = replace(failure, after=after, sequence=sequence)
        return placed

    def _is_second(self, what: object) -> bool:
        is_second = what in self._yielded
        self._yielded.add(what)
        return is_second

    def _output(self, output: dg.Output[Any], raw_event: Mapping[str, Any], seen: Seen) -> dg.Output[Any]:
        """Return dbt's output with the build record, and let the children in this run consume the new version."""
        node_info = raw_event["data"]["node_info"]
        uid = node_info["unique_id"]
        decision = self.decisions[uid]
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
            is_planned=not has_moved,
            attempt_id=self._attempt_id(uid),
        )
        self.built.add(uid)
        self.builds[uid] = build
        self._report.built(uid, decision.message)
        metadata = {
            **output.metadata,
            **build_metadata(
                decision,
                build,
                invocation_id=raw_event["info"].get("invocation_id"),
                environment=self._report.environment,
                elsewhere=self._elsewhere(uid),
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
        """Return the fingerprint of a seed whose file was written while it was loaded: nobody knows what was."""
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
