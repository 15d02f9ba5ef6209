"""What a source's probe becomes in the event log: a materialization of its asset, only when the token changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import dagster as dg

from dagster_sao.core.manifest.graph import Source
from dagster_sao.core.manifest.policy import SourcePolicy
from dagster_sao.core.state.source_tokens import told_by_probe, untracked_token
from dagster_sao.core.state.state import SourceState
from dagster_sao.orchestration.events.event_schema import (
    AGE_KEY,
    DATA_VERSION_TAG,
    HISTORY_KEY,
    LOADED_AT_KEY,
    PROBE_KEY,
    PROBE_SECONDS_KEY,
)
from dagster_sao.orchestration.events.record_json import history_with
from dagster_sao.orchestration.project.orchestrated import LoadedProject, source_policy
from dagster_sao.warehouse.probes.registry import Observation


class Observer(Protocol):
    """What looks at sources, such as a `SourceProber`."""

    def observe(self, sources: Sequence[Source]) -> Iterator[tuple[str, Observation]]:
        """Yield `(unique id, Observation)` of each source."""
        ...


@dataclass(frozen=True, slots=True)
class ProbedSource:
    """One source with what the warehouse said of it."""

    source: Source
    observation: Observation
    seconds: float


def new_token(observation: Observation, policy: SourcePolicy, last: SourceState | None, now: datetime) -> str | None:
    """Return the token to record, None when there is nothing new.

    A source that cannot be tracked, or not all of it, counts as updated, at most every `untracked_interval`.
    """
    if observation.error:
        return None
    if observation.counts_as_untracked:
        is_due = last is None or now >= last.recorded_at + policy.untracked_interval
        has_moved = (
            observation.token is not None and last is not None and told_by_probe(last.token) != observation.token
        )
        # Counted in intervals, so that a sensor and a run that look at the same moment say the same.
        interval = f"{now.timestamp() // policy.untracked_interval.total_seconds():.0f}"
        return untracked_token(observation.token, interval) if is_due or has_moved else None
    if observation.token is None or (last is not None and last.token == observation.token):
        return None
    return observation.token


def source_event(
    key: dg.AssetKey, probed: ProbedSource, token: str, last: SourceState | None, now: datetime
) -> dg.AssetMaterialization:
    """Return the event that records a source's new token."""
    observation = probed.observation
    metadata: dict[str, Any] = {
        PROBE_KEY: observation.kind,
        PROBE_SECONDS_KEY: round(probed.seconds, 4),
        HISTORY_KEY: dg.MetadataValue.json(history_with(last, token, now)),
    }
    if observation.loaded_at is not None:
        metadata[LOADED_AT_KEY] = dg.MetadataValue.timestamp(observation.loaded_at)
        metadata[AGE_KEY] = round((now - observation.loaded_at).total_seconds(), 3)
    return dg.AssetMaterialization(
        asset_key=key,
        description=f"New data in {probed.source.label}",
        metadata=metadata,
        tags={DATA_VERSION_TAG: token},
    )


def record_sources(  # noqa: PLR0913 (each is an input of the capture)
    instance: dg.DagsterInstance,
    loaded: LoadedProject,
    prober: Observer,
    sources: Sequence[Source],
    *,
    states: Mapping[str, SourceState],
    now: datetime,
    untracked_at: str | None = None,
) -> Iterator[str]:
    """Probe sources and record what is new, before a run reads them. Yields what cannot be known, a sentence each.

    A source that cannot be tracked counts as updated at `untracked_at`, or every `untracked_interval`.
    Raises WarehouseError when the warehouse cannot be asked at all.
    """
    by_id = {source.unique_id: source for source in sources}
    for unique_id, observation in prober.observe(sources):
        source, last = by_id[unique_id], states.get(unique_id)
        if problem := observation.error or observation.warning:
            yield problem
        token = new_token(observation, source_policy(loaded, source), last, now)
        if untracked_at and observation.counts_as_untracked and not observation.error:
            token = untracked_token(observation.token, untracked_at)
        if token is not None:
            probed = ProbedSource(source, observation, 0.0)
            instance.report_runless_asset_event(
                source_event(loaded.keys.by_unique_id[unique_id], probed, token, last, now)
            )
