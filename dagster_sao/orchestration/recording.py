"""What a run records of each node that it builds, and of each that fails."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

import dagster as dg

from dagster_sao.core.decide import Action, Decision
from dagster_sao.core.fingerprint import Fingerprint
from dagster_sao.core.ledger import Ledger
from dagster_sao.core.plan import Plan, Project
from dagster_sao.core.state import FailedAttempt, FailureKind, StateSnapshot
from dagster_sao.orchestration import clock
from dagster_sao.orchestration.records import (
    BUILD_KEY,
    DATA_VERSION_TAG,
    DECISION_KEY,
    DURATION_KEY,
    ELSEWHERE_KEY,
    REASON_CODE_KEY,
    REASON_KEY,
    build_to_json,
)
from dagster_sao.orchestration.reporting import RunReport

CodeOf = Callable[[str], Fingerprint | None]


class Recorder:
    """Turns what dbt says into build records and failed attempts, and remembers what became of each node."""

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        project: Project,
        report: RunReport,
        elsewhere: Callable[[str], Mapping[str, Any]],
    ) -> None:
        """Record nothing yet. `elsewhere` tells the records of a node's last builds in other environments."""
        self._elsewhere = elsewhere
        self._run_id = context.run.run_id
        self._run_assets = context.selected_asset_keys
        self._run_checks = context.selected_asset_check_keys
        self._project = project
        self._report = report
        self._ledger = Ledger(project, StateSnapshot())
        self._state = StateSnapshot()
        self._started_at = clock.now()
        self._yielded: set[object] = set()
        self.decisions: dict[str, Decision] = {}
        """Why each node is built, reused, held or skipped, as it was decided first."""
        self.built: set[str] = set()
        self.failed: set[str] = set()
        self.skipped: set[str] = set()
        """What is not built because of a failure, held nodes included."""
        self.retryable: set[str] = set()
        """What failed for a reason that may pass: the build itself, or a test that could not be run."""

    def begin(self, plan: Plan, state: StateSnapshot, waiting: frozenset[str]) -> None:
        """Take the decisions of a round, and the versions that its builds consume, before dbt reads anything."""
        self._state = state
        self._ledger = Ledger(self._project, state)
        self._started_at = clock.now()
        for uid, decision in plan.decisions.items():
            if uid not in waiting:
                # What is tried again is built for the reason that it had at first.
                self.decisions.setdefault(uid, decision)

    def start_anew(self, nodes: set[str]) -> None:
        """Forget what became of nodes that are tried again."""
        for outcome in (self.built, self.failed, self.skipped, self.retryable):
            outcome.difference_update(nodes)
        for uid in nodes:
            if not self.decisions[uid].builds:
                del self.decisions[uid]

    def recorded(self, event: object, raw_event: Mapping[str, Any], code: CodeOf) -> object:
        """Return one of dagster-dbt's events, the output of a build with its record.

        `code` tells what dbt read of a node, None where the plan's manifest is what is known. Dagster takes an output or a
        check result once in a run, and only for what is selected; any other becomes an event of the same content.
        """
        if isinstance(event, dg.Output):
            recorded = self._output(event, raw_event, code)
            key = self._report.keys.by_unique_id[raw_event["data"]["node_info"]["unique_id"]]
            is_first = key in self._run_assets and not self._is_second(key)
            return recorded if is_first else _materialization(key, recorded)
        if isinstance(event, dg.AssetCheckResult) and event.asset_key and event.check_name:
            check = dg.AssetCheckKey(event.asset_key, event.check_name)
            is_first = check in self._run_checks and not self._is_second(check)
            return event if is_first else _evaluation(event, check)
        return event

    def build_failed(self, uid: str) -> dg.AssetObservation:
        """Record that dbt could not build a node."""
        self.retryable.add(uid)
        return self._failed(uid, FailureKind.BUILD, "dbt could not build it")

    def test_failed(self, uid: str, test: str, *, could_run: bool) -> dg.AssetObservation:
        """Record that a test of error severity failed on a node that was built."""
        if not could_run:
            self.retryable.add(uid)
        return self._failed(uid, FailureKind.TEST, f"Its test {test} {'failed' if could_run else 'could not be run'}")

    def _is_second(self, what: object) -> bool:
        is_second = what in self._yielded
        self._yielded.add(what)
        return is_second

    def _output(self, output: dg.Output[Any], raw_event: Mapping[str, Any], code: CodeOf) -> dg.Output[Any]:
        """Return dbt's output with the build record, and let the children in this run consume the new version."""
        node_info = raw_event["data"]["node_info"]
        uid = node_info["unique_id"]
        decision = self.decisions[uid]
        build = self._ledger.record(
            uid,
            started_at=_moment(node_info.get("node_started_at"), self._started_at),
            ended_at=clock.now(),
            run_id=self._run_id,
            fingerprint=code(uid),
            full_refresh=decision.full_refresh,
        )
        self.built.add(uid)
        self._report.built(uid, decision.message)
        metadata = {
            **output.metadata,
            DECISION_KEY: Action.BUILD.value,
            REASON_CODE_KEY: decision.reason.value,
            REASON_KEY: decision.message,
            DURATION_KEY: build.seconds,
            BUILD_KEY: dg.MetadataValue.json(
                build_to_json(
                    build,
                    invocation_id=raw_event["info"].get("invocation_id"),
                    environment=self._report.environment,
                )
            ),
        }
        if elsewhere := self._elsewhere(uid):
            metadata[ELSEWHERE_KEY] = dg.MetadataValue.json(dict(elsewhere))
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

    def _failed(self, uid: str, kind: FailureKind, message: str) -> dg.AssetObservation:
        self.failed.add(uid)
        fingerprint = self._project.fingerprints[uid].digest
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
        return self._report.failed(uid, failure, message)


def recorded_build(event: object) -> str | None:
    """Return the node whose build an event records, None for other events."""
    if isinstance(event, dg.Output | dg.AssetMaterialization) and BUILD_KEY in event.metadata:
        return str(event.metadata["unique_id"].value)
    return None


def _materialization(key: dg.AssetKey, output: dg.Output[Any]) -> dg.AssetMaterialization:
    version = output.data_version
    tags = {**(output.tags or {}), **({DATA_VERSION_TAG: version.value} if version else {})}
    return dg.AssetMaterialization(key, metadata=dict(output.metadata), tags=tags)


def _evaluation(result: dg.AssetCheckResult, key: dg.AssetCheckKey) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=key.asset_key,
        check_name=key.name,
        passed=result.passed,
        metadata=result.metadata,
        severity=result.severity,
    )


def _moment(text: str | None, default: datetime) -> datetime:
    if not text:
        return default
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
