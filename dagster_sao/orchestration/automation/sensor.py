"""The automation sensor: one bulk plan per tick for a whole dbt project.

It subclasses Dagster's automation condition sensor, so that the UI shows and switches it like one, and Dagster's default
sensor leaves its assets alone. A tick does not evaluate conditions one by one: it makes one plan, requests one run, and
returns the evaluations for the UI. Dagster evaluates the conditions that a user composed, on the same plan.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import timedelta
from functools import cache, partial
from typing import Any

import dagster as dg

from dagster_sao.core.decision.decide import Decision
from dagster_sao.core.decision.origins import origins
from dagster_sao.core.decision.plan import Plan
from dagster_sao.core.state.state import FIRST_RETRY, StateSnapshot
from dagster_sao.orchestration import clock
from dagster_sao.orchestration.automation.choices import Choice, Facts, RequestedNodes, nothing_to_build
from dagster_sao.orchestration.automation.composed import Asked, Nodes, ask
from dagster_sao.orchestration.automation.condition import StateAwareCondition, is_state_aware, planned
from dagster_sao.orchestration.automation.due_tests import AskedTests, run_request, tests_of_targets
from dagster_sao.orchestration.automation.evaluations import ShownReasons
from dagster_sao.orchestration.automation.undefined import undefined_line
from dagster_sao.orchestration.events.door import errors_masked
from dagster_sao.orchestration.events.event_schema import CONDITION_TAG, PROJECT_TAG
from dagster_sao.orchestration.leases.dead_runs import end_dead_runs, ended_line
from dagster_sao.orchestration.private.automation import (
    AutomationConditionEvaluation,
    evaluate_conditions,
    sensor_evaluation,
    sensor_result,
)
from dagster_sao.orchestration.private.dagster_internals import one_process_config
from dagster_sao.orchestration.project.orchestrated import OrchestratedProject
from dagster_sao.orchestration.runs.run_plan import RunInputs, asked_of_sensor_run, decide_run
from dagster_sao.orchestration.sensor_cursor import read_cursor, write_cursor
from dagster_sao.orchestration.state.event_log import event_log_state
from dagster_sao.orchestration.state.read_state import read_state
from dagster_sao.orchestration.state.run_activity import reported_by, run_activity
from dagster_sao.orchestration.tick_context import FirstWarnings, TickLog, tick_instance

_CONDITIONS, _WAITING = "conditions", "waiting"
"""What the cursor stores: Dagster's own cursor for composed conditions, and the nodes that they asked for and that wait."""

_Evaluations = Sequence[AutomationConditionEvaluation[Any]]


class StateAwareAutomationSensor(dg.AutomationConditionSensorDefinition):
    """Requests one run per tick for all models of a dbt project that are to be built."""

    def __init__(
        self,
        name: str,
        *,
        project: OrchestratedProject,
        before_plan: Callable[[dg.SensorEvaluationContext, timedelta], None],
        target: Any,  # noqa: ANN401 (Dagster's CoercibleToAssetSelection is private)
        **options: Any,  # noqa: ANN401 (those of the base class)
    ) -> None:
        """Take what AutomationConditionSensorDefinition takes, and the project whose assets `target` are.

        `before_plan` is called with the context of a tick and the time until the next one, and may record new data.
        """
        self.project = project
        self._before_plan = before_plan
        self._options = {"target": target, **options}
        self._reasons = ShownReasons()
        self._warnings = FirstWarnings()
        self.requested_nodes = RequestedNodes()
        self.asked_tests = AskedTests()
        with warnings.catch_warnings():
            # That it runs in the user's code server is beta in Dagster, and chosen here on purpose.
            warnings.simplefilter("ignore", dg.BetaWarning)
            super().__init__(name, target=target, use_user_code_server=True, **options)
        self._raw_fn = self._tick
        self._evaluation_fn = sensor_evaluation(name, self._tick)

    def with_attributes(self, *, jobs: Any = None, metadata: Any = None) -> StateAwareAutomationSensor:  # noqa: ANN401, ARG002
        """Return a copy with other metadata, which Dagster needs to merge definitions."""
        options = self._options if metadata is None else {**self._options, "metadata": metadata}
        return StateAwareAutomationSensor(self.name, project=self.project, before_plan=self._before_plan, **options)

    def _tick(self, context: dg.SensorEvaluationContext) -> dg.SensorResult:
        with errors_masked():
            return self._evaluate(context)

    def _evaluate(self, context: dg.SensorEvaluationContext) -> dg.SensorResult:
        self._before_plan(context, timedelta(seconds=self.minimum_interval_seconds or 0))
        before, note = read_cursor(context.cursor, _CONDITIONS)
        if note:
            context.log.warning(note)
        waiting, _ = read_cursor(context.cursor, _WAITING)
        tick = _Tick(self, self.project, context, before, frozenset((waiting or "").split()))
        choices, evaluations, conditions_cursor = tick.run()
        evaluations = [*evaluations, *self._reasons.changed(choices, tick.loaded)]
        requests = tick.run_requests(choices)
        undefined = undefined_line(tick.loaded, context.repository_def)
        if undefined:
            self._warnings.warn(TickLog(context), undefined)
        idle = nothing_to_build(choices.values(), tick.waiting_tests)
        skip_reason = None if requests else f"{idle} {undefined}".strip()
        return sensor_result(
            requests,
            write_cursor({_CONDITIONS: conditions_cursor, _WAITING: " ".join(sorted(tick.waiting_conditions))}),
            evaluations,
            skip_reason=skip_reason,
        )


class _Tick:
    def __init__(
        self,
        sensor: StateAwareAutomationSensor,
        project: OrchestratedProject,
        context: dg.SensorEvaluationContext,
        conditions_cursor: str | None,
        waiting_conditions: AbstractSet[str],
    ) -> None:
        self._sensor = sensor
        self._project = project
        self._context = context
        self._conditions_cursor = conditions_cursor
        self._instance = tick_instance(context)
        self._now = clock.now()
        self.loaded = project.refresh(TickLog(context))
        self._keys = self.loaded.keys
        self._forced: AbstractSet[str] = frozenset()
        self.waiting_conditions = waiting_conditions
        """The nodes that a condition asked for and that have to wait."""
        self._tests: list[str] = []
        self.waiting_tests = 0
        """How many due tests wait for a run."""

    def run(self) -> tuple[Mapping[str, Choice], _Evaluations, str | None]:
        """Return the choice for each node, Dagster's evaluations of composed conditions, and their cursor."""
        started = time.perf_counter()
        selected, composed = self._targets()
        for run_id in end_dead_runs(self._instance):
            self._context.log.warning(ended_line(run_id))
        # Read runs before events, so that the events of a run that has finished are read too.
        activity = run_activity(
            self._instance, self.loaded, self._project.name, self._context.repository_def, self._now - FIRST_RETRY
        )
        state = read_state(self._instance, self._project, self.loaded, self._now)
        tests = tests_of_targets(self.loaded.project.graph, selected)
        decided = self._decide(state, selected, composed, tests)
        plan, (evaluations, cursor), self._forced = decided.plan, decided.evaluation, decided.forced
        wiped_at = event_log_state(self._instance, self._project).wipes(self._keys)
        facts = Facts(
            plan,
            state,
            activity,
            cache(lambda: origins(self.loaded.project, state)),
            wiped_at,
            self._now,
            cache(partial(reported_by, self._instance, self.loaded)),
        )
        found = self._sensor.requested_nodes.choose(facts)
        # A run also builds the views that it drops, without being asked to.
        choices = {uid: choice for uid, choice in found.items() if uid in decided.decided}
        waiting = {uid for uid, choice in found.items() if choice.waits}
        self.waiting_conditions = decided.asked & waiting
        self._tests, self.waiting_tests = self._sensor.asked_tests.due(
            plan, self.loaded.project, state, activity, waiting, self._now
        )
        builds = [uid for uid, choice in choices.items() if choice.requested]
        if builds or self._tests:
            tested = f" {len(self._tests)} of {len(plan.tests)} tests to run." if plan.tests else ""
            self._context.log.info(
                f"Planned {len(selected)} models of {self._project.name} in {time.perf_counter() - started:.2f} s: "
                f"{len(builds)} to build, {len(selected) - len(builds)} not.{tested}"
            )
        return choices, evaluations, cursor

    def run_requests(self, choices: Mapping[str, Choice]) -> list[dg.RunRequest]:
        """Return one request for all nodes to build and tests to run, or none."""
        builds = [uid for uid, choice in choices.items() if choice.requested]
        tags = {PROJECT_TAG: self._project.name}
        forced = sorted(self._forced & set(builds))
        if forced:
            tags[CONDITION_TAG] = json.dumps(forced)
        repository = self._context.repository_def
        checks = repository.asset_graph.asset_check_keys if repository is not None else set()
        # A project is one step: a second process would only cost its start.
        config = one_process_config(repository) if repository is not None and (builds or self._tests) else {}
        request = run_request(self.loaded, builds, self._tests, checks, tags, config)
        return [request] if request is not None else []

    def _targets(self) -> tuple[set[str], dict[str, bool]]:
        """Return the project's nodes that this sensor targets, and those with a composed condition (as in `Nodes`)."""
        repository = self._context.repository_def
        if repository is None:
            return set(self._keys.nodes), {}
        graph = repository.asset_graph
        selected, composed = set(), {}
        for key in self._sensor.asset_selection.resolve(graph):
            uid = self._keys.unique_ids.get(key)
            condition = graph.get(key).automation_condition
            if uid in self._keys.nodes and condition is not None:
                selected.add(uid)
                if not isinstance(condition, StateAwareCondition):
                    composed[uid] = is_state_aware(condition)
        return selected, composed

    def _decide(
        self, state: StateSnapshot, selected: set[str], composed: Mapping[str, bool], tests: AbstractSet[str]
    ) -> Asked[tuple[_Evaluations, str | None]]:
        """Return the plan, with Dagster's evaluations of composed conditions and their cursor."""
        if not composed:
            plan = self._plan(state, selected, tests)
            return Asked(plan, selected, frozenset(), frozenset(), ((), self._conditions_cursor))
        keys = [self._keys.by_unique_id[uid] for uid in sorted(composed)]

        def evaluate(decisions: Mapping[str, Decision]) -> tuple[set[str], tuple[_Evaluations, str | None]]:
            with planned(decisions, self._keys):
                requested, evaluations, cursor = evaluate_conditions(
                    self._sensor, self._context, keys, self._conditions_cursor
                )
            return {self._keys.unique_ids[key] for key in requested}, (evaluations, cursor)

        return ask(
            Nodes(selected, composed, self.waiting_conditions),
            lambda nodes, forced: self._plan(state, nodes, tests, forced),
            evaluate,
        )

    def _plan(
        self, state: StateSnapshot, selected: AbstractSet[str], tests: AbstractSet[str], asked: Collection[str] = ()
    ) -> Plan:
        given = asked_of_sensor_run(self._project, self.loaded, selected, tests, asked)
        return decide_run(RunInputs(given, state, self._now)).plan
