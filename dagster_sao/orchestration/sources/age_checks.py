"""`warn_after` and `error_after` as an asset check on each source, from the observations that detect new data."""

# No `from __future__ import annotations` here: Dagster reads the annotation of `context` at run time.
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import dagster as dg

from dagster_sao.core.manifest.graph import Source
from dagster_sao.core.manifest.policy import SourcePolicy
from dagster_sao.core.state.source_age import FreshnessStatus, SourceFreshness, source_freshness
from dagster_sao.core.state.source_tokens import told_by_probe
from dagster_sao.core.state.state import SourceState
from dagster_sao.orchestration import clock
from dagster_sao.orchestration.events.event_schema import (
    AGE_KEY,
    ERROR_AFTER_SECONDS_KEY,
    MEASURED_FROM_KEY,
    PROBE_KEY,
    REMAINING_KEY,
    STALE_AT_KEY,
    WARN_AFTER_SECONDS_KEY,
)
from dagster_sao.orchestration.private.dagster_internals import last_check_evaluations
from dagster_sao.orchestration.project.loaded import LoadedProject, source_policy
from dagster_sao.orchestration.project.orchestrated import OrchestratedProject
from dagster_sao.orchestration.project.probed_sources import CHECK_NAME, checked_sources, open_session
from dagster_sao.orchestration.state.event_log import event_log_state
from dagster_sao.warehouse.probes.base import Observation
from dagster_sao.warehouse.probes.registry import SourceProber


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of the check of a source."""

    passed: bool
    severity: dg.AssetCheckSeverity
    description: str
    metadata: Mapping[str, dg.MetadataValue[Any]] = field(default_factory=dict)


def freshness_result(
    source: Source, observation: Observation, policy: SourcePolicy, state: SourceState | None, now: datetime
) -> CheckResult:
    """Return the result of the check of a source after an observation. An unknown age is a warning."""
    freshness = _freshness(observation, policy, state, now)
    if freshness is None:
        problem = observation.error or observation.warning or f"{source.label} cannot be tracked"
        return CheckResult(
            passed=False, severity=dg.AssetCheckSeverity.WARN, description=f"Its age is unknown: {problem}"
        )
    is_warning = freshness.status is FreshnessStatus.WARN
    return CheckResult(
        passed=freshness.status is FreshnessStatus.PASS,
        severity=dg.AssetCheckSeverity.WARN if is_warning else dg.AssetCheckSeverity.ERROR,
        description=freshness.message,
        metadata=_metadata(freshness, observation, policy, now),
    )


def stale_at(
    observation: Observation, policy: SourcePolicy, state: SourceState | None, now: datetime
) -> datetime | None:
    """Return when the freshness of a source gets worse with no new data; None when it cannot."""
    freshness = _freshness(observation, policy, state, now)
    return freshness.changes_at if freshness else None


def _freshness(
    observation: Observation, policy: SourcePolicy, state: SourceState | None, now: datetime
) -> SourceFreshness | None:
    """Return the age of the data. Data without a loaded-at time is as old as the last change that was seen."""
    if observation.token is None:
        return None
    is_same = state is not None and told_by_probe(state.token) == observation.token
    loaded_at = observation.loaded_at or (state.recorded_at if state is not None and is_same else now)
    return source_freshness(policy, loaded_at, now)


class FreshnessReports:
    """Reports the check of a source when its result changed. Starts from the results in the instance."""

    def __init__(self, instance: dg.DagsterInstance, project: OrchestratedProject, loaded: LoadedProject) -> None:
        """Read the latest result of each check."""
        checks = checked_sources(project, loaded)
        latest = last_check_evaluations(instance, checks) if checks else {}
        self._said = {checks[key].unique_id: (last.passed, last.severity) for key, last in latest.items()}

    def news(
        self, unique_id: str, key: dg.AssetKey, result: CheckResult, *, is_new_data: bool
    ) -> Iterator[dg.AssetCheckEvaluation]:
        """Yield the evaluation to report for a source, if any. An unchanged result without new data is not reported again."""
        before, self._said[unique_id] = self._said.get(unique_id), (result.passed, result.severity)
        if is_new_data or before != self._said[unique_id]:
            yield dg.AssetCheckEvaluation(
                asset_key=key,
                check_name=CHECK_NAME,
                passed=result.passed,
                severity=result.severity,
                description=result.description,
                metadata=result.metadata,
            )


def build_freshness_checks(project: OrchestratedProject, loaded: LoadedProject) -> list[dg.AssetChecksDefinition]:
    """Return the checks of a project's sources, for definitions. Executed by hand, they probe the warehouse."""
    sources = checked_sources(project, loaded)
    if not sources:
        return []
    specs = [
        dg.AssetCheckSpec(
            CHECK_NAME,
            asset=key.asset_key,
            description=f"Whether {source.label} is as fresh as its warn_after and error_after require.",
            blocking=source_policy(loaded, source).blocking,
        )
        for key, source in sources.items()
    ]

    @dg.multi_asset_check(name=f"{project.name}_source_freshness", specs=specs, can_subset=True)
    def source_freshness_checks(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        selected = {key: sources[key] for key in context.selected_asset_check_keys}
        yield from _ask(context.instance, project, selected)

    return [source_freshness_checks]


def _ask(
    instance: dg.DagsterInstance, project: OrchestratedProject, sources: Mapping[dg.AssetCheckKey, Source]
) -> Iterator[dg.AssetCheckResult]:
    loaded, now = project.load(), clock.now()
    states = event_log_state(instance, project).snapshot(loaded.keys, now).sources
    by_id = {source.unique_id: (key.asset_key, source) for key, source in sources.items()}
    session = open_session(project, loaded)
    try:
        for uid, observation in SourceProber(session, now_ns=clock.now_ns).observe(list(sources.values())):
            key, source = by_id[uid]
            result = freshness_result(source, observation, source_policy(loaded, source), states.get(uid), now)
            yield dg.AssetCheckResult(
                asset_key=key,
                check_name=CHECK_NAME,
                passed=result.passed,
                severity=result.severity,
                description=result.description,
                metadata=result.metadata,
            )
    finally:
        session.close()


def _metadata(
    freshness: SourceFreshness, observation: Observation, policy: SourcePolicy, now: datetime
) -> Mapping[str, dg.MetadataValue[Any]]:
    metadata: dict[str, dg.MetadataValue[Any]] = {
        PROBE_KEY: dg.MetadataValue.text(observation.kind),
        AGE_KEY: dg.MetadataValue.float(round(freshness.age.total_seconds(), 3)),
        MEASURED_FROM_KEY: dg.MetadataValue.text("max loaded-at" if observation.loaded_at else "last change seen"),
    }
    thresholds = {WARN_AFTER_SECONDS_KEY: policy.warn_after, ERROR_AFTER_SECONDS_KEY: policy.error_after}
    for name, threshold in thresholds.items():
        if threshold is not None:
            metadata[name] = dg.MetadataValue.float(threshold.total_seconds())
    if freshness.changes_at is not None:
        remaining = (freshness.changes_at - now).total_seconds()
        metadata[REMAINING_KEY] = dg.MetadataValue.float(round(remaining, 3))
        metadata[STALE_AT_KEY] = dg.MetadataValue.timestamp(freshness.changes_at)
    return metadata
