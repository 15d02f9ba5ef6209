"""The second look of a run: whether a source that it read moved after it was captured.

Only tokens that can return need one: counters, snapshots and times only go forward, so the next probe sees any change. A
token that can return is compared again before anything is recorded, with a witness beside it where the warehouse has one:
the token may be the same again although dbt read something else. In the DuckDB file that dbt builds
into, the witness is the file: it must be as it was before the token was read when dbt opens it, and then dbt alone writes.
A source whose loader reports to Dagster is not probed: its witness is the event since which it has its token.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from dagster_sao.core.code.versions import moved_version, times_moved
from dagster_sao.core.decision.view_rules import read_with_views
from dagster_sao.core.errors import DagsterSaoError
from dagster_sao.core.manifest.graph import ProjectGraph, Source
from dagster_sao.core.state.source_tokens import told_by_probe
from dagster_sao.core.state.state import SourceState
from dagster_sao.orchestration.messages import sentence
from dagster_sao.warehouse.errors import WarehouseBusyError
from dagster_sao.warehouse.probes.registry import Observation, SourceProber
from dbt_dagster_sao.database_file import FileRead

# Somebody may open a DuckDB file right after dbt has closed it.
_BUSY_SECONDS, _BUSY_POLL_SECONDS = 30.0, 1.0
# A look takes at most a twentieth of a run's time, and a build waits at most a tenth of it for its record.
_COST_FACTOR, _WAIT_SHARE = 20, 0.1

_T = TypeVar("_T")


@dataclass
class SecondLook:
    """The sources that the builds and tests of a run read, as they were captured and as they are found again."""

    graph: ProjectGraph
    sources: Mapping[str, Source]
    """The sources that are probed, by unique id."""
    prober: Callable[[], SourceProber]
    """Returns the prober of the run. Raises WarehouseError."""
    recorded: Callable[[], Mapping[str, SourceState]]
    """Returns the sources as Dagster has them now."""
    warn: Callable[[str], object]
    run_id: str
    moved: set[str] = field(default_factory=set)
    """The sources that moved since they were captured."""
    unknown: dict[str, str] = field(default_factory=dict)
    """The sources that gave no answer at the second look, each with the version that says so."""
    _news: dict[str, Observation] = field(default_factory=dict)
    _witnesses: dict[str, str] = field(default_factory=dict)
    _file_states: dict[str, str] = field(default_factory=dict)
    """For sources in the DuckDB file: the state of the file before the captured token was read."""
    _captured: dict[str, str] = field(default_factory=dict)
    _reported: dict[str, SourceState] = field(default_factory=dict)
    """For sources that are not probed: what was captured."""
    _started: float = 0.0
    _next: float = 0.0

    def can_return(self, unique_ids: Iterable[str], prober: SourceProber) -> list[Source]:
        """Return the sources whose tokens can be equal again after a change, and then prove nothing."""
        found = (self.sources[uid] for uid in unique_ids if uid in self.sources)
        return [source for source in found if prober.can_return(source)]

    def capture(self, sources: Iterable[Source], prober: SourceProber) -> None:
        """Take the witnesses of sources, before their tokens. Raises WarehouseError."""
        sources = list(sources)
        self._witnesses.update(prober.witnesses(sources))
        in_file = [source.unique_id for source in sources if prober.is_in_file(source)]
        if in_file:
            self._file_states.update(dict.fromkeys(in_file, prober.file_state()))

    def distrust(self, unique_ids: Iterable[str]) -> None:
        """Drop the witnesses of sources whose tokens could not be read after them: there is no telling which rows they are about."""
        for uid in unique_ids:
            self._witnesses.pop(uid, None)
            self._file_states.pop(uid, None)

    def begin(self, states: Mapping[str, SourceState]) -> None:
        """Start to watch the sources that dbt is about to read, each with its captured state."""
        self._started = self._next = time.monotonic()
        unmoved = {uid: state for uid, state in states.items() if uid not in self.moved}
        reported = self.graph.sources.keys() - self.sources.keys()
        self._reported = {uid: state for uid, state in unmoved.items() if uid in reported}
        self._captured = {
            uid: state.token
            for uid, state in unmoved.items()
            if uid in self.sources and told_by_probe(state.token) is not None
        }
        if self._captured:
            try:
                weak = {source.unique_id for source in self.can_return(self._captured, self.prober())}
            except DagsterSaoError:
                return  # there is no telling how they are probed: the look reports why
            self._captured = {uid: token for uid, token in self._captured.items() if uid in weak}
            self._catch_up()

    def is_due(self) -> bool:
        """Return whether to record the finished builds now, while dbt runs on."""
        if not (self._captured or self._reported):
            return True
        try:
            can_look = not self._captured or not self.prober().waits_for_dbt
        except DagsterSaoError:
            return False
        return can_look and time.monotonic() >= self._next

    def _catch_up(self) -> None:
        """Find out whether tokens from before a write to the DuckDB file, mostly by dbt, are still true."""
        try:
            prober = self.prober()
            in_file = {uid for uid in self._captured if prober.is_in_file(self.sources[uid])}
            state = prober.file_state() if in_file else ""
            late = [uid for uid in in_file if not state or self._file_states.get(uid) != state]
            self.distrust(late)
            for uid, seen in (
                _patient(lambda: list(prober.observe([self.sources[uid] for uid in late]))) if late else ()
            ):
                if state and seen.token == told_by_probe(self._captured[uid]):
                    self._file_states[uid] = state
        except DagsterSaoError:
            return  # a source without a state of the file counts as moved

    def look(self, file_read: FileRead | None = None) -> None:
        """Find the watched sources that moved since they were captured, and those that give no answer.

        `file_read` is the state of the DuckDB file as dbt read it, None where dbt does not record it: then only tokens count.
        """
        began = time.monotonic()
        if self._reported:
            self._hear()
        if self._captured:
            self._probe(file_read)
        ended = time.monotonic()
        self._next = ended + max(_COST_FACTOR * (ended - began), _WAIT_SHARE * (ended - self._started))

    def _hear(self) -> None:
        """Find the sources whose loader reported other data since they were captured, though it may be as before again."""
        found = self.recorded()
        for uid, before in list(self._reported.items()):
            now = found.get(uid)
            if now is None or (now.token, now.since) != (before.token, before.since):
                self.moved.add(uid)
                del self._reported[uid]

    def _probe(self, file_read: FileRead | None) -> None:
        unseen = set(self._captured)
        try:
            self._compare(self.prober(), unseen, file_read)
            why = "" if not unseen else f"{', '.join(sorted(self.graph.label(uid) for uid in unseen))} gave no answer"
        except DagsterSaoError as error:
            why = sentence(error)
        if unseen:
            self.warn(
                f"It is not certain which data the builds of this run read, so they are repeated after the next probe: {why}"
            )
            self._give_up(unseen)

    def take_news(self) -> Mapping[str, Observation]:
        """Return what was found instead of what was captured, each once."""
        taken, self._news = self._news, {}
        return taken

    def _compare(self, prober: SourceProber, unseen: set[str], file_read: FileRead | None) -> None:
        witnessed = [uid for uid in self._captured if uid in self._witnesses]
        found = _patient(lambda: prober.witnesses(self.sources[uid] for uid in witnessed)) if witnessed else {}
        moved = {uid for uid, witness in found.items() if witness != self._witnesses[uid]}
        proven = set() if prober.witness_lags else found.keys() - moved
        in_file = {uid for uid in self._captured if prober.is_in_file(self.sources[uid])}
        # With a `probe_target` it can be another file: then only tokens count, too.
        is_known = file_read is not None and (not file_read.path or prober.is_file(file_read.path))
        state = file_read.state if file_read is not None else ""
        written = {uid for uid in in_file if is_known and not (state and self._file_states.get(uid) == state)}
        unseen -= moved | proven
        found_in = prober.file_state() if in_file else ""
        asked = [self.sources[uid] for uid in self._captured if uid not in proven]
        for uid, seen in _patient(lambda: list(prober.observe(asked))) if asked else ():
            if seen.error is None and seen.token != told_by_probe(self._captured[uid]):
                moved.add(uid)
                self._news[uid] = seen
            if seen.token is not None or uid in moved:
                unseen.discard(uid)
        # A source that cannot be read is unknown, and its children are not built again until it can be.
        self._say_written(written - unseen - moved)
        moved |= written - unseen
        self._file_states.update(dict.fromkeys(in_file, found_in))
        self.moved |= moved
        for uid in moved:
            del self._captured[uid]

    def _say_written(self, unique_ids: Iterable[str]) -> None:
        if names := ", ".join(sorted(self.graph.label(uid) for uid in unique_ids)):
            self.warn(
                "The DuckDB file may have been written after this run looked at it and before dbt opened it,"
                f" so models built from {names} are built again."
            )

    def _give_up(self, unseen: Iterable[str]) -> None:
        for uid in unseen:
            token = self._captured.pop(uid)
            # A source that gave no answer before either has such a version already.
            if not times_moved(token):
                self.unknown[uid] = moved_version(token, self.run_id)


def read_directly(graph: ProjectGraph, nodes: Iterable[str], tests: Iterable[str]) -> set[str]:
    """Return what nodes and tests read, themselves or through views. Builds further up have records of their own."""
    tested = {uid for test in tests for uid in graph.tests[test].reads}
    views = (uid for uid in tested if uid in graph.nodes and graph.nodes[uid].is_view)
    readers = [graph.nodes[uid] for uid in (*nodes, *views)]
    return tested.union(*(read_with_views(node, graph) for node in readers))


def _patient(look: Callable[[], _T]) -> _T:
    """Return the result of `look`, after waiting for another process that holds a DuckDB file. Raises WarehouseError."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            return look()
        except WarehouseBusyError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(_BUSY_POLL_SECONDS)
