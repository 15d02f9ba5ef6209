"""The sources above the selection of a run, probed before it builds, and once more before it records its builds."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from dagster_sao.core.decision.plan_tests import tests_of_selection
from dagster_sao.core.errors import DagsterSaoError
from dagster_sao.core.state.source_tokens import state_with
from dagster_sao.core.state.state import SourceState, StateSnapshot
from dagster_sao.orchestration import clock
from dagster_sao.orchestration.messages import sentence
from dagster_sao.orchestration.private.dagster_internals import repository_of
from dagster_sao.orchestration.project.loaded import source_policy
from dagster_sao.orchestration.project.probed_sources import open_session, probed_sources
from dagster_sao.orchestration.relations.database_copies import database_copies
from dagster_sao.orchestration.relations.relation_tokens import alterations_since, note_what_is_left
from dagster_sao.orchestration.relations.relation_watch import RelationWatch, note_alterations
from dagster_sao.orchestration.runs.setup import RunSetup
from dagster_sao.orchestration.sources.first_look import FirstLook, Heard
from dagster_sao.orchestration.sources.record_tokens import ProbedSource, next_state_of, source_event
from dagster_sao.orchestration.sources.second_look import SecondLook, read_directly
from dagster_sao.orchestration.state.read_state import LiveProject, ProjectView
from dagster_sao.orchestration.state.run_activity import run_activity
from dagster_sao.warehouse.probes.registry import Observation, SourceProber
from dagster_sao.warehouse.session import WarehouseSession
from dbt_dagster_sao.database_file import FileRead


class RunCapture:
    """Reads the state for one run. Its builds consume the versions in it, so it is read before dbt starts."""

    def __init__(self, setup: RunSetup) -> None:
        """Probe nothing yet.

        With `refresh_sources` a run that no sensor started probes every source above it. Any other run probes those
        without a known state and, unless `refresh_sources` is off, those whose recorded state may have come back since.
        """
        self._context, self._project, self._loaded = setup.context, setup.project, setup.loaded
        self._may_ask = setup.config.refresh_sources
        self._live = LiveProject(setup.instance, setup.project, setup.loaded, self._built_by_others)
        self._first = FirstLook(
            self._live,
            setup.asked.selected,
            refresh=self._may_ask and not setup.is_automated,
            state_aware=setup.asked.state_aware,
            watch=RelationWatch(setup.project),
            defers=setup.asked.defers,
        )
        self._states: Mapping[str, SourceState] = {}
        self._session: WarehouseSession | None = None
        self._open_prober: SourceProber | None = None
        self._again = SecondLook(
            setup.graph,
            {source.unique_id: source for source in probed_sources(setup.project, setup.loaded)},
            self._prober,
            lambda: setup.log_state.snapshot(setup.loaded.keys, clock.now()).sources,
            setup.context.log.warning,
            setup.run_id,
        )
        self.problems: list[str] = []
        """A sentence for each source that could not be probed or is not tracked, or for all of them."""

    def look(self) -> None:
        """Probe the warehouse and record the answers. A source that cannot be probed keeps its last state, with a warning."""
        now = clock.now()
        state = self._live.state()
        above = {source.unique_id for source in self._first.above()}
        graph, selected = self._loaded.project.graph, self._first.selected
        read = read_directly(graph, selected, tests_of_selection(graph, selected)) & above
        try:
            prober = self._prober() if above else None
            # A token that a sensor recorded proves nothing about the time since, if it can return to the same value.
            can_return = self._again.can_return(read, prober) if prober and self._may_ask else []
            witnessed = [source for source in can_return if prober and prober.has_witness(source)]
            sources = self._first.sources(state, {source.unique_id for source in witnessed})
            if witnessed and prober:
                self._again.capture(witnessed, prober)
            if self._first.is_needed(state, sources):
                heard = Heard(self._prober())
                for problem in self._first.record(heard, sources, state, now, untracked_at=self._context.run.run_id):
                    self._warn(problem)
                self._again.distrust({source.unique_id for source in sources} - heard.tokens)
            if self._may_ask:
                self._note_alterations(state)
        except DagsterSaoError as error:
            # With an old token the next probe looks like new data: one build too many, none too few.
            self._again.distrust(self._again.sources)
            self._warn(f"The warehouse could not be queried for new data: {sentence(error)}")

    def _note_alterations(self, state: StateSnapshot) -> None:
        """Note the relations that the run may read and that were altered outside Dagster since a sensor's last look.

        What is built from them then consumes a version of its own. Raises WarehouseError.
        """
        graph, selected = self._loaded.project.graph, self._first.selected
        read = read_directly(graph, selected, tests_of_selection(graph, selected)) & state.builds.keys()
        nodes = [graph.nodes[uid] for uid in sorted(read) if uid in graph.nodes]
        if nodes:
            view = ProjectView(self._context.instance, self._project, self._loaded, state, clock.now())
            for observation in note_alterations(view, self._prober(), nodes):
                self._context.instance.report_runless_asset_event(observation)

    def state(self) -> StateSnapshot:
        """Return the state as it is recorded now."""
        return self._live.state()

    def expect(self, state: StateSnapshot, nodes: Iterable[str], tests: Iterable[str]) -> None:
        """Note the versions in `state` of everything that dbt is about to read."""
        read = read_directly(self._loaded.project.graph, nodes, tests)
        self._states = state.sources
        self._again.begin({uid: state.sources[uid] for uid in read if uid in state.sources})

    def is_due_again(self) -> bool:
        """Return whether to record the finished builds now, while dbt runs on."""
        return self._again.is_due()

    def look_again(self, file_read: FileRead | None) -> tuple[frozenset[str], Mapping[str, str]]:
        """Probe once more what dbt has read. Return the sources that moved, and a token for each that gave no answer.

        `file_read` is what dbt read of its DuckDB file (`DbtProcess.file_read`).

        The new tokens are recorded, as always. So are the tokens of sources without an answer: they count as new once they answer
        again, and not at every probe until then.
        """
        known = set(self._again.unknown)
        self._again.look(file_read)
        now = clock.now()
        for uid, seen in self._again.take_news().items():
            policy = source_policy(self._loaded, self._again.sources[uid])
            if (found := next_state_of(seen, policy, self._states.get(uid), now)) is not None:
                self._record(uid, seen, found)
        for uid in self._again.unknown.keys() - known:
            self._record(
                uid, Observation(None, "none"), state_with(self._states.get(uid), self._again.unknown[uid], now)
            )
        return frozenset(self._again.moved), dict(self._again.unknown)

    def found_at_end(self, state: StateSnapshot, built: Collection[str]) -> tuple[dict[str, str], dict[str, str]]:
        """Return the new tokens of sources that the builds of the run read, and the tokens of nodes altered outside Dagster.

        Probed when dbt has ended, with all hooks: the run itself may have changed them. Without hooks, a source that the
        second look found unchanged is not probed again. Raises WarehouseError when the warehouse cannot be probed.
        """
        graph = self._loaded.project.graph
        read = read_directly(graph, built, ())
        sources = [self._again.sources[uid] for uid in read if uid in self._again.sources and uid in state.sources]
        nodes = [graph.nodes[uid] for uid in read if uid in graph.nodes and uid not in built]
        if not self._may_ask or not (sources or nodes):
            return {}, {}
        prober, now, tokens, has_hooks = self._prober(), clock.now(), {}, self._has_hooks(built)
        asked = [s for s in sources if has_hooks or s.unique_id in self._again.moved or not prober.can_return(s)]
        for uid, seen in prober.observe(asked) if asked else ():
            policy = source_policy(self._loaded, self._again.sources[uid])
            if (found := next_state_of(seen, policy, state.sources[uid], now)) is not None:
                tokens[uid] = found.token
        view = ProjectView(self._context.instance, self._project, self._loaded, state, now)
        return tokens, alterations_since(view, prober, nodes)

    def note_what_is_left(self, built: Collection[str]) -> None:
        """Note what builds of the run left, so that a later change from outside Dagster is detected.

        Raises WarehouseError when the warehouse cannot be queried.
        """
        project, prober = self._project, self._open_prober
        # Opening a session for this alone costs too much. Another role cannot tell whether the sessions of dbt have ended.
        if prober is None or project.probe_target != project.dbt_project.target:
            return
        nodes = [self._loaded.project.graph.nodes[uid] for uid in built]
        note_what_is_left(self._live, prober, nodes, self._context.run.run_id)

    def _has_hooks(self, built: Iterable[str]) -> bool:
        nodes: Mapping[str, Any] = self._loaded.manifest["nodes"]
        configs = (nodes[uid].get("config") or {} for uid in built)
        return any(config.get("pre-hook") or config.get("post-hook") for config in configs) or any(
            node.get("resource_type") == "operation" for node in nodes.values()
        )

    def _record(self, uid: str, seen: Observation, state: SourceState) -> None:
        probed = ProbedSource(self._again.sources[uid], seen, 0.0)
        key = self._loaded.keys.by_unique_id[uid]
        self._context.instance.report_runless_asset_event(source_event(key, probed, state))

    def note_database(self) -> None:
        """Note which copies of its DuckDB files the run leaves, where the run has a session with them."""
        if self._session is None:
            return
        instance, name = self._context.instance, self._project.state_name
        database_copies(instance, name, self._session.database_files).note(instance, name, older=False)

    def close(self) -> None:
        """Close the connection to the warehouse."""
        if self._session is not None:
            self._session.close()

    def _prober(self) -> SourceProber:
        if self._open_prober is None:
            self._session = open_session(self._project, self._loaded)
            self._open_prober = SourceProber(self._session, now_ns=clock.now_ns)
        return self._open_prober

    def _warn(self, problem: str) -> None:
        # A problem of a whole server is logged once, not for each of its sources.
        if problem not in self.problems:
            self.problems.append(problem)
            self._context.log.warning(problem)

    def _built_by_others(self) -> Mapping[str, str]:
        instance, repository = self._context.instance, repository_of(self._context)
        building = run_activity(instance, self._loaded, self._project.name, repository, clock.now()).building
        return {uid: run_id for uid, run_id in building.items() if run_id != self._context.run.run_id}
