"""Dagster's internals behind automation conditions and sensors: evaluations in the UI, and the result of a tick.

`tests/orchestration/private/test_dagster_internals.py` names each import, so that an upgrade which moves one fails there first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import dagster as dg
from dagster._core.asset_graph_view.serializable_entity_subset import SerializableEntitySubset
from dagster._core.definitions.automation_tick_evaluation_context import AutomationTickEvaluationContext
from dagster._core.definitions.declarative_automation.automation_context import AutomationContext
from dagster._core.definitions.declarative_automation.serialized_objects import (
    AutomationConditionEvaluation,
    AutomationConditionNodeSnapshot,
)
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.definitions.sensor_definition import wrap_sensor_evaluation
from dagster._core.scheduler.instigation import InstigatorState, TickStatus
from dagster._daemon.asset_daemon import (
    asset_daemon_cursor_from_instigator_serialized_cursor,
    asset_daemon_cursor_to_instigator_serialized_cursor,
)

__all__ = [
    "AutomationConditionEvaluation",
    "AutomationContext",
    "condition_result",
    "evaluate_conditions",
    "evaluation_node",
    "location_of_run",
    "location_of_schedule",
    "sensor_evaluation",
    "sensor_result",
    "store_schedule_evaluations",
]


def evaluation_node(  # noqa: PLR0913 (one argument for each thing that the UI shows)
    key: dg.AssetKey,
    name: str,
    *,
    unique_id: str,
    value: bool,
    timestamp: float,
    children: Sequence[AutomationConditionEvaluation[Any]] = (),
) -> AutomationConditionEvaluation[Any]:
    """Return a node of an evaluation tree. The UI shows only names, so `name` carries the reason."""
    return AutomationConditionEvaluation(
        condition_snapshot=AutomationConditionNodeSnapshot(
            class_name="StateAwareCondition",
            description=name,
            unique_id=unique_id,
            label=name if children else None,
            name=name,
            operator_type="and" if children else "identity",
        ),
        start_timestamp=timestamp,
        end_timestamp=timestamp,
        true_subset=SerializableEntitySubset(key=key, value=value),
        candidate_subset=SerializableEntitySubset(key=key, value=True),
        subsets_with_metadata=[],
        child_evaluations=list(children),
    )


class _ResultWithReason(dg.AutomationResult[dg.AssetKey]):
    """The result of a condition whose evaluation has a node of its own for the reason."""

    def __init__(self, context: AutomationContext[Any], *, value: bool, reason: str) -> None:
        subset = context.candidate_subset if value else context.get_empty_subset()
        super().__init__(context, true_subset=subset)
        self._reason = reason

    @property
    def value_hash(self) -> str:
        # Dagster writes an evaluation only when this changes, and the reason is part of it.
        return f"{super().value_hash}{self._reason}"

    @property
    def serializable_evaluation(self) -> AutomationConditionEvaluation[Any]:
        evaluation = super().serializable_evaluation
        node = evaluation_node(
            self.key,
            self._reason,
            unique_id=f"{self.condition_unique_id}-reason",
            value=not self.true_subset.is_empty,
            timestamp=self.end_timestamp,
        )
        evaluation.child_evaluations = [node]
        return evaluation


def condition_result(context: AutomationContext[Any], *, value: bool, reason: str) -> dg.AutomationResult[Any]:
    """Return the result of a condition for the entity of `context`, with its reason as a child node."""
    return _ResultWithReason(context, value=value, reason=reason)


def evaluate_conditions(
    sensor: dg.AutomationConditionSensorDefinition,
    context: dg.SensorEvaluationContext,
    keys: Iterable[dg.AssetKey],
    cursor: str | None,
) -> tuple[set[dg.AssetKey], Sequence[AutomationConditionEvaluation[Any]], str]:
    """Evaluate the conditions of `keys` as Dagster does.

    Returns the requested keys, the changed evaluations and the next cursor.
    """
    if context.repository_def is None:
        msg = "An automation sensor can only be evaluated within a repository."
        raise dg.DagsterInvariantViolationError(msg)
    graph = context.repository_def.asset_graph
    try:
        before = asset_daemon_cursor_from_instigator_serialized_cursor(cursor, graph)
    except Exception:  # noqa: BLE001 (whatever another version of Dagster may have written)
        context.log.warning("What conditions remembered was written by another version and is started anew.")
        before = asset_daemon_cursor_from_instigator_serialized_cursor(None, graph)
    tick = AutomationTickEvaluationContext(
        evaluation_id=before.evaluation_id,
        instance=context.instance,
        asset_graph=graph,
        cursor=before,
        materialize_run_tags=sensor.run_tags,
        observe_run_tags={},
        auto_observe_asset_keys=set(),
        asset_selection=dg.AssetSelection.assets(*keys).without_checks(),
        emit_backfills=False,
        logger=context.log,
    )
    requests, after, evaluations = tick.evaluate()
    requested = {key for request in requests for key in request.asset_selection or ()}
    return requested, evaluations, asset_daemon_cursor_to_instigator_serialized_cursor(after)


def sensor_evaluation(
    name: str, tick: Callable[[dg.SensorEvaluationContext], dg.SensorResult]
) -> Callable[[dg.SensorEvaluationContext], Any]:
    """Return `tick` as a sensor's evaluation function."""

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        return tick(context)

    return wrap_sensor_evaluation(name, evaluate)


def store_schedule_evaluations(
    instance: dg.DagsterInstance, schedule: str, evaluations: Sequence[AutomationConditionEvaluation[Any]]
) -> None:
    """Store evaluations beside the tick of a schedule that is being evaluated, as Dagster's daemon stores a sensor's.

    Dagster takes none from a schedule. Nothing is stored where it is not certain which tick this is.
    """
    storage = instance.schedule_storage
    if not evaluations or storage is None or not storage.supports_auto_materialize_asset_evaluations:
        return
    state = _state_of_schedule(instance, schedule)
    if state is None:
        return
    ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)
    if ticks and ticks[0].status is TickStatus.STARTED:
        stored = [evaluation.with_run_ids(set()) for evaluation in evaluations]
        storage.add_auto_materialize_asset_evaluations(int(ticks[0].tick_id), stored)


def location_of_schedule(instance: dg.DagsterInstance, schedule: str) -> str | None:
    """Return the name of the code location and repository that a schedule is in, None where that is not certain."""
    state = _state_of_schedule(instance, schedule)
    return state.origin.repository_origin.get_label() if state is not None else None


def location_of_run(run: dg.DagsterRun) -> str | None:
    """Return the name of the code location and repository that a run is of, None where it has none.

    By name: the origin also has the address of its server, or the path of its file, which may be another one by now.
    """
    origin = run.remote_job_origin
    return origin.repository_origin.get_label() if origin is not None else None


def _state_of_schedule(instance: dg.DagsterInstance, schedule: str) -> InstigatorState | None:
    """Return the state of a schedule, None for one that never ran, or if those of several code locations have its name."""
    if instance.schedule_storage is None:
        return None
    states = instance.all_instigator_state(instigator_type=InstigatorType.SCHEDULE)
    found = [state for state in states if state.instigator_name == schedule]
    return found[0] if len(found) == 1 else None


def sensor_result(
    run_requests: Sequence[dg.RunRequest],
    cursor: str,
    evaluations: Sequence[AutomationConditionEvaluation[Any]],
    *,
    skip_reason: str | None = None,
) -> dg.SensorResult:
    """Return a tick's result with evaluations, which the public constructor accepts but does not document."""
    hidden: Mapping[str, Any] = {"automation_condition_evaluations": evaluations}
    return dg.SensorResult(run_requests=list(run_requests), skip_reason=skip_reason, cursor=cursor, **hidden)
