"""The event log as state: read completely once, then only new events.

Dagster's event log is the only store. A node's materialization carries its build record, its observation a failed
attempt; a source's materialization carries its token. Only the freshness sensor and the runs write there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from weakref import WeakKeyDictionary

import dagster as dg

from dagster_sao.core.decision.origins import origins
from dagster_sao.core.durations import is_waiting
from dagster_sao.core.project import Project
from dagster_sao.core.state.source_tokens import REMEMBERED_TOKENS, state_with
from dagster_sao.core.state.state import (
    FailedAttempt,
    FailureKind,
    LastBuild,
    SourceState,
    StateSnapshot,
    Verdict,
    interruption,
)
from dagster_sao.orchestration import clock
from dagster_sao.orchestration.events.event_schema import (
    BUILD_KEY,
    ELSEWHERE_KEY,
    FAILURE_KEY,
    HISTORY_KEY,
    GivenNode,
    from_timestamp,
    given_metadata,
    given_nodes,
    node_event,
    plain,
    unsettled_tag,
)
from dagster_sao.orchestration.events.record_json import (
    build_from_json,
    environment_of,
    failure_from_json,
    source_state,
)
from dagster_sao.orchestration.leases.writers import WriterTable
from dagster_sao.orchestration.private.dagster_internals import (
    FINISHED_STATUSES,
    DagsterEventType,
    RunsFilter,
    events_after,
    events_of_run,
    maximum_event_id,
    metadata_of_engine_event,
    report_engine_event,
    wipes_after,
)
from dagster_sao.orchestration.project.loaded import AssetKeys
from dagster_sao.orchestration.project.orchestrated import OrchestratedProject, state_name
from dagster_sao.orchestration.state.asset_tokens import materialized_token, observed_token
from dagster_sao.orchestration.state.functions import FunctionTable
from dagster_sao.orchestration.state.relation_notes import build_mark
from dagster_sao.orchestration.state.verdicts import VerdictTable

# On PostgreSQL an event with a lower id may be committed after one with a higher id.
_OVERLAP = 500
_FULL_READ_EVERY = timedelta(minutes=30)
_FEW_EVENTS = 2000
# Most observations of an asset have a data version, or none has.
_OBSERVATIONS, _MOST_OBSERVATIONS = 100, 2000


@dataclass
class _Assets:
    """The state of each asset in the event log, by unique id."""

    builds: dict[str, LastBuild] = field(default_factory=dict)
    sources: dict[str, SourceState] = field(default_factory=dict)
    failures: dict[str, FailedAttempt] = field(default_factory=dict)
    failed_in: dict[str, str] = field(default_factory=dict)
    """The run of each failure."""
    records: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """The record of the last build of each node in every environment."""
    materialized: dict[str, int] = field(default_factory=dict)
    """The id of the newest materialization that was read."""
    observed: dict[str, tuple[int, SourceState]] = field(default_factory=dict)
    """For sources that Dagster assets load: the id of the newest observation with a data version, and its state."""
    unsettled: set[str] = field(default_factory=set)
    """The ended runs that may have left a failure and were read."""


class EventLogState:
    """The state of one project in one Dagster instance, kept up to date by reading new events."""

    def __init__(
        self,
        instance: dg.DagsterInstance,
        project_name: str,
        environment: str = "",
        *,
        loaded_by_dagster: AbstractSet[dg.AssetKey] = frozenset(),
    ) -> None:
        """Read nothing yet. `environment` is empty for the target that the project is configured with."""
        self._instance = instance
        self._environment = environment
        self._loaded_by_dagster = loaded_by_dagster
        self.verdicts = VerdictTable(instance, state_name(project_name, environment))
        self.functions = FunctionTable(instance, state_name(project_name, environment))
        self.writers = WriterTable(instance, state_name(project_name, environment))
        self._unsettled_tag = unsettled_tag(state_name(project_name, environment))
        self._keys: AssetKeys | None = None
        self._assets = _Assets()
        self._read_to = 0
        self._wipes: str | None = None
        self._wiped_at: dict[dg.AssetKey, float] = {}
        self._full_read_at: datetime | None = None
        self._lock = threading.Lock()

    def snapshot(self, keys: AssetKeys, now: datetime) -> StateSnapshot:
        """Return the state of the nodes and sources of `keys` as it is now. Later reads do not change the returned value."""
        with self._lock:
            # Read this first, so that the next read sees what is wiped from here on.
            wiped, self._wipes = wipes_after(self._instance, self._wipes)
            self._wiped_at.update(wiped)
            newest = maximum_event_id(self._instance)
            if wiped or self._needs_full_read(keys, now) or newest < self._read_to:
                self._read_all(keys, now)
            elif newest > self._read_to:
                self._read_new(keys, now)
            self._read_to = newest
            self._read_unsettled_runs()
            assets = self._assets
            return StateSnapshot(
                builds=dict(assets.builds),
                sources={**dict(self._wiped_sources(keys)), **assets.sources, **dict(self._observed_sources())},
                failures=dict(assets.failures),
                verdicts=self._standing_verdicts(keys),
            )

    def _standing_verdicts(self, keys: AssetKeys) -> Mapping[str, Verdict]:
        """Return the verdicts without those on assets that were wiped since: wiping an asset's history wipes its tests too."""
        verdicts = self.verdicts.read()
        wiped = {uid: at for key, at in self._wiped_at.items() if (uid := keys.unique_ids.get(key))}
        if not wiped:
            return verdicts
        return {
            test: verdict
            for test, verdict in verdicts.items()
            if all(wiped.get(uid, 0) < verdict.at.timestamp() for uid in verdict.versions)
        }

    def unsettle(self, run: dg.DagsterRun, project: Project, nodes: Sequence[str], state: StateSnapshot) -> None:
        """Note that a run gives nodes to dbt. `state` was read under the lease.

        A node that the run then reports nothing about was interrupted, unless another run has built it since.
        """
        found = origins(project, state)
        given = []
        for uid in nodes:
            mark, sequence = self.place(uid)
            failure = interruption(state.failures.get(uid), clock.now(), found[uid])
            given.append(GivenNode(uid, mark, failure.origin, failure.attempts, sequence))
        report_engine_event(self._instance, run, f"Gives {len(nodes)} to dbt.", given_metadata(given))
        self._instance.add_run_tags(run.run_id, {self._unsettled_tag: "yes"})

    def place(self, unique_id: str) -> tuple[str, int]:
        """Return the mark of a node's last build, and the number of the next attempt since that build.

        A build or attempt that a user reset counts too: it is still in the log.
        """
        failure = self._assets.failures.get(unique_id)
        return build_mark(self._assets.builds.get(unique_id)), failure.sequence + 1 if failure is not None else 1

    def settle(self, keys: AssetKeys, now: datetime, ended_well: str | None = None) -> None:
        """Mark runs as settled: those whose failures were all repaired since, and `ended_well`, which had none."""
        # Without unsettled runs there is no need to read new events, which in a large project takes long.
        if self._assets.unsettled:
            self.snapshot(keys, now)
        with self._lock:
            settled = self._assets.unsettled.difference(self._assets.failed_in.values())
            self._assets.unsettled -= settled
        for run_id in settled | ({ended_well} if ended_well else set()):
            self._instance.add_run_tags(run_id, {self._unsettled_tag: "no"})

    def builds_elsewhere(self, unique_id: str) -> Mapping[str, Any]:
        """Return the records of a node's last builds in other environments, by environment."""
        known = self._assets.records.get(unique_id, {})
        return {name: record for name, record in known.items() if name != self._environment}

    def wipes(self, keys: AssetKeys) -> Mapping[str, datetime]:
        """Return when the history of each node or source was last wiped, as of the last read."""
        wiped = {uid: at for key, at in self._wiped_at.items() if (uid := keys.unique_ids.get(key))}
        return {uid: from_timestamp(at) for uid, at in wiped.items()}

    def _needs_full_read(self, keys: AssetKeys, now: datetime) -> bool:
        is_known = keys is self._keys and self._full_read_at is not None
        return not is_known or not is_waiting(now, self._full_read_at or now, _FULL_READ_EVERY)

    def _read_all(self, keys: AssetKeys, now: datetime) -> None:
        self._keys, self._assets, self._full_read_at = keys, _Assets(), now
        self.verdicts.start_anew()
        for key in self._loaded_by_dagster & set(keys.unique_ids):
            for loaded in reversed(self._instance.fetch_materializations(key, REMEMBERED_TOKENS).records):
                self._absorb_materialization(loaded)
        for record in self._instance.get_asset_records(list(keys.unique_ids)):
            self._absorb_materialization(record.asset_entry.last_materialization_record)
        for key in self._loaded_by_dagster & set(keys.unique_ids):
            self._absorb_last_version(key)

    def _absorb_last_version(self, key: dg.AssetKey) -> None:
        """Read the observations of an asset back to the newest one with a data version."""
        cursor, left, unique_id = None, _MOST_OBSERVATIONS, self._keys.unique_ids[key] if self._keys else ""
        while left > 0 and unique_id not in self._assets.observed:
            page = self._instance.fetch_observations(key, _OBSERVATIONS, cursor=cursor)
            for observed in reversed(page.records):
                self._absorb_observation(observed)
            cursor, left = page.cursor, left - _OBSERVATIONS if page.has_more else 0

    def _read_new(self, keys: AssetKeys, now: datetime) -> None:
        after, most = self._read_to - _OVERLAP, max(_FEW_EVENTS, 2 * len(keys.unique_ids))
        absorbers: Mapping[DagsterEventType, Callable[[dg.EventLogRecord], object]] = {
            DagsterEventType.ASSET_MATERIALIZATION: self._absorb_materialization,
            DagsterEventType.ASSET_OBSERVATION: self._absorb_observation,
        }
        for event_type, absorb in absorbers.items():
            for count, record in enumerate(events_after(self._instance, event_type, after)):
                if count == most:
                    # The last events of the project's own assets cost less than all events since, most of them of others.
                    self._read_all(keys, now)
                    return
                absorb(record)

    def _read_unsettled_runs(self) -> None:
        runs = RunsFilter(tags={self._unsettled_tag: "yes"}, statuses=FINISHED_STATUSES)
        for run in self._instance.get_run_records(runs):
            run_id = run.dagster_run.run_id
            if run_id not in self._assets.unsettled:
                self._assets.unsettled.add(run_id)
                is_terminated = run.dagster_run.status is dg.DagsterRunStatus.CANCELED
                kind = FailureKind.TERMINATED if is_terminated else FailureKind.INTERRUPTED
                self._absorb_run(run_id, from_timestamp(run.end_time or run.update_timestamp.timestamp()), kind)

    def _absorb_run(self, run_id: str, ended_at: datetime, kind: FailureKind) -> None:
        """Add the failures of an ended run. A node that the run reported nothing about was interrupted."""
        silent: dict[str, FailedAttempt] = {}
        for record in events_of_run(self._instance, run_id):
            silent.update(self._given_to_dbt(record))
            unique_id = self._unique_id(record)
            if unique_id is None or not self._is_node(unique_id):
                continue
            if self._absorb_observation(record) or record.asset_materialization is not None:
                silent.pop(unique_id, None)
        for unique_id, failure in silent.items():
            attempts = failure.attempts if kind is FailureKind.INTERRUPTED else 1
            found = replace(failure, failed_at=ended_at, kind=kind, attempts=attempts)
            self._absorb_failure(unique_id, found, run_id)

    def _given_to_dbt(self, record: dg.EventLogRecord) -> Iterator[tuple[str, FailedAttempt]]:
        """Yield the nodes that a run gave to dbt, each with the failure to add if the run reports nothing more about it."""
        event = record.event_log_entry.dagster_event
        for node in given_nodes(metadata_of_engine_event(event)) if event else ():
            key = self._keys.by_unique_id.get(node.unique_id) if self._keys else None
            if key is not None and self._is_node(node.unique_id) and record.timestamp > self._wiped_at.get(key, 0):
                yield node.unique_id, node.failure(from_timestamp(record.timestamp))

    def _absorb_materialization(self, record: dg.EventLogRecord | None) -> None:
        unique_id = self._unique_id(record)
        if record is None or unique_id is None or record.storage_id <= self._assets.materialized.get(unique_id, 0):
            return
        materialization = record.asset_materialization
        if materialization is None:
            return
        self._assets.materialized[unique_id] = record.storage_id
        metadata = plain(materialization.metadata)
        if self._is_node(unique_id):
            self._absorb_build(unique_id, build_from_json(self._own_record(unique_id, metadata)))
        else:
            token, at = materialized_token(record, metadata), from_timestamp(record.timestamp)
            before = self._assets.sources.get(unique_id)
            is_loaded = materialization.asset_key in self._loaded_by_dagster  # no event of its loader has a history
            state = _followed(before, token, at) if is_loaded else source_state(token, at, metadata.get(HISTORY_KEY))
            self._assets.sources[unique_id] = _with_since(state, before, record)

    def _absorb_observed_source(self, unique_id: str, record: dg.EventLogRecord) -> None:
        newest, before = self._assets.observed.get(unique_id, (0, None))
        token = observed_token(record)
        if token is None or record.storage_id <= newest:
            return
        is_same = before is not None and before.token == token
        state = before if is_same and before else state_with(before, token, from_timestamp(record.timestamp))
        self._assets.observed[unique_id] = record.storage_id, _with_since(state, before, record)

    def _wiped_sources(self, keys: AssetKeys) -> Iterator[tuple[str, SourceState]]:
        """Yield the sources that Dagster assets load and whose history was wiped: it may have told of data that nobody has read."""
        for key in self._loaded_by_dagster & self._wiped_at.keys() & keys.unique_ids.keys():
            at = self._wiped_at[key]
            yield keys.unique_ids[key], SourceState(f"wiped at {at}", from_timestamp(at))

    def _observed_sources(self) -> Iterator[tuple[str, SourceState]]:
        """Yield the sources that are both loaded by Dagster assets and observed: a new load or a new observation is new data."""
        for unique_id, (_, observed) in self._assets.observed.items():
            loaded = self._assets.sources.get(unique_id)
            if loaded is None:
                yield unique_id, observed
            else:
                token, at = f"{loaded.token} | {observed.token}", max(loaded.recorded_at, observed.recorded_at)
                yield unique_id, SourceState(token, at, since=f"{loaded.since} | {observed.since}")

    def _own_record(self, unique_id: str, metadata: Mapping[str, Any]) -> object:
        """Return the record of the last build in this environment, from a materialization in any."""
        record, elsewhere = metadata.get(BUILD_KEY), metadata.get(ELSEWHERE_KEY)
        if record is None:
            self._assets.records.pop(unique_id, None)
            return None
        known = dict(elsewhere) if isinstance(elsewhere, Mapping) else {}
        self._assets.records[unique_id] = known = {**known, environment_of(record): record}
        return known.get(self._environment)

    def _absorb_build(self, unique_id: str, build: LastBuild | None) -> None:
        # A materialization that somebody reported by hand has no record of what a build read.
        if build is None:
            self._assets.builds.pop(unique_id, None)
            return
        self._assets.builds[unique_id] = build
        failure = self._assets.failures.get(unique_id)
        if failure is not None and _is_followed_by(failure, build):
            del self._assets.failures[unique_id], self._assets.failed_in[unique_id]

    def _absorb_observation(self, event: dg.EventLogRecord) -> bool:
        """Add a failure. Returns whether the observation reports an outcome of a node in a run."""
        unique_id, observation = self._unique_id(event), event.event_log_entry.asset_observation
        if unique_id is None or observation is None:
            return False
        if not self._is_node(unique_id):
            if observation.asset_key in self._loaded_by_dagster:
                self._absorb_observed_source(unique_id, event)
            return False
        record = plain(observation.metadata).get(FAILURE_KEY)
        failure = failure_from_json(record)
        if failure is not None and environment_of(record) == self._environment:
            self._absorb_failure(unique_id, failure, event.run_id)
        outcome = node_event(observation.metadata).outcome
        return outcome is not None and outcome.is_final

    def _absorb_failure(self, unique_id: str, failure: FailedAttempt, run_id: str) -> None:
        build, before = self._assets.builds.get(unique_id), self._assets.failures.get(unique_id)
        if _is_followed_by(failure, build) or (before is not None and not failure.is_newer_than(before)):
            return
        self._assets.failures[unique_id] = replace(failure, run_id=run_id)
        self._assets.failed_in[unique_id] = run_id

    def _is_node(self, unique_id: str) -> bool:
        return self._keys is not None and unique_id in self._keys.nodes

    def _unique_id(self, record: dg.EventLogRecord | None) -> str | None:
        event = record.event_log_entry.dagster_event if record else None
        if self._keys is None or record is None or event is None or event.asset_key is None:
            return None
        # On PostgreSQL the events of a wiped asset stay in the log.
        if record.timestamp <= self._wiped_at.get(event.asset_key, 0):
            return None
        return self._keys.unique_ids.get(event.asset_key)


def _with_since(state: SourceState, before: SourceState | None, record: dg.EventLogRecord) -> SourceState:
    is_same = before is not None and before.token == state.token
    return replace(state, since=before.since if is_same and before else str(record.storage_id))


def _followed(before: SourceState | None, token: str, at: datetime) -> SourceState:
    is_same = before is not None and before.token == token
    return replace(before, recorded_at=at) if is_same and before else state_with(before, token, at)


_States = WeakKeyDictionary[dg.DagsterInstance, EventLogState]
# Keyed by the project, which the states do not refer to, so that they end with it. They do refer to their instance.
_states: WeakKeyDictionary[OrchestratedProject, _States] = WeakKeyDictionary()


def event_log_state(instance: dg.DagsterInstance, project: OrchestratedProject) -> EventLogState:
    """Return the state of a project in an instance, one for the life of this process."""
    states = _states.setdefault(project, WeakKeyDictionary())
    state = EventLogState(instance, project.kept_as, project.environment, loaded_by_dagster=project.loaded_by_dagster)
    return states.setdefault(instance, state)


def _is_followed_by(failure: FailedAttempt, build: LastBuild | None) -> bool:
    """Return whether a node was built after an attempt. Compares builds where possible: clocks differ between machines."""
    if failure.after is not None:
        return build is not None and build_mark(build) != failure.after
    return build is not None and build.ended_at > failure.failed_at
