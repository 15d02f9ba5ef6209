"""The freshness sensor, one per dbt project: probes the sources in the warehouse and records new data."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import dagster as dg

from dagster_sao.core.manifest.graph import Source
from dagster_sao.core.sources_worth_asking import wanted_sources
from dagster_sao.orchestration import clock
from dagster_sao.orchestration.events.door import errors_masked, mask_log, masked_event
from dagster_sao.orchestration.messages import sentence
from dagster_sao.orchestration.project.loaded import LoadedProject, source_policy
from dagster_sao.orchestration.project.orchestrated import OrchestratedProject
from dagster_sao.orchestration.project.probed_sources import probed_sources
from dagster_sao.orchestration.relations.relation_watch import RelationWatch
from dagster_sao.orchestration.sensor_cursor import read_cursor, write_cursor
from dagster_sao.orchestration.sources.age_checks import FreshnessReports, freshness_result, stale_at
from dagster_sao.orchestration.sources.probing_turns import ProbingTurns
from dagster_sao.orchestration.sources.record_tokens import ProbedSource, next_state_of, source_event
from dagster_sao.orchestration.sources.schedule import ProbeSchedule
from dagster_sao.orchestration.sources.warm_prober import WarmProber
from dagster_sao.orchestration.state.read_state import LiveProject, ProjectView, view_project
from dagster_sao.orchestration.state.run_activity import RunActivity, run_activity
from dagster_sao.orchestration.tick_context import FirstWarnings, TickLog, tick_instance
from dagster_sao.warehouse.adapters import traits_of
from dagster_sao.warehouse.errors import WarehouseBusyError, WarehouseError
from dagster_sao.warehouse.probes.registry import SourceProber
from dagster_sao.warehouse.probes.settings import place
from dagster_sao.warehouse.redaction import masked
from dagster_sao.warehouse.session import Cost

_FIRST = "first"
"""What the cursor stores: the source to start with, where a tick had no time for all."""
_NAMED_SOURCES = 5
_STILL_PROBING = "An earlier tick is still probing the sources: a query of it takes long. Nothing is lost: the next tick probes again."


@dataclass
class _Tick:
    """The plan of one tick, and what it found."""

    view: ProjectView
    sources: list[Source]
    """The sources that can be probed."""
    due: list[Source]
    """The sources to probe, in this order."""
    wanted: set[str]
    """The sources whose new data could lead to a build now."""
    seen: set[str] = field(default_factory=set)
    events: list[dg.AssetMaterialization | dg.AssetObservation | dg.AssetCheckEvaluation] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    failing: dict[str, str] = field(default_factory=dict)
    """The last error of each failing source, by label."""
    cost: Cost = field(default_factory=Cost)

    @property
    def left(self) -> list[Source]:
        """The sources that the tick had no time for."""
        return [source for source in self.due if source.unique_id not in self.seen]


@dataclass(frozen=True, slots=True)
class _Look:
    """One look at the sources."""

    summary: str
    tick: _Tick | None = None
    """What it found, None where the warehouse could not be probed."""

    @property
    def next(self) -> str | None:
        """The source to start with the next time, where there was no time for all."""
        return self.tick.left[0].unique_id if self.tick and self.tick.left else None

    @property
    def events(self) -> Sequence[Any]:
        """The news, without secrets."""
        return [masked_event(event) for event in self.tick.events] if self.tick else []


class _Journal:
    """Keeps what a look logs until the freshness sensor ticks."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def info(self, message: str) -> None:
        self.lines.append(("info", message))

    def warning(self, message: str) -> None:
        self.lines.append(("warning", message))


class FreshnessProber:
    """What a freshness sensor keeps between ticks: the open session, and when each source was probed."""

    def __init__(self, project: OrchestratedProject, *, tick_seconds: float, interval_seconds: int) -> None:
        """Connect to nothing yet. `tick_seconds` is the time budget of a tick, `interval_seconds` the time between two."""
        self._project = project
        self._tick_seconds = tick_seconds
        self._turns = ProbingTurns(timedelta(seconds=interval_seconds))
        self._busy = threading.Lock()
        self._next: str | None = None
        """The source to start with in the automation sensor's tick."""
        self._unshown: list[str] = []
        """The labels of the sources with new data that no tick of the freshness sensor has shown."""
        self._last = _Look("")
        self._journal = _Journal()
        self._prober = WarmProber(project)
        self._schedule = ProbeSchedule()
        self._checks: FreshnessReports | None = None
        self._watch = RelationWatch(project)
        self._warnings = FirstWarnings()

    def tick(self, context: dg.SensorEvaluationContext) -> dg.SensorResult:
        """Probe the sources and report those with a new token. Does not raise for a failure of the warehouse or of a source."""
        first, note = read_cursor(context.cursor, _FIRST)
        log = TickLog(context)
        is_turn = not _shares_process(context) or self._turns.is_freshness_turn(clock.now())
        # A look that hangs must not take one thread of the code server for each tick after it.
        if not self._busy.acquire(timeout=self._tick_seconds):
            return dg.SensorResult(skip_reason=_STILL_PROBING, cursor=context.cursor)
        try:
            look = self._look(context, first) if is_turn else None
            summary = self._show(log)
        finally:
            self._busy.release()
        return dg.SensorResult(
            asset_events=look.events if look else [],
            skip_reason=masked(f"{note} {summary}".strip()),
            cursor=write_cursor({_FIRST: look.next}) if look and look.tick else context.cursor,
        )

    def probe_before_plan(self, context: dg.SensorEvaluationContext, every: timedelta) -> None:
        """Probe the sources and record the news, if it is the turn of the automation sensor, which ticks every `every`.

        Does not raise: the plan is made all the same.
        """
        if not _shares_process(context) or not self._turns.is_planner_turn(clock.now(), every):
            return
        if not self._busy.acquire(blocking=False):  # the freshness sensor is at it
            return
        try:
            look = self._look(context, self._next)
            if look.tick:
                self._next = look.next
            for event in look.events:
                tick_instance(context).report_runless_asset_event(event)
        except Exception as error:  # noqa: BLE001 (a bug in probing must not stop the planning)
            TickLog(context).warning(f"The sources could not be probed: {sentence(error)}")
        finally:
            self._busy.release()

    def _show(self, log: TickLog) -> str:
        """Log what the looks since the last tick logged, each line once, and return the summary of all of them."""
        lines, self._journal.lines = self._journal.lines, []
        for level, line in dict.fromkeys(lines):
            getattr(log, level)(line)
        if self._last.tick is None:
            return self._last.summary
        updated, self._unshown = list(dict.fromkeys(self._unshown)), []
        return _summary(replace(self._last.tick, updated=updated))

    def _look(self, context: dg.SensorEvaluationContext, first: str | None) -> _Look:
        """Probe the sources that are due, and return the news. Raises nothing for a failure of the warehouse or of a source."""
        self._last = look = self._look_or_fail(context, first)
        self._turns.probed_at = clock.now()
        if look.tick:
            self._unshown.extend(look.tick.updated)
        return look

    def _look_or_fail(self, context: dg.SensorEvaluationContext, first: str | None) -> _Look:
        started = time.monotonic()
        try:
            loaded = self._project.refresh(self._journal)
            activity = self._activity(context, loaded)
            at_work = {**activity.building, **activity.testing}
            if at_work and traits_of(loaded.project.graph.adapter_type).is_embedded:
                return _Look(_leaves_alone(at_work))
            tick = self._probe(context, loaded, activity.building, first, started)
        except WarehouseBusyError as error:
            return _Look(f"{sentence(error)} Nothing is lost: the next tick probes again.")
        except WarehouseError as error:
            self._prober.forget()
            return _Look(sentence(error))
        summary = _summary(tick)
        if tick.events:
            self._journal.info(f"{summary} It took {tick.cost}.")
        for problem in tick.failing.values():
            self._journal.warning(problem)
        return _Look(summary, tick)

    def _probe(
        self,
        context: dg.SensorEvaluationContext,
        loaded: LoadedProject,
        building: Mapping[str, str],
        first: str | None,
        started: float,
    ) -> _Tick:
        now = clock.now()
        view = view_project(tick_instance(context), self._project, loaded, now)
        sources = _starting_at(first, probed_sources(self._project, loaded))
        wanted = wanted_sources(loaded.project, view.state, now)
        due = [
            source
            for source in sources
            if self._schedule.is_due(
                source.unique_id, source_policy(loaded, source), now, is_wanted=source.unique_id in wanted
            )
        ]
        tick = _Tick(view, sources, due, wanted)
        if self._checks is None:
            self._checks = FreshnessReports(tick_instance(context), self._project, loaded)
        if due or not sources:
            prober = self._prober.of(loaded)
            for problem in prober.problems:
                self._warnings.warn(self._journal, problem)
            before = prober.session.cost()
            for probed in _observe(prober, due, started + self._tick_seconds):
                self._absorb_alone(tick, probed)
            if not tick.left:
                tick.events.extend(self._watch_relations(context, prober, tick, building))
            tick.cost = prober.session.cost().since(before)
        failing = self._schedule.failing(source.unique_id for source in sources)
        tick.failing = {source.label: failing[source.unique_id] for source in sources if source.unique_id in failing}
        return tick

    def _absorb_alone(self, tick: _Tick, probed: ProbedSource) -> None:
        """Process the observation of a source. An unforeseen error is a failure of this source alone."""
        try:
            self._absorb(tick, probed)
        except Exception as error:  # noqa: BLE001 (times of any year, texts of any kind)
            what = f"{place(probed.source)} cannot be recorded: {type(error).__name__}: {sentence(error)}"
            self._schedule.failed(probed.source.unique_id, what, tick.view.now)

    def _absorb(self, tick: _Tick, probed: ProbedSource) -> None:
        source, observation = probed.source, probed.observation
        uid, view = source.unique_id, tick.view
        policy, now = source_policy(view.loaded, source), view.now
        tick.seen.add(uid)
        if observation.warning:
            self._warnings.warn(self._journal, observation.warning)
        last = view.state.sources.get(uid)
        state = None
        if observation.error:
            self._schedule.failed(uid, observation.error, now)
        else:
            state = next_state_of(observation, policy, last, now)
            self._schedule.answered(uid, now, stale_at(observation, policy, last, now))
        key = view.loaded.keys.by_unique_id[uid]
        if state is not None:
            tick.events.append(source_event(key, probed, state))
            tick.updated.append(source.label)
        if policy.has_thresholds and self._checks is not None:
            result = freshness_result(source, observation, policy, last, now)
            tick.events.extend(self._checks.news(uid, key, result, is_new_data=state is not None))

    def _watch_relations(
        self,
        context: dg.SensorEvaluationContext,
        prober: SourceProber,
        tick: _Tick,
        building: Mapping[str, str],
    ) -> list[dg.AssetObservation]:
        view = tick.view
        live = LiveProject(
            view.instance, view.project, view.loaded, lambda: self._activity(context, view.loaded).building
        )
        try:
            return self._watch.look(view, prober, building, live.state_and_building)
        except WarehouseError as error:
            # Keep what the sources' probes found.
            self._journal.warning(f"The models' relations could not be checked: {sentence(error)}")
            return []

    def _activity(self, context: dg.SensorEvaluationContext, loaded: LoadedProject) -> RunActivity:
        return run_activity(tick_instance(context), loaded, self._project.name, context.repository_def, clock.now())


def build_freshness_sensor(
    project: OrchestratedProject,
    prober: FreshnessProber,
    *,
    name: str,
    interval_seconds: int,
    default_status: dg.DefaultSensorStatus,
) -> dg.SensorDefinition:
    """Return the sensor that probes a project's sources and records new data."""

    @dg.sensor(
        name=name,
        minimum_interval_seconds=interval_seconds,
        default_status=default_status,
        description=f"Probes the sources of the dbt project {project.name} in the warehouse, and records new data.",
    )
    def freshness_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        mask_log(context.log)
        with errors_masked():
            return prober.tick(context)

    return freshness_sensor


def _shares_process(context: dg.SensorEvaluationContext) -> bool:
    """Return whether the tick is one of a code server, in which the ticks of both sensors share the process."""
    return context.instance_ref is not None


def _leaves_alone(at_work: Mapping[str, str]) -> str:
    """Return why the tick probes nothing: on DuckDB a reader would stop a build or a test from starting."""
    run_id = next(iter(at_work.values()))
    return f"Run {run_id[:8]} is writing to the DuckDB database. Its sources are probed when the run has ended."


def _observe(prober: SourceProber, sources: Sequence[Source], deadline: float) -> Iterator[ProbedSource]:
    by_id = {source.unique_id: source for source in sources}
    before = time.perf_counter()
    for unique_id, observation in prober.observe(sources, deadline=deadline):
        after = time.perf_counter()
        yield ProbedSource(by_id[unique_id], observation, after - before)
        before = time.perf_counter()


def _starting_at(unique_id: str | None, sources: list[Source]) -> list[Source]:
    for index, source in enumerate(sources):
        if source.unique_id == unique_id:
            return sources[index:] + sources[:index]
    return sources


def _summary(tick: _Tick) -> str:
    parts = [f"{len(tick.updated)} of {len(tick.sources)} sources have new data" + _names(tick.updated)]
    if tick.failing:
        parts.append(f"{len(tick.failing)} failing" + _names(list(tick.failing)))
    if tick.left:
        parts.append(f"{len(tick.left)} left for the next tick")
    due = {source.unique_id for source in tick.due}
    if resting := [s for s in tick.sources if s.unique_id not in due | tick.wanted]:
        parts.append(f"{len(resting)} not probed, since nothing below may be built yet")
    return "; ".join(parts) + "."


def _names(labels: Sequence[str]) -> str:
    if not labels:
        return ""
    more = f" and {len(labels) - _NAMED_SOURCES} more" if len(labels) > _NAMED_SOURCES else ""
    return f": {', '.join(labels[:_NAMED_SOURCES])}{more}"
