"""Watches the models' relations: notes and reports once each relation that is missing or was altered outside Dagster."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import dagster as dg

from dagster_sao.core.decision.messages import relation_missing, relation_restored
from dagster_sao.core.durations import format_duration, is_waiting
from dagster_sao.core.manifest.graph import Node
from dagster_sao.core.state.state import LastBuild, StateSnapshot, retry_wait
from dagster_sao.orchestration import clock
from dagster_sao.orchestration.events.event_schema import Outcome, from_timestamp, outcome_metadata
from dagster_sao.orchestration.project.orchestrated import OrchestratedProject
from dagster_sao.orchestration.relations.column_watch import Recheck, note_columns, relations_with_columns
from dagster_sao.orchestration.relations.database_copies import database_copies
from dagster_sao.orchestration.relations.relation_tokens import alterations_since, is_watched, relation_tokens
from dagster_sao.orchestration.state.event_log import event_log_state
from dagster_sao.orchestration.state.read_state import ProjectView
from dagster_sao.orchestration.state.relation_notes import (
    Baselines,
    RelationNote,
    RelationNotes,
    build_id,
    read_baselines,
    read_relation_notes,
    write_baselines,
    write_relation_notes,
)
from dagster_sao.warehouse.probes.duckdb_content import stat_databases
from dagster_sao.warehouse.probes.registry import SourceProber
from dagster_sao.warehouse.relations.listing import Presence, existing_relations, without_file
from dagster_sao.warehouse.relations.names import parse_relation_name

# PostgreSQL counts a change up to 10 seconds after its commit.
_COUNTED_AFTER = timedelta(seconds=15)
_LOOK_EVERY = timedelta(minutes=5)
# A custom materialization may leave no relation, and would be built again for ever.
_LEAVES_A_RELATION = frozenset({"table", "view", "incremental", "snapshot", "seed", "materialized_view"})


@dataclass(frozen=True, slots=True)
class _Look:
    """The input of one look at relations."""

    view: ProjectView
    prober: SourceProber
    counted: frozenset[str]
    """The nodes whose tokens include everything that the run which built them wrote, also in hooks and `on-run-end`."""


class RelationWatch:
    """The memory of a sensor or schedule about the models' relations."""

    def __init__(self, project: OrchestratedProject, *, rows_every: timedelta = _LOOK_EVERY) -> None:
        """Look at nothing yet. `rows_every` is how often the looks ask for rows that were altered."""
        self._project = project
        self._rows_every = rows_every
        self._baselines = Baselines()
        self._looked_at: datetime | None = None
        self._seen: object = None
        self._run_ends: dict[str, datetime] = {}
        """The ends of the runs that made the last builds, by run id."""
        self._has_unread = False
        """Whether the last look left out rows because they had been read shortly before."""
        self._again_at: tuple[datetime, timedelta] | None = None
        """The wait after which to look again although nothing has moved."""

    def look(
        self, view: ProjectView, prober: SourceProber, building: Iterable[str], recheck: Recheck
    ) -> list[dg.AssetObservation]:
        """Note the state of the relations that were built and that no run is writing, and return the news.

        Notes the columns of sources too.

        Raises WarehouseError when the warehouse cannot be queried, and WarehouseBusyError while a writer holds it.
        """
        instance, state, now = view.instance, view.state, view.now
        skipped = set(building)
        nodes = [
            node
            for uid, node in view.graph.nodes.items()
            if uid in state.builds and uid not in skipped and _leaves_a_relation(node)
        ]
        with_columns = {
            uid: relation
            for uid, relation in relations_with_columns(view.loaded).items()
            if uid not in skipped and (uid in state.builds or uid in view.graph.sources)
        }
        if not nodes and not with_columns:
            return []
        counted = frozenset(n.unique_id for n in nodes if self._is_counted(instance, state.builds[n.unique_id], now))
        last_runs = {state.builds[node.unique_id].run_id for node in nodes}
        self._run_ends = {run_id: end for run_id, end in self._run_ends.items() if run_id in last_runs}
        stamp = _stamp(prober, nodes, state, counted), frozenset(with_columns)
        is_early = self._again_at is None or is_waiting(now, *self._again_at)
        if stamp[0] is not None and stamp == self._seen and is_early:
            return []
        look = _Look(view, prober, counted)
        before = read_relation_notes(instance, self._project.state_name)
        found = existing_relations(prober.session, {**{n.unique_id: n for n in nodes}, **with_columns}.values())
        columns = {uid: found[uid] for uid in with_columns}
        note_columns(view, columns, recheck)
        copies = database_copies(instance, self._project.state_name, prober.session.database_files)
        alterations = self._alterations(look, [n for n in nodes if found[n.unique_id].presence is Presence.EXISTS])
        seen, waits = {}, []
        for node in nodes:
            uid = node.unique_id
            build, last = state.builds[uid], before.seen.get(uid)
            relation = _relation(build, found[uid].presence, last, now)
            if uid in alterations:
                relation = replace(relation, alteration=alterations[uid])
            if relation.is_out_of_order:
                seen[uid] = relation
            if relation.absences and not relation.is_missing:
                waits.append((build.ended_at, retry_wait(relation.absences)))
        if self._has_unread and self._looked_at is not None:
            waits.append((self._looked_at, self._rows_every))
        # Keep the notes about relations that a run is writing until its build is recorded.
        seen.update({uid: before.seen[uid] for uid in skipped & set(before.seen)})
        for database, count in copies.older.items():
            seen.update(_restored(look, seen, database, f"restored at checkpoint {count}"))
        if copies.older:
            # Models that are switched off now come from the copy too, and so do functions.
            log_state = event_log_state(instance, self._project)
            log_state.writers.forget_all_but(view.graph.nodes)
            log_state.functions.forget()
        if seen != before.seen:
            write_relation_notes(instance, self._project.state_name, RelationNotes(seen))
        copies.note(instance, self._project.state_name)
        self._seen, self._again_at = stamp, min(waits, key=lambda one: one[0] + one[1], default=None)
        keys = view.loaded.keys.by_unique_id
        return [
            event for node in nodes for event in _news(keys[node.unique_id], node, seen.get(node.unique_id), before)
        ]

    def _is_counted(self, instance: dg.DagsterInstance, build: LastBuild, now: datetime) -> bool:
        """Return whether a token that is read now includes everything that the run of a build wrote."""
        if now < build.ended_at + _COUNTED_AFTER:
            return False
        if build.run_id not in self._run_ends:
            record = instance.get_run_record_by_id(build.run_id)
            if record is not None and record.end_time is None:
                return False
            # The end of a deleted run is unknown.
            self._run_ends[build.run_id] = (
                from_timestamp(record.end_time or 0) if record is not None else build.ended_at
            )
        return now >= self._run_ends[build.run_id] + _COUNTED_AFTER

    def _alterations(self, look: _Look, nodes: Sequence[Node]) -> dict[str, str | None]:
        """Return, for each relation that was read, its token if it was altered since its build, else None."""
        is_due = self._looked_at is None or not is_waiting(look.view.now, self._looked_at, self._rows_every)
        builds = look.view.state.builds
        watched = [node for node in nodes if is_watched(node, look.prober, look.view.loaded)]

        def is_known(node: Node) -> bool:
            return self._baselines.of(node.unique_id, builds[node.unique_id]) is not None

        if is_due or not all(map(is_known, watched)):  # runs write them too
            self._baselines = read_baselines(look.view.instance, self._project.state_name)
        watched = [node for node in watched if node.unique_id in look.counted or is_known(node)]
        if is_due:
            self._looked_at = look.view.now
        baselines = self._baselines
        wanted = [node for node in watched if is_due or not is_known(node)]
        self._has_unread = len(wanted) < len(watched)
        found: dict[str, str | None] = {}
        is_new = False
        for uid, token in relation_tokens(look.prober, look.view.loaded, wanted):
            baseline = baselines.of(uid, builds[uid])
            if baseline is None:
                baselines.tokens[uid], is_new = (build_id(builds[uid]), token), True
            found[uid] = token if baseline not in {None, token} else None
        if is_new:
            write_baselines(look.view.instance, self._project.state_name, baselines)
        return found


def note_alterations(view: ProjectView, prober: SourceProber, nodes: Sequence[Node]) -> Iterable[dg.AssetObservation]:
    """Note which of `nodes` were altered outside Dagster since their last build, and yield the news.

    Raises WarehouseError when the warehouse cannot be queried.
    """
    found = alterations_since(view, prober, nodes)
    if not found:
        return
    before, seen = read_relation_notes(view.instance, view.project.state_name), {}
    for uid, token in found.items():
        mark, known = build_id(view.state.builds[uid]), before.seen.get(uid)
        note = known if known is not None and known.built_at == mark else RelationNote(mark)
        seen[uid] = replace(note, alteration=token)
    write_relation_notes(view.instance, view.project.state_name, RelationNotes({**before.seen, **seen}))
    for uid, note in seen.items():
        yield from _news(view.loaded.keys.by_unique_id[uid], view.graph.nodes[uid], note, before)


def _restored(look: _Look, seen: Mapping[str, RelationNote], database: str, mark: str) -> dict[str, RelationNote]:
    """Return all relations of a database, those that a run is writing too, as put back."""
    session, found = look.prober.session, {}
    for uid, build in look.view.state.builds.items():
        node = look.view.graph.nodes.get(uid)
        name = parse_relation_name((node and node.relation_name) or "", session.adapter_type)
        if name is not None and (name.database or session.database).lower() == database:
            known = seen.get(uid) or RelationNote(build_id(build))
            found[uid] = replace(known, is_restored=True, alteration=mark)
    return found


def _news(
    key: dg.AssetKey, node: Node, relation: RelationNote | None, before: RelationNotes
) -> Iterable[dg.AssetObservation]:
    if relation is None or relation == before.seen.get(node.unique_id):
        return
    if relation.is_missing:
        message = relation_missing(str(node.relation_name))
    elif relation.is_restored:
        message = relation_restored(str(node.relation_name))
    elif relation.alteration is not None:
        message = "Altered outside of Dagster"
    else:
        message = (
            f"{node.relation_name} was built again, but the sensor still does not find it. Let the sensor's role see it. Until"
            f" then it is built again after {format_duration(retry_wait(relation.absences))} at the earliest"
        )
    yield dg.AssetObservation(key, description=message, metadata=outcome_metadata(Outcome.NOTICED, message))


def _stamp(prober: SourceProber, nodes: Sequence[Node], state: StateSnapshot, counted: frozenset[str]) -> object:
    """Return a value that changes whenever a look could find news; None where only a look can show it.

    The metadata of a local DuckDB file shows it without opening the file, which would stop a build from starting.
    """
    session = prober.session
    stat, is_settled = stat_databases(session.database_files.values(), clock.now_ns())
    if session.duckdb_file is None or not is_settled:
        return None
    builds = [(node.unique_id, state.builds[node.unique_id]) for node in nodes]
    files = frozenset(without_file(session.project_dir, nodes))
    return stat, files, frozenset((uid, build_id(build), uid in counted) for uid, build in builds)


def _leaves_a_relation(node: Node) -> bool:
    return node.materialized in _LEAVES_A_RELATION or bool(node.settings.file)


def _relation(build: LastBuild, presence: Presence, before: RelationNote | None, now: datetime) -> RelationNote:
    """Return the note about a relation. Where this look found no answer, the note stays.

    A relation that is missing again after it was rebuilt may only be hidden from the sensor. It counts as missing after a
    wait, so that not every tick builds it.
    """
    fresh = RelationNote(build_id(build), absences=before.absences if before else 0)
    if presence is Presence.UNKNOWN:
        return before or fresh
    known = before if before is not None and before.built_at == fresh.built_at else fresh
    if presence is Presence.EXISTS:
        return replace(known, is_missing=False, absences=0)
    if known.is_missing or (known.absences and is_waiting(now, build.ended_at, retry_wait(known.absences))):
        return known
    return replace(known, is_missing=True, absences=known.absences + 1)
