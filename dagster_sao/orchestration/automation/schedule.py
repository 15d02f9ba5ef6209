"""The schedule of a state-aware job: a tick makes the plan of the run, and starts the run only when it has something to do.

The tick looks at the warehouse and decides by the same code as the run, which decides again. Whatever the tick cannot find
out starts the run: an error while planning, a warehouse that cannot be queried, a source that there was no time for.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import dagster as dg

from dagster_sao.core.decision.plan import Plan
from dagster_sao.core.next_build import next_build
from dagster_sao.core.state.state import StateSnapshot
from dagster_sao.orchestration import clock
from dagster_sao.orchestration.automation.choices import Choice
from dagster_sao.orchestration.automation.due_tests import run_request
from dagster_sao.orchestration.automation.evaluations import ShownReasons
from dagster_sao.orchestration.automation.scheduled_run import (
    covering_run,
    idle_line,
    part_suffices,
    queued_line,
    start_up,
)
from dagster_sao.orchestration.automation.time_limit import TimeLimit
from dagster_sao.orchestration.automation.undefined import undefined_line
from dagster_sao.orchestration.events.door import errors_masked
from dagster_sao.orchestration.leases.dead_runs import end_dead_runs, ended_line
from dagster_sao.orchestration.messages import sentence
from dagster_sao.orchestration.private.automation import (
    location_of_run,
    location_of_schedule,
    store_schedule_evaluations,
)
from dagster_sao.orchestration.private.dagster_internals import lend_instance, repository_of_tick
from dagster_sao.orchestration.project.loaded import LoadedProject
from dagster_sao.orchestration.project.orchestrated import OrchestratedProject
from dagster_sao.orchestration.relations.relation_watch import RelationWatch
from dagster_sao.orchestration.runs.config import StateAwareRunConfig, with_dbt_arguments
from dagster_sao.orchestration.runs.run_plan import AskedOfRun, RunInputs, asked_of_assets, decide_run
from dagster_sao.orchestration.sources.first_look import FirstLook, Heard
from dagster_sao.orchestration.sources.warm_prober import WarmProber
from dagster_sao.orchestration.state.read_state import LiveProject
from dagster_sao.orchestration.state.run_activity import asked_at, run_activity
from dagster_sao.orchestration.tick_context import FirstWarnings, TickLog, tick_instance
from dagster_sao.warehouse.adapters import traits_of
from dagster_sao.warehouse.errors import WarehouseError
from dagster_sao.warehouse.redaction import masked

# Together with the default of `tick_seconds` less than the minute that Dagster's daemon waits for a tick. The daemon would take
# no answer for a tick that failed, and one query that takes long, or never answers, would keep the job from ever running.
_BESIDE_PROBING_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class ScheduledJob:
    """A job as its schedule starts it."""

    name: str
    schedule_name: str
    config: StateAwareRunConfig
    run_config: Mapping[str, Any]
    """The same, as Dagster takes it."""
    assets: frozenset[dg.AssetKey]
    checks: frozenset[dg.AssetCheckKey]
    is_stateful: bool
    """Whether only the run can resolve its selection for good."""
    timezone: str | None
    tick_seconds: float
    """The time budget of a tick for probing."""


@dataclass
class _Warm:
    """What a schedule keeps of a project between ticks."""

    prober: WarmProber
    watch: RelationWatch


class _UnknownError(Exception):
    """The tick cannot know what the run would do."""


@dataclass(frozen=True, slots=True)
class _Tick:
    """One tick of one schedule."""

    instance: dg.DagsterInstance
    project: OrchestratedProject
    loaded: LoadedProject
    asked: AskedOfRun
    repository: dg.RepositoryDefinition | None
    log: TickLog
    deadline: float
    problems: list[str] = field(default_factory=list)
    """A sentence for each source that could not be probed, and about models that the definitions do not have."""

    def building(self) -> Mapping[str, str]:
        """Return what unfinished runs will build."""
        return run_activity(self.instance, self.loaded, self.project.name, self.repository, clock.now()).building

    @property
    def live(self) -> LiveProject:
        """The project, whose state is read anew at each call."""
        return LiveProject(self.instance, self.project, self.loaded, self.building)


class JobSchedule:
    """Decides the ticks of one job's schedule."""

    def __init__(self, project: OrchestratedProject, job: ScheduledJob) -> None:
        """Open and read nothing yet."""
        self._project, self._job = project, job
        self._warm: dict[OrchestratedProject, _Warm] = {}
        self._reasons = ShownReasons()
        self._warnings = FirstWarnings()
        self._limit = TimeLimit(job.tick_seconds + _BESIDE_PROBING_SECONDS)

    def tick(self, context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        """Return the run that has something to do, or why there is none. Raises nothing: what is unknown starts the run."""
        log = TickLog(context)
        try:
            instance = tick_instance(context)
        except dg.DagsterInvariantViolationError:  # there is none, as in a unit test
            return self._whole_job()
        lend_instance(context, instance)
        try:
            answer = self._limit.decide(lambda: self._decide_masked(context, instance, log))
        except Exception as error:  # noqa: BLE001 (whatever dbt, the warehouse or a driver raises)
            log.warning(f"{self._job.name} starts without a plan: {sentence(error)}")
            answer = self._whole_job()
        if isinstance(answer, dg.SkipReason):
            return answer
        queued = instance.get_runs(dg.RunsFilter(job_name=self._job.name, statuses=[dg.DagsterRunStatus.QUEUED]))
        location = location_of_schedule(instance, self._job.schedule_name) if queued else None
        ours = (run for run in queued if location is not None and location_of_run(run) == location)
        run = covering_run(ours, answer, self._job.run_config)
        return answer if run is None else dg.SkipReason(queued_line(run))

    def _decide_masked(
        self, context: dg.ScheduleEvaluationContext, instance: dg.DagsterInstance, log: TickLog
    ) -> dg.RunRequest | dg.SkipReason:
        with errors_masked():
            return self._decide(context, instance, log)

    def _decide(
        self, context: dg.ScheduleEvaluationContext, instance: dg.DagsterInstance, log: TickLog
    ) -> dg.RunRequest | dg.SkipReason:
        tick = self._begin(context, instance, log)
        if not tick.asked.selected:
            msg = "its selection names no model that the dbt project still has"
            raise _UnknownError(msg)
        for run_id in end_dead_runs(instance):
            log.warning(ended_line(run_id))
        self._look(tick)
        now, state = clock.now(), tick.live.state()
        plan = decide_run(RunInputs(tick.asked, state, now)).plan
        if later := start_up(plan, state, now, lambda runs: asked_at(instance, runs)):
            plan = decide_run(RunInputs(tick.asked, state, now + later)).plan
        choices = {uid: Choice(decision) for uid, decision in plan.decisions.items()}
        evaluations = self._reasons.changed(choices, tick.loaded)
        store_schedule_evaluations(instance, self._job.schedule_name, evaluations)
        if plan.builds or plan.test_runs or plan.uncalled:
            return self._request(tick, plan, state)
        upcoming = next_build(plan, tick.loaded.project, state, now)
        line = idle_line(plan, state.verdicts, upcoming, now, self._job.timezone, tick.problems)
        return dg.SkipReason(masked(line))

    def _begin(self, context: dg.ScheduleEvaluationContext, instance: dg.DagsterInstance, log: TickLog) -> _Tick:
        """Read the manifest and what the run is asked for. Raises an error where the run would, too."""
        deadline, job = time.monotonic() + self._job.tick_seconds, self._job
        project = self._project.variant(job.config.target, job.config.vars)
        loaded = project.refresh(log)
        if project.unread:
            raise _UnknownError(project.unread)
        asked = asked_of_assets(
            project,
            loaded,
            with_dbt_arguments(job.config, project.dbt_args),
            job.assets,
            frozenset(uid for uid, key in loaded.check_keys.items() if key in job.checks),
            warn=log.warning,
            state_aware=True,
        )
        repository = repository_of_tick(context)
        problems = [undefined] if (undefined := undefined_line(loaded, repository)) else []
        for problem in problems:
            self._warnings.warn(log, problem)
        return _Tick(instance, project, loaded, asked, repository, log, deadline, problems)

    def _look(self, tick: _Tick) -> None:
        """Record what the sources answer, and note the relations, as the run does at its beginning.

        Raises _UnknownError or WarehouseError where anything stays unknown. An error of one source does not count as that:
        nothing is built because of it, and the line of the tick shows it.
        """
        if tick.project not in self._warm:
            # A tick may be the last of its day, and a run would look, too.
            watch = RelationWatch(tick.project, rows_every=timedelta(0))
            self._warm[tick.project] = _Warm(WarmProber(tick.project), watch)
        warm = self._warm[tick.project]
        first = FirstLook(
            tick.live,
            tick.asked.selected,
            refresh=tick.asked.config.refresh_sources,
            state_aware=True,
            watch=warm.watch,
            defers=tick.asked.defers,
        )
        now, state = clock.now(), tick.live.state()
        sources = first.sources(state)
        if not first.is_needed(state, sources):
            return
        self._leave_alone_what_is_written(tick)
        try:
            heard = Heard(warm.prober.of(tick.loaded), tick.deadline)
            untracked_at = f"schedule of {self._job.name} at {now.isoformat()}"
            for problem in first.record(heard, sources, state, now, untracked_at=untracked_at):
                self._warnings.warn(tick.log, problem)
        except WarehouseError:
            warm.prober.forget()
            raise
        if left := len({source.unique_id for source in sources} - heard.seen):
            msg = f"{left} of {len(sources)} sources could not be probed in {self._job.tick_seconds:g} seconds"
            raise _UnknownError(msg)
        tick.problems.extend(heard.errors)

    def _leave_alone_what_is_written(self, tick: _Tick) -> None:
        """Raise where a run that has begun may write to an embedded database: a reader would stop its builds from starting."""
        if not traits_of(tick.loaded.project.graph.adapter_type).is_embedded:
            return
        activity = run_activity(tick.instance, tick.loaded, tick.project.name, tick.repository, clock.now())
        queued = {run.run_id for run in tick.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED]))}
        at_work = sorted({*activity.building.values(), *activity.testing.values()} - queued)
        if at_work:
            msg = f"run {at_work[0][:8]} may be writing to the database"
            raise _UnknownError(msg)

    def _request(self, tick: _Tick, plan: Plan, state: StateSnapshot) -> dg.RunRequest:
        """Return the request of a run of what is due, or of the whole job where a part would not do the same."""
        if self._job.is_stateful or not part_suffices(tick.asked, plan, state.verdicts):
            return self._whole_job()
        builds = [uid for uid in plan.builds if uid in tick.asked.selected]
        part = run_request(tick.loaded, builds, plan.test_runs, self._job.checks, {}, self._job.run_config)
        if part is None or not self._job.assets.issuperset(part.asset_selection or ()):
            return self._whole_job()
        return part

    def _whole_job(self) -> dg.RunRequest:
        return dg.RunRequest(run_config=self._job.run_config)
