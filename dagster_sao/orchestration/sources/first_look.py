"""The first look at the warehouse: what a run, the tick of a schedule and a dry run query before they decide.

It records what the sources answered, and notes the relations that are gone or altered and the columns that changed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime

import dagster as dg

from dagster_sao.core.manifest.graph import Source
from dagster_sao.core.state.state import StateSnapshot
from dagster_sao.orchestration.project.probed_sources import sources_above
from dagster_sao.orchestration.relations.column_watch import note_columns, unseen_columns
from dagster_sao.orchestration.relations.relation_watch import RelationWatch
from dagster_sao.orchestration.sources.record_tokens import record_sources
from dagster_sao.orchestration.state.read_state import LiveProject, ProjectView
from dagster_sao.warehouse.probes.registry import Observation, SourceProber
from dagster_sao.warehouse.relations.listing import existing_relations


class Heard:
    """Passes on the observations of a prober, until a deadline where there is one, and notes what was heard."""

    def __init__(self, prober: SourceProber, deadline: float | None = None) -> None:
        """Hear nothing yet. `deadline` is a moment of `time.monotonic()`, in seconds."""
        self.prober, self._deadline = prober, deadline
        self.seen: set[str] = set()
        """The sources that were probed."""
        self.tokens: set[str] = set()
        """The probed sources that have a token."""
        self.errors: dict[str, None] = {}
        """The errors of probed sources, each sentence once."""

    def observe(self, sources: Sequence[Source]) -> Iterator[tuple[str, Observation]]:
        """Yield `(unique id, Observation)` of each source."""
        for uid, observation in self.prober.observe(sources, deadline=self._deadline):
            self.seen.add(uid)
            if observation.token is not None:
                self.tokens.add(uid)
            if observation.error:
                self.errors[observation.error] = None
            yield uid, observation


@dataclass(frozen=True, slots=True)
class FirstLook:
    """The queries before the decisions about a selection."""

    live: LiveProject
    selected: AbstractSet[str]
    refresh: bool
    """Whether every source above the selection is probed, and not only those without a known state."""
    state_aware: bool
    """Whether only the nodes that need it are built: only then does it matter whether a relation is gone."""
    watch: RelationWatch
    defers: bool = False
    """Whether dbt reads what is gone from another environment."""

    def sources(self, state: StateSnapshot, also: Collection[str] = ()) -> list[Source]:
        """Return the sources to probe; `also` are probed in any case, where they are above the selection."""
        return [
            source
            for source in self.above()
            if self.refresh or source.unique_id not in state.sources or source.unique_id in also
        ]

    def above(self) -> list[Source]:
        """Return the sources above the selection that can be probed."""
        return sources_above(self.live.project, self.live.loaded, self.selected)

    def is_needed(self, state: StateSnapshot, sources: Sequence[Source]) -> bool:
        """Return whether there is anything to query; `sources` are the ones to probe."""
        return bool(self.refresh or self.defers or sources or unseen_columns(self.live.loaded, state, self.selected))

    def record(
        self,
        heard: Heard,
        sources: Sequence[Source],
        state: StateSnapshot,
        now: datetime,
        *,
        untracked_at: str,
    ) -> Iterator[str]:
        """Probe `sources` and look at the relations. Yields a sentence for each source with a problem.

        A source that is not tracked counts as updated at `untracked_at` where the look refreshes a state-aware selection.
        Raises WarehouseError when the warehouse cannot be queried, and WarehouseBusyError while a writer holds it.
        """
        if sources:
            counts_untracked = self.refresh and self.state_aware
            yield from record_sources(
                self._view(state, now), heard, sources, untracked_at=untracked_at if counts_untracked else None
            )
        for observation in self.note_relations(heard.prober, state, now):
            self.live.instance.report_runless_asset_event(observation)

    def note_relations(
        self, prober: SourceProber, state: StateSnapshot, now: datetime
    ) -> Sequence[dg.AssetObservation]:
        """Note the relations and columns as they are, and return the news. Raises as `record` does."""
        view = self._view(state, now)
        if self.defers or (self.refresh and self.state_aware):
            return self.watch.look(view, prober, self.live.building(), self.live.state_and_building)
        if unseen := unseen_columns(self.live.loaded, state, self.selected):
            others = self.live.building()
            found = existing_relations(prober.session, [one for uid, one in unseen.items() if uid not in others])
            note_columns(view, found, self.live.state_and_building)
        return ()

    def _view(self, state: StateSnapshot, now: datetime) -> ProjectView:
        return ProjectView(self.live.instance, self.live.project, self.live.loaded, state, now)
