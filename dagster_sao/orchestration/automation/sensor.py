"""The automation sensor: one bulk plan per tick for a whole dbt project.

A subclass of Dagster's automation condition sensor, so that it looks and is switched like one and Dagster's default sensor
leaves its assets alone. Its tick does not evaluate conditions one by one: it makes one plan, asks for one run, and returns
the evaluations that the UI shows. Conditions that a user composed are evaluated by Dagster, with the same plan behind them.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from dagster_sao.core.decision.decide import Action, Decision, Reason, Request
from dagster_sao.core.decision.origins import origins
from dagster_sao.core.decision.plan import Plan
from dagster_sao.core.decision.plan_tests import TestScope
from dagster_sao.core.decision.planner import make_plan
from dagster_sao.core.state.state import FIRST_RETRY, FailureKind, StateSnapshot, retry_wait
from dagster_sao.orchestration import clock
from dagster_sao.orchestration.automation.condition import StateAwareCondition, planned
from dagster_sao.orchestration.automation.due_tests import AskedTests, run_request, tests_of_targets
from dagster_sao.orchestration.events.door import errors_masked
from dagster_sao.orchestration.events.event_schema import CONDITION_TAG, PROJECT_TAG
from dagster_sao.orchestration.leases.dead_runs import end_dead_runs
from dagster_sao.orchestration.private.dagster_internals import (
    AutomationConditionEvaluation,
    evaluate_conditions,
    evaluation_node,
    sensor_evaluation,
    sensor_result,
)
from dagster_sao.orchestration.project.orchestrated import LoadedProject, OrchestratedProject
from dagster_sao.orchestration.state.event_log import (
    EndedRun,
    RunActivity,
    event_log_state,
    run_activity,
    tick_instance,
)
from dagster_sao.orchestration.state.read_state import take_snapshot
from dagster_sao.warehouse.redaction import masked

_CURSOR_LAYOUT = 1


@dataclass(frozen=True, slots=True)
class _Choice:
    """What a tick does with one node: the decision, and what else may hold it back."""

    decision: Decision
    requested: bool
    waits: str = ""


class StateAwareAutomationSensor(dg.AutomationConditionSensorDefinition):
    """Requests one run per tick for all models of a dbt project that are to be built."""

    def __init__(
        self,
        name: str,
        *,
        project: OrchestratedProject,
        target: Any,  # noqa: ANN401 (Dagster's CoercibleToAssetSelection is private)
        **options: Any,  # noqa: ANN401 (those of the base class)
    ) -> None:
        """Take what AutomationConditionSensorDefinition takes, and the project whose assets `target` are."""
        self.project = project
        self._options = {"target": target, **options}
        self._reasons: dict[str, str] = {}
        self.requested: dict[str, str] = {}
        """What each node was last asked to be built from; lost with the process, which only costs a wait."""
        self.unanswered: dict[str, tuple[EndedRun, int]] = {}
        """The last run for each node that said nothing of it, and how many in a row; lost with the process, as above."""
        self.asked_tests = AskedTests()
        with warnings.catch_warnings():
            # That it runs in the user's code server is beta in Dagster, and chosen here on purpose.
            warnings.simplefilter("ignore", dg.BetaWarning)
            super().__init__(name, target=target, use_user_code_server=True, **options)
        self._raw_fn = self._tick
        self._evaluation_fn = sensor_evaluation(name, self._tick)

    def with_attributes(self, *, jobs: Any = None, metadata: Any = None) -> StateAwareAutomationSensor:  # noqa: ANN401, ARG002
        """Return a copy with other metadata, which Dagster asks for when definitions are merged."""
        options = self._options if metadata is None else {**self._options, "metadata": metadata}
        return StateAwareAutomationSensor(self.name, project=self.project, **options)

    def _tick(self, context: dg.SensorEvaluationContext) -> dg.SensorResult:
        with errors_masked():
            return self._evaluate(context)

    def _evaluate(self, context: dg.SensorEvaluationContext) -> dg.SensorResult:
        tick = _Tick(self, self.project, context, _read_cursor(context))
        choices, evaluations, conditions_cursor = tick.run()
        evaluations = [*evaluations, *self._changed_evaluations(choices, tick.loaded)]
        requests = tick.run_requests(choices)
        skip_reason = None if requests else _nothing_to_build(choices, tick.waiting_tests)
        return sensor_result(requests, _write_cursor(conditions_cursor), evaluations, skip_reason=skip_reason)

    def _changed_evaluations(
        self, choices: Mapping[str, _Choice], loaded: LoadedProject
    ) -> list[AutomationConditionEvaluation[Any]]:
        """Return the evaluations to store: of what is requested, and where the reason is another than before.

        The first tick of a process knows no reasons; what it reuses it leaves out, since thousands of rows cost seconds.
        """
        is_first = not self._reasons
        evaluations = []
        for uid, choice in choices.items():
            # Ages in a message change every second without the reason being another.
            signature = f"{choice.decision.reason.value} {choice.decision.parents} {choice.waits}"
            is_news = self._reasons.get(uid) != signature and not (is_first and choice.decision.action.value == "reuse")
            self._reasons[uid] = signature
            if choice.requested or is_news:
                evaluations.append(_evaluation(loaded.keys.by_unique_id[uid], choice, loaded))
        return evaluations


class _Log:
    """A tick's log, opened by its first message: with it Dagster opens the instance anew, see `tick_instance`."""

    def __init__(self, context: dg.SensorEvaluationContext) -> None:
        self._context = context

    def warning(self, message: str) -> None:
        self._context.log.warning(masked(message))


class _Tick:
    def __init__(
        self,
        sensor: StateAwareAutomationSensor,
        project: OrchestratedProject,
        context: dg.SensorEvaluationContext,
        conditions_cursor: str | None,
    ) -> None:
        self._sensor = sensor
        self._project = project
        self._context = context
        self._conditions_cursor = conditions_cursor
        self._instance = tick_instance(context)
        self._now = clock.now()
        self.loaded = project.refresh(_Log(context))
        self._keys = self.loaded.keys
        self._asked: set[str] = set()
        self._tests: list[str] = []
        self.waiting_tests = 0
        """How many tests are due and wait for a run."""
        self._origins_now: Mapping[str, str] | None = None

    def run(self) -> tuple[Mapping[str, _Choice], Sequence[AutomationConditionEvaluation[Any]], str | None]:
        """Return what is done with each node, Dagster's evaluations of composed conditions, and their cursor."""
        started = time.perf_counter()
        selected, composed = self._targets()
        for run_id in end_dead_runs(self._instance):
            self._context.log.warning(f"Run {run_id} was ended: its process gave no sign of life for two minutes.")
        # Runs first, then events: a run that is seen as finished then has its events seen too.
        activity = run_activity(
            self._instance, self.loaded, self._project.name, self._context.repository_def, self._now - FIRST_RETRY
        )
        state = take_snapshot(self._instance, self._project, self.loaded, self._now)
        tests = TestScope(tests_of_targets(self.loaded.project.graph, selected))
        plan = self._plan(state, selected, {}, tests)
        evaluations: Sequence[AutomationConditionEvaluation[Any]] = ()
        cursor = self._conditions_cursor
        asked: set[str] = set()
        if composed:
            asked, evaluations, cursor = self._evaluate_composed(plan, composed)
            plan = self._plan(state, (selected - composed) | asked, dict.fromkeys(asked, Request.BUILD), tests)
        choices = self._choices(plan, state, activity)
        self._asked = asked
        self._remember(state, choices)
        waiting = {uid for uid, choice in choices.items() if choice.waits}
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

    def run_requests(self, choices: Mapping[str, _Choice]) -> list[dg.RunRequest]:
        """Return one request for everything that is to be built and tested, or none."""
        builds = [uid for uid, choice in choices.items() if choice.requested]
        tags = {PROJECT_TAG: self._project.name}
        asked = sorted(self._asked & set(builds))
        if asked:
            tags[CONDITION_TAG] = json.dumps(asked)
        repository = self._context.repository_def
        checks = repository.asset_graph.asset_check_keys if repository is not None else set()
        request = run_request(self.loaded, builds, self._tests, checks, tags)
        return [request] if request is not None else []

    def _targets(self) -> tuple[set[str], set[str]]:
        """Return the project's nodes that this sensor targets, and those of them with a composed condition."""
        repository = self._context.repository_def
        if repository is None:
            return set(self._keys.nodes), set()
        graph = repository.asset_graph
        selected, composed = set(), set()
        for key in self._sensor.asset_selection.resolve(graph):
            uid = self._keys.unique_ids.get(key)
            condition = graph.get(key).automation_condition
            if uid in self._keys.nodes and condition is not None:
                selected.add(uid)
                if not isinstance(condition, StateAwareCondition):
                    composed.add(uid)
        return selected, composed

    def _plan(
        self, state: StateSnapshot, selected: set[str], requests: Mapping[str, Request], tests: TestScope
    ) -> Plan:
        project = self.loaded.project
        return make_plan(project, state, now=self._now, selection=selected, requests=requests, tests=tests)

    def _evaluate_composed(
        self, plan: Plan, composed: set[str]
    ) -> tuple[set[str], Sequence[AutomationConditionEvaluation[Any]], str]:
        keys = [self._keys.by_unique_id[uid] for uid in sorted(composed)]
        with planned(plan, self._keys):
            requested, evaluations, cursor = evaluate_conditions(
                self._sensor, self._context, keys, self._conditions_cursor
            )
        return {self._keys.unique_ids[key] for key in requested}, evaluations, cursor

    def _choices(self, plan: Plan, state: StateSnapshot, activity: RunActivity) -> Mapping[str, _Choice]:
        graph = self.loaded.project.graph
        # A node below one that is being built would be built twice: it waits for that run.
        below = graph.descendants(activity.building) if activity.building else set()
        choices = {}
        waiting: set[str] = set()
        for uid, decision in plan.decisions.items():
            waits = ""
            waits_for = [parent for parent in graph.nodes[uid].parents if parent in waiting]
            if decision.builds and uid in activity.building:
                waits = f"Run {activity.building[uid][:8]} is building it"
            elif decision.builds and uid in below:
                waits = "A run is building one of its upstreams"
            elif decision.builds and waits_for:
                waits = f"Waits for {', '.join(graph.label(parent) for parent in waits_for)}"
            elif decision.builds:
                waits = self._waits_after(uid, state, activity.ended.get(uid))
            else:
                self._sensor.unanswered.pop(uid, None)
            if waits or waits_for:
                waiting.add(uid)
            choices[uid] = _Choice(decision, requested=decision.builds and not waits, waits=waits)
        return choices

    def _waits_after(self, uid: str, state: StateSnapshot, run: EndedRun | None) -> str:
        """Return why a node waits that a run was asked for, and that came out of it neither built nor failed.

        Without this, a run that dies before it records anything, or that sees another environment than this process,
        would be asked for again at every tick: it is after 5 minutes, doubling up to 6 hours. Other code or data than it was
        asked for ends the wait.
        """
        before, times = self._sensor.unanswered.get(uid, (None, 0))
        run = run or before
        if run is None:
            return ""
        is_news = self._sensor.requested.get(uid, "") not in {"", self._origins(state)[uid]}
        if is_news or self._is_answered(uid, state, run):
            self._sensor.unanswered.pop(uid, None)
            return ""
        if before is None or before.run_id != run.run_id:
            times += 1
        self._sensor.unanswered[uid] = run, times
        wait = retry_wait(times)
        # Not either where the clock was set back since: nobody knows for how long that would be.
        if not run.ended_at - wait < self._now < run.ended_at + wait:
            return ""
        return f"The last run for it ended without building it. Retries at {run.ended_at + wait:%H:%M:%S} UTC"

    def _is_answered(self, uid: str, state: StateSnapshot, run: EndedRun) -> bool:
        """Return whether a run, or another one since, tells what became of a node: it was built, it failed, or it is held.

        Runs are told apart by their ids: machines have several clocks.
        """
        build = state.builds.get(uid)
        # Wiping the history of what the run built asks for it anew.
        wiped_at = event_log_state(self._instance, self._project).wiped_at(self._keys.by_unique_id[uid])
        if (build and build.run_id == run.run_id) or (wiped_at and wiped_at >= run.created_at):
            return True
        # What failed has a wait of its own, and the run skipped what is below it.
        at_or_above = {uid} | self.loaded.project.graph.ancestors([uid])
        has_failed = any(
            failure.run_id == run.run_id and failure.kind in {FailureKind.BUILD, FailureKind.LIMITED}
            for failed, failure in state.failures.items()
            if failed in at_or_above
        )
        return has_failed or any(
            verdict.run_id == run.run_id and verdict.is_failing and self._held(uid, test)
            for test, verdict in state.verdicts.items()
        )

    def _held(self, uid: str, test: str) -> bool:
        """Return whether a failing test held a node: it gates the node, or it did before it was removed."""
        graph = self.loaded.project.graph
        return graph.gates.gates(test, uid) or test not in graph.tests

    def _origins(self, state: StateSnapshot) -> Mapping[str, str]:
        if self._origins_now is None:
            self._origins_now = origins(self.loaded.project, state)
        return self._origins_now

    def _remember(self, state: StateSnapshot, choices: Mapping[str, _Choice]) -> None:
        asked = [uid for uid, choice in choices.items() if choice.requested]
        self._sensor.requested.update({uid: self._origins(state)[uid] for uid in asked})


def _nothing_to_build(choices: Mapping[str, _Choice], waiting_tests: int) -> str:
    """Return a tick's one line when it asks for nothing: how many models and tests are held back, and by what."""
    actions = [choice.decision.action for choice in choices.values()]
    held_back = {
        "held after a failure": actions.count(Action.HOLD),
        "skipped below it": actions.count(Action.SKIP),
        "waiting for a run": sum(bool(choice.waits) for choice in choices.values()),
    }
    parts = [f"{count} {why}" for why, count in held_back.items() if count]
    if waiting_tests:
        parts.append(f"{waiting_tests} tests waiting for a run")
    return "; ".join([f"0 of {len(choices)} models to build", *parts]) + "."


def _evaluation(key: dg.AssetKey, choice: _Choice, loaded: LoadedProject) -> AutomationConditionEvaluation[Any]:
    timestamp = time.time()
    value = choice.requested
    path = key.to_user_string()
    reasons = [choice.decision.message, choice.waits, *_parent_lines(choice, loaded)]
    children = [
        evaluation_node(key, text, unique_id=f"{path}-{index}", value=value, timestamp=timestamp)
        for index, text in enumerate(reason for reason in reasons if reason)
    ]
    return evaluation_node(key, "state_aware", unique_id=path, value=value, timestamp=timestamp, children=children)


def _parent_lines(choice: _Choice, loaded: LoadedProject) -> list[str]:
    if choice.decision.reason is not Reason.NEW_DATA:
        return []
    return [f"{loaded.project.graph.label(parent)} has changed" for parent in choice.decision.parents]


def _read_cursor(context: dg.SensorEvaluationContext) -> str | None:
    """Return Dagster's own cursor for composed conditions. An unreadable cursor only costs their memory."""
    if not context.cursor:
        return None
    try:
        cursor = json.loads(context.cursor)
        if isinstance(cursor, dict) and cursor.get("layout") == _CURSOR_LAYOUT:
            conditions = cursor.get("conditions")
            return conditions if isinstance(conditions, str) else None
    except ValueError:
        pass
    context.log.warning("The sensor's cursor was written by another version and is started anew; no state is lost.")
    return None


def _write_cursor(conditions: str | None) -> str:
    return json.dumps({"layout": _CURSOR_LAYOUT, **({"conditions": conditions} if conditions else {})})
