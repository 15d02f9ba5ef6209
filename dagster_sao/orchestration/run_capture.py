"""What a run knows before it builds: the state, and what the warehouse says of the sources above its selection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

import dagster as dg

from dagster_sao.core.errors import DagsterSaoError
from dagster_sao.core.graph import Node, Source
from dagster_sao.core.state import SourceState, StateSnapshot
from dagster_sao.orchestration import clock
from dagster_sao.orchestration.column_watch import note_columns, unseen_columns
from dagster_sao.orchestration.freshness import open_session, record_sources, sources_above
from dagster_sao.orchestration.private import repository_of
from dagster_sao.orchestration.project import LoadedProject, OrchestratedProject, sentence
from dagster_sao.orchestration.relation_watch import RelationWatch
from dagster_sao.orchestration.snapshot import take_snapshot
from dagster_sao.orchestration.state import run_activity
from dagster_sao.warehouse.existence import existing_relations
from dagster_sao.warehouse.probes import SourceProber
from dagster_sao.warehouse.session import WarehouseSession


class RunCapture:
    """Reads the state for one run. What it read is consumed by what the run builds, so it is read before dbt starts."""

    def __init__(  # noqa: PLR0913 (what a run looks at)
        self,
        context: dg.AssetExecutionContext,
        project: OrchestratedProject,
        loaded: LoadedProject,
        selected: set[str],
        *,
        refresh: bool,
        state_aware: bool,
    ) -> None:
        """Ask nothing yet. With `refresh` every source above `selected` is probed; else those without a known state."""
        self._context = context
        self._project = project
        self._loaded = loaded
        self._selected = selected
        self._refresh = refresh
        self._state_aware = state_aware

    def look(self) -> None:
        """Ask the warehouse and record what it says. What cannot be asked keeps its last state, with a warning."""
        now = clock.now()
        state = take_snapshot(self._context.instance, self._project, self._loaded, now)
        above = sources_above(self._project, self._loaded, self._selected)
        sources = [source for source in above if self._refresh or source.unique_id not in state.sources]
        unseen = unseen_columns(self._loaded, state, self._selected)
        if not sources and not unseen and not self._refresh:
            return
        try:
            self._ask(sources, unseen, state, now)
        except DagsterSaoError as error:
            # With an old token the next probe looks like new data: one build too many, none too few.
            self._context.log.warning(f"The warehouse could not be asked for new data: {sentence(error)}")

    def state(self, blocked: frozenset[str]) -> StateSnapshot:
        """Return the state as it is recorded now; nothing is to be built from what is `blocked`."""
        state = take_snapshot(self._context.instance, self._project, self._loaded, clock.now())
        return replace(state, blocked=state.blocked | blocked)

    def _ask(
        self, sources: list[Source], unseen: Mapping[str, Node | Source], state: StateSnapshot, now: datetime
    ) -> None:
        session = open_session(self._project, self._loaded)
        try:
            prober = SourceProber(session, now_ns=clock.now_ns)
            if sources:
                counts_untracked = self._refresh and self._state_aware
                for problem in record_sources(
                    self._context.instance,
                    self._loaded,
                    prober,
                    sources,
                    states=state.sources,
                    now=now,
                    untracked_token=f"untracked {self._context.run.run_id}" if counts_untracked else None,
                ):
                    self._context.log.warning(problem)
            if self._refresh and self._state_aware:
                self._look_at_relations(prober, state, now)
            elif unseen:
                self._look_at_columns(session, unseen, state, now)
        finally:
            session.close()

    def _look_at_relations(self, prober: SourceProber, state: StateSnapshot, now: datetime) -> None:
        instance = self._context.instance
        watch, others = RelationWatch(self._project), self._built_by_others(now)
        for observation in watch.look(instance, prober, self._loaded, state, others, now, self._recheck):
            instance.report_runless_asset_event(observation)

    def _look_at_columns(
        self, session: WarehouseSession, unseen: Mapping[str, Node | Source], state: StateSnapshot, now: datetime
    ) -> None:
        others = self._built_by_others(now)
        found = existing_relations(session, [relation for uid, relation in unseen.items() if uid not in others])
        note_columns(self._context.instance, self._project, self._loaded, state, found, self._recheck)

    def _recheck(self) -> tuple[StateSnapshot, Mapping[str, str]]:
        now = clock.now()
        others = self._built_by_others(now)
        return take_snapshot(self._context.instance, self._project, self._loaded, now), others

    def _built_by_others(self, now: datetime) -> Mapping[str, str]:
        instance, repository = self._context.instance, repository_of(self._context)
        building = run_activity(instance, self._loaded, self._project.name, repository, now).building
        return {uid: run_id for uid, run_id in building.items() if run_id != self._context.run.run_id}


def with_deferred_parents(
    loaded: LoadedProject, state: StateSnapshot, selected: set[str], run_id: str
) -> StateSnapshot:
    """Return the state with the nodes that a run reads from another environment: always new, as nothing is known of them."""
    graph = loaded.project.graph
    read = {parent for uid in selected for parent in graph.nodes[uid].parents if parent in graph.nodes}
    unknown = SourceState(f"deferred {run_id}", clock.now())
    deferred = {uid: unknown for uid in read - selected if uid not in state.builds}
    return replace(state, sources={**state.sources, **deferred})
