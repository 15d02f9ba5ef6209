"""New data of a source in the event log: a materialization of its asset, only when the token changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import dagster as dg

from dagster_sao.core.manifest.graph import Source
from dagster_sao.core.manifest.policy import SourcePolicy
from dagster_sao.core.state.source_tokens import ProbeAnswer, next_state
from dagster_sao.core.state.state import SourceState
from dagster_sao.orchestration.events.event_schema import (
    AGE_KEY,
    DATA_VERSION_TAG,
    HISTORY_KEY,
    LOADED_AT_KEY,
    PROBE_KEY,
    PROBE_SECONDS_KEY,
)
from dagster_sao.orchestration.events.record_json import history_to_json
from dagster_sao.orchestration.project.loaded import source_policy
from dagster_sao.orchestration.state.read_state import ProjectView
from dagster_sao.warehouse.probes.registry import Observation


class Observer(Protocol):
    """Probes sources, as `SourceProber` does."""

    def observe(self, sources: Sequence[Source]) -> Iterator[tuple[str, Observation]]:
        """Yield `(unique id, Observation)` of each source."""
        ...


@dataclass(frozen=True, slots=True)
class ProbedSource:
    """One source with its observation."""

    source: Source
    observation: Observation
    seconds: float


def next_state_of(
    observation: Observation,
    policy: SourcePolicy,
    last: SourceState | None,
    now: datetime,
    untracked_at: str | None = None,
) -> SourceState | None:
    """Return the state to record after an observation, None when there is no new data.

    A source that is not tracked counts as updated at `untracked_at`, or without it every `untracked_interval`.
    """
    answer = ProbeAnswer(
        observation.token, is_untracked=observation.counts_as_untracked, has_failed=bool(observation.error)
    )
    return next_state(answer, last, now, untracked_interval=policy.untracked_interval, untracked_at=untracked_at)


def source_event(key: dg.AssetKey, probed: ProbedSource, state: SourceState) -> dg.AssetMaterialization:
    """Return the event that records the new state of a source."""
    observation = probed.observation
    metadata: dict[str, Any] = {
        PROBE_KEY: observation.kind,
        PROBE_SECONDS_KEY: round(probed.seconds, 4),
        HISTORY_KEY: dg.MetadataValue.json(history_to_json(state.history)),
    }
    if observation.loaded_at is not None:
        metadata[LOADED_AT_KEY] = dg.MetadataValue.timestamp(observation.loaded_at)
        metadata[AGE_KEY] = round((state.recorded_at - observation.loaded_at).total_seconds(), 3)
    return dg.AssetMaterialization(
        asset_key=key,
        description=f"New data in {probed.source.label}",
        metadata=metadata,
        tags={DATA_VERSION_TAG: state.token},
    )


def record_source(
    view: ProjectView, source: Source, observation: Observation, *, untracked_at: str | None = None
) -> bool:
    """Record the new data that an observation of a source shows, and return whether there is any.

    A source that is not tracked counts as updated at `untracked_at`, or every `untracked_interval`.
    """
    last = view.state.sources.get(source.unique_id)
    state = next_state_of(observation, source_policy(view.loaded, source), last, view.now, untracked_at)
    if state is None:
        return False
    key = view.loaded.keys.by_unique_id[source.unique_id]
    view.instance.report_runless_asset_event(source_event(key, ProbedSource(source, observation, 0.0), state))
    return True


def record_sources(
    view: ProjectView, prober: Observer, sources: Sequence[Source], *, untracked_at: str | None = None
) -> Iterator[str]:
    """Probe sources and record their new data, before a run reads them. Yields a sentence for each source with a problem.

    `untracked_at` is as for `record_source`. Raises WarehouseError when the warehouse cannot be queried at all.
    """
    by_id = {source.unique_id: source for source in sources}
    for unique_id, observation in prober.observe(sources):
        if problem := observation.error or observation.warning:
            yield problem
        record_source(view, by_id[unique_id], observation, untracked_at=untracked_at)
