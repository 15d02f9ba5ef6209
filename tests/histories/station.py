"""Dagster's side of a history: a code server with its sensors, and the runs that they or a person request."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any
from unittest.mock import patch

import dagster as dg
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.events import DagsterEventType
from dagster._core.execution.api import execute_run
from dagster._core.storage.runs.schema import RunsTable
from dagster_dbt import DbtProject
from dagster_shared.serdes import serialize_value

from dagster_sao import build_state_aware_definitions
from dagster_sao.api.project import StateAwareProject
from dagster_sao.core.code.versions import times_moved
from dagster_sao.core.decision.decide import Decision
from dagster_sao.core.decision.plan import Plan
from dagster_sao.core.decision.planner import make_plan
from dagster_sao.core.state.state import Verdict, VerdictStatus
from dagster_sao.orchestration.events.event_schema import FAILURE_KEY, TESTS_TAG
from dagster_sao.orchestration.runs.run_plan import RunInputs, RunPlan, decide_run
from dagster_sao.orchestration.state.event_log import EventLogState
from dagster_sao.orchestration.state.read_state import read_state
from dagster_sao.orchestration.state.relation_notes import read_columns, read_relation_notes
from tests.histories.inprocess_dbt import Accident, InProcessDbt
from tests.histories.project import NAME
from tests.histories.schedules import Answer, Schedules, assert_requested
from tests.histories.simulated_time import SimulatedTime
from tests.histories.steps import PAUSE, History, Step
from tests.histories.watch import EndedRun, Watch

_MOST_CYCLES = 12
_SILENT = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass
class Run:
    """A run that was asked for."""

    run: dg.DagsterRun
    job: dg.JobDefinition
    names: frozenset[str]
    is_automated: bool
    decides: bool
    """Whether it builds only what needs it."""


class Station(ABC):
    """Takes the steps of one history, those that are Dagster's; what else can happen is added below this class."""

    def __init__(
        self,
        folder: Path,
        parsed: Path,
        instance: dg.DagsterInstance,
        time: SimulatedTime,
        last_build: EndedRun | None = None,
        options: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Start a code server whose definitions have `options`."""
        self._folder, self._options = folder, options
        self.foresees = True
        """Whether a dry run must show what a run decides."""
        self._instance, self._time = instance, time
        self._pending: list[Run] = []
        self._deletable: Run | None = None
        self._running: Run | None = None
        self._last: Run | None = None
        self._has_unseen_data = False
        """Whether a source may have changed since the freshness sensor looked."""
        self._is_disturbed = False
        """Whether something happens in the midst of the run that executes."""
        InProcessDbt.stage.accident = Accident()
        InProcessDbt.stage.offset = lambda: time.offset
        InProcessDbt.stage.parsed = parsed
        self.restart()
        self.watch = Watch(self._descendants, timedelta(hours=2), last_build=last_build)

    def live(self, history: History) -> None:
        """Take each step, come to rest, and see that all is as it should be."""
        for step in history:
            self.take(step)
        self.settle()
        self._assert_quiet()

    def take(self, step: Step) -> None:
        """Take one step."""
        if step != PAUSE:
            what, *words = step
            self._has_unseen_data = True
            getattr(self, "_" + what.replace(" ", "_"))(*words)

    @abstractmethod
    def _judge_run(self, asked: Run, built: AbstractSet[str]) -> None:
        """Judge what a run built by what the warehouse holds after it."""

    def _verdicts(self) -> Mapping[str, Verdict]:
        """Return the verdicts by the name of their test, as a process that starts now reads them."""
        loaded = self.project.load()
        state = EventLogState(self._instance, NAME).snapshot(loaded.keys, self._time.now())
        tests = loaded.project.graph.tests
        return {tests[uid].name: verdict for uid, verdict in state.verdicts.items() if uid in tests}

    def _tokens(self) -> Mapping[str, str]:
        loaded = self.project.load()
        state = EventLogState(self._instance, NAME).snapshot(loaded.keys, self._time.now())
        return {uid.rsplit(".", 1)[-1]: source.token for uid, source in state.sources.items()}

    def _columns(self) -> Mapping[str, str]:
        """Return the signatures of columns that were last seen, by name."""
        seen = read_columns(self._instance, self.project.state_name).seen
        return {uid.rsplit(".", 1)[-1]: signature for uid, (_, signature) in seen.items()}

    def _seen(self) -> set[tuple[str, str]]:
        return {*self._tokens().items(), *self._columns().items(), *self._alterations()}

    def _alterations(self) -> Iterable[tuple[str, str]]:
        """Yield what is noted of altered relations, by name: a run notes it too, of what it has read."""
        for uid, note in read_relation_notes(self._instance, self.project.state_name).seen.items():
            if note.alteration is not None:
                yield uid.rsplit(".", 1)[-1], note.alteration

    def _decisions(self) -> Mapping[str, Decision]:
        """Return what would become of each node now, by name."""
        loaded, now = self.project.load(), self._time.now()
        state = read_state(self._instance, self.project, loaded, now)
        plan = make_plan(loaded.project, state, now=now)
        return {uid.rsplit(".", 1)[-1]: decision for uid, decision in plan.decisions.items()}

    def _assert_shown(self, verdicts: Mapping[str, Verdict]) -> None:
        """See that Dagster shows of each check what its test answered."""
        loaded = self.project.load()
        known = self._repository.asset_graph.asset_check_keys
        for uid, key in loaded.check_keys.items():
            verdict = verdicts.get(loaded.project.graph.tests[uid].name)
            shown = self._last_shown(key) if key in known and verdict is not None else None
            if shown is not None and verdict is not None:
                is_passed = verdict.status is VerdictStatus.PASS
                assert shown.passed == is_passed, f"wrongly reported: {key.name} is shown as {shown}, and is {verdict}"

    def _last_shown(self, key: dg.AssetCheckKey) -> dg.AssetCheckEvaluation | None:
        for record in self._instance.event_log_storage.get_asset_check_execution_history(key, limit=20):
            event = record.event.dagster_event if record.event else None
            data = event.event_specific_data if event else None
            if isinstance(data, dg.AssetCheckEvaluation):
                return data
        return None

    @abstractmethod
    def settle(self) -> None:
        """Come to rest, and compare the warehouse with a full build."""

    def restart(self) -> None:
        """Start the code server anew: what it kept in memory is lost."""
        dbt_project = DbtProject(self._folder)
        self._definitions = dg.Definitions.merge(
            build_state_aware_definitions(dbt_project, dbt=InProcessDbt(dbt_project), **self._options),
            dg.Definitions(executor=dg.in_process_executor),
        )
        self._repository = self._definitions.get_repository_def()
        self._sensors = {sensor.name: sensor for sensor in self._repository.sensor_defs}
        self._cursors: dict[str, str | None] = {}
        self.project = self._sensors[f"{NAME}_automation_sensor"].project  # type: ignore[attr-defined]
        self._schedules = Schedules(self.project, self._repository, self._instance)

    _restart = restart

    def _advance(self, minutes: int) -> None:
        self._time.advance(timedelta(minutes=minutes))
        self.watch.advances += 1

    def _freshness(self) -> bool:
        """Tick the freshness sensor. Returns whether it recorded anything."""
        columns = self._columns()
        events = self._tick("freshness_sensor").asset_events
        for event in events:
            self._instance.report_runless_asset_event(event)
        self.watch.learned(event.asset_key.path[-1] for event in events)
        changed = {name for name, signature in self._columns().items() if columns.get(name) != signature}
        self.watch.learned(changed)
        self._has_unseen_data = False
        return bool(events or changed)

    def _automation(self) -> bool:
        """Tick the automation sensor. Returns whether it asked for a run."""
        requests = self._tick("automation_sensor").run_requests or []
        for request in requests:
            names = frozenset(key.path[-1] for key in request.asset_selection or ())
            unfinished = [run.names for run in (*self._pending, self._running) if run is not None]
            if TESTS_TAG not in request.tags:  # else some are there only to start a run of tests with
                self.watch.requested(names, unfinished)
            checks = frozenset(request.asset_check_keys or ())
            self._pending.append(self._new_run(names, request.tags, checks=checks, is_automated=True, decides=True))
        return bool(requests)

    def _tick(self, name: str) -> Any:
        name = f"{NAME}_{name}"
        context = dg.build_sensor_context(
            instance=self._instance, cursor=self._cursors.get(name), repository_def=self._repository
        )
        data = self._sensors[name].evaluate_tick(context)
        self._cursors[name] = data.cursor
        return data

    def _new_run(
        self,
        names: Iterable[str],
        tags: Any = None,
        *,
        checks: AbstractSet[dg.AssetCheckKey] | None = None,
        is_automated: bool = False,
        decides: bool = False,
    ) -> Run:
        names = frozenset(names)
        keys = {key for key in self._repository.asset_graph.executable_asset_keys if key.path[-1] in names}
        job = self._repository.get_implicit_global_asset_job_def().get_subset(
            asset_selection=keys, asset_check_selection=checks
        )
        config = {"state_aware": True} if decides and not is_automated else {}
        run = self._instance.create_run_for_job(
            job,
            asset_selection=frozenset(keys),
            tags=tags,
            run_config={**_SILENT, "ops": {f"{NAME}_dbt_assets": {"config": config}}},
        )
        run = run._replace(asset_check_selection=frozenset(checks) if checks is not None else None)
        created = self._time.now().replace(tzinfo=None)
        with self._instance.run_storage.connect() as connection:  # type: ignore[attr-defined]
            # The database has a clock of its own.
            is_this = RunsTable.c.run_id == run.run_id
            connection.execute(
                RunsTable.update()
                .where(is_this)
                .values(create_timestamp=created, update_timestamp=created, run_body=serialize_value(run))
            )
        return Run(run, job, names, is_automated, decides)

    def _run(self, which: str) -> None:
        if self._pending:
            self._execute(self._pending.pop(0 if which == "oldest" else -1))

    def _materialize(self, names: list[str]) -> None:
        if self._running is None and (there := self._names.intersection(names)):
            self._execute(self._new_run(there))

    def _job(self, names: list[str]) -> None:
        """Run a state-aware job of some models, by default of all, after a tick of its schedule."""
        if self._running is None:
            wanted = frozenset(self._names.intersection(names) or self._names)
            known = self._seen()
            answer = self._schedules.tick(wanted)
            self.watch.learned(name for (name, value) in self._seen() - known)
            self._execute(self._new_run(wanted, decides=True), answer)

    def _terminate(self, at: int) -> None:
        """Let somebody terminate the next run, while dbt is at its `at`-th statement."""
        accident = InProcessDbt.stage.accident
        accident.kill_dbt_at, accident.terminate = at, True

        def report() -> None:
            if self._running is not None and (run := self._instance.get_run_by_id(self._running.run.run_id)):
                self._instance.report_run_canceling(run)

        accident.before_events = report

    def _execute_again(self) -> None:
        """Execute the last run again, if it failed, as "re-execute from failure" and run retries do."""
        if self._running is None and self._last is not None:
            run = self._instance.get_run_by_id(self._last.run.run_id)
            if run is not None and not run.is_success:
                tags = {"dagster/parent_run_id": run.run_id, "dagster/is_resume_retry": "true"}
                self._execute(self._new_run(self._last.names, tags, decides=True))

    def _set_back(self, minutes: int) -> None:
        """Set the clock back, of all machines."""
        self._advance(-minutes)
        # No failure is waited for longer than its wait, whatever the clock says.
        self.watch.failures.clear()

    def _delete_run(self) -> None:
        """Delete the last run, as jobs that clean up do."""
        if self._running is not None or self._deletable is None:
            return
        run = self._instance.get_run_by_id(self._deletable.run.run_id)
        if run is not None and run.status is dg.DagsterRunStatus.CANCELED:
            self.watch.learned(self._deletable.names)  # nothing tells any more that somebody terminated it
        self._instance.delete_run(self._deletable.run.run_id)
        self._deletable = None

    def _execute(self, asked: Run, tick: Answer | None = None) -> None:
        """Execute a run. `tick` is what the schedule of a job answered right before."""
        started_at, self._running = self._time.now(), asked
        self._is_disturbed = False
        known = self._seen()
        InProcessDbt.stage.broken.clear()
        shown = self._dry_run(asked)
        decided: list[RunPlan] = []

        def decide(inputs: RunInputs) -> RunPlan:
            decided.append(decide_run(inputs))
            return decided[-1]

        with patch("dagster_sao.orchestration.runs.execution.decide_run", decide):
            execute_run(InMemoryJob(asked.job), asked.run, self._instance, raise_on_error=False)
        if shown is not None and decided:
            # As the run begins: what others do while it waits for them is not foreseen.
            _assert_same_decisions(shown, decided[0].plan)
            if tick is not None:
                assert_requested(tick, decided[0].plan, asked.names)
        self._running, self._last = None, asked
        built, failed = self._outcome(asked.run.run_id)
        self._judge_run(asked, built)
        # A run that a person starts looks at the sources too.
        self.watch.learned(name for (name, value) in self._seen() - known)
        self.watch.learned(self._moved_under(asked.run.run_id))
        # What dbt itself said, lest an attempt that is not recorded goes unnoticed.
        failed |= self._names & InProcessDbt.stage.broken
        self._deletable = asked
        self.watch.ended(EndedRun(asked.is_automated, started_at, self._time.now(), built, failed, asked.names))

    def _dry_run(self, asked: Run) -> Plan | None:
        """Return what a dry run shows right before a run that somebody asks for; None where there is no such dry run."""
        if not self.foresees or asked.is_automated or not asked.names or asked.run.tags.get("dagster/parent_run_id"):
            return None
        project = StateAwareProject.from_definitions(self._definitions, instance=self._instance)
        return project.plan(sorted(asked.names), state_aware=asked.decides).plan

    def _moved_under(self, run_id: str) -> AbstractSet[str]:
        """Return what a run built from data that moved meanwhile: once that is news, though it may have come back."""
        loaded = self.project.load()
        state = EventLogState(self._instance, NAME).snapshot(loaded.keys, self._time.now())
        read = {uid: build.consumed for uid, build in state.builds.items() if build.run_id == run_id}
        return {
            uid.rsplit(".", 1)[-1]
            for uid, consumed in read.items()
            if any(times_moved(version) == 1 for version in consumed.values())
        }

    def _outcome(self, run_id: str) -> tuple[AbstractSet[str], AbstractSet[str]]:
        built, failed = set(), set()
        kinds = {DagsterEventType.ASSET_MATERIALIZATION, DagsterEventType.ASSET_OBSERVATION}
        for entry in self._instance.all_logs(run_id, of_type=kinds):
            event = entry.get_dagster_event()
            name = event.asset_key.path[-1] if event.asset_key else ""
            if event.event_type is DagsterEventType.ASSET_MATERIALIZATION:
                built.add(name)
            elif FAILURE_KEY in event.asset_observation_data.asset_observation.metadata:
                failed.add(name)
        return built, failed

    def _cycle(self) -> bool:
        """Tick both sensors and execute all runs. Returns whether anything happened."""
        news = self._freshness()
        requested = self._automation()
        for _ in range(len(self._pending)):
            self._run("oldest")
        return news or requested

    def quiesce(self) -> None:
        """Go on until nothing is found and nothing is asked for."""
        for _ in range(_MOST_CYCLES):
            if not self._cycle() and not self._pending:
                return
        raise AssertionError(f"hot loop: no rest after {_MOST_CYCLES} cycles")

    def _assert_quiet(self) -> None:
        for _ in range(2):
            self._advance(1)
            assert not self._freshness(), "hot loop: news of a source that nobody touched"
            assert not self._automation(), f"hot loop: {sorted(self._pending[-1].names)} with nothing new"

    @property
    def _names(self) -> AbstractSet[str]:
        return {uid.rsplit(".", 1)[-1] for uid in self.project.load().project.graph.nodes}

    def _descendants(self, names: Iterable[str]) -> AbstractSet[str]:
        graph = self.project.load().project.graph
        names = set(names)
        ids = [uid for uid in (*graph.nodes, *graph.sources) if uid.rsplit(".", 1)[-1] in names]
        return {uid.rsplit(".", 1)[-1] for uid in graph.descendants(ids)}


def _assert_same_decisions(shown: Plan, decided: Plan) -> None:
    """See that a dry run showed what the run then decided."""
    for what, said, done in (
        ("nodes", shown.decisions, decided.decisions),
        ("tests", shown.tests, decided.tests),
        ("functions", shown.functions, decided.functions),
    ):
        before = {uid: (decision.action, decision.reason) for uid, decision in said.items()}
        after = {uid: (decision.action, decision.reason) for uid, decision in done.items()}
        different = {
            uid: (before.get(uid), after.get(uid)) for uid in {*before, *after} if before.get(uid) != after.get(uid)
        }
        assert not different, f"wrong dry run: of these {what} it showed, and the run decided: {different}"
    assert shown.in_order(shown.builds, shown.test_runs) == decided.in_order(decided.builds, decided.test_runs)
