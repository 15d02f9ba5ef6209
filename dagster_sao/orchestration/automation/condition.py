"""The automation condition of dbt models: true when the plan of the whole project builds the model.

It has no rules of its own: the decision and its reason come from `core.decision`. It composes with Dagster's own conditions, as in
`state_aware() & ~dg.AutomationCondition.in_progress()`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import dagster as dg

from dagster_sao.core.decision.decide import Decision
from dagster_sao.orchestration.events.event_schema import PROJECT_METADATA_KEY
from dagster_sao.orchestration.private.automation import AutomationContext, condition_result
from dagster_sao.orchestration.project.loaded import AssetKeys
from dagster_sao.orchestration.project.orchestrated import OrchestratedProject
from dagster_sao.orchestration.runs.run_plan import RunInputs, asked_of_sensor_run, decide_run
from dagster_sao.orchestration.state.read_state import read_state

_Decisions = Mapping[dg.AssetKey, Decision]
_tick_decisions: ContextVar[_Decisions | None] = ContextVar("dagster_sao_tick_decisions", default=None)
_decisions: WeakKeyDictionary[Any, dict[OrchestratedProject, _Decisions]] = WeakKeyDictionary()


@dataclass(frozen=True)  # equal to each other, so that `condition.replace(state_aware(), …)` finds it
class StateAwareCondition(dg.AutomationCondition[dg.AssetKey]):
    """True when the code of a dbt model changed or new data arrived upstream, as often as the model asks for."""

    @property
    def name(self) -> str:
        """The name in the UI."""
        return "state_aware"

    @property
    def description(self) -> str:
        """The description in the UI."""
        return "The model would come out different: its code changed, or new data arrived upstream"

    @property
    def requires_cursor(self) -> bool:
        """Nothing is kept between ticks: the event log is the state."""
        return False

    def get_label(self) -> str | None:
        """Return the label in the evaluation tree."""
        return "state_aware"

    def evaluate(self, context: AutomationContext[dg.AssetKey]) -> dg.AutomationResult[dg.AssetKey]:
        """Return whether the plan builds the asset, with the reason as a child node."""
        project, decisions = project_of(context.asset_graph, context.key), _tick_decisions.get()
        decision = (_decisions_for(context, project) if decisions is None else decisions).get(context.key)
        if decision is None:
            return condition_result(context, value=False, reason="No longer in the dbt project")
        return condition_result(context, value=decision.builds, reason=decision.message)


def state_aware() -> StateAwareCondition:
    """Return the condition that requests a dbt model when, and only when, its build would come out different.

    It is false within `build_after`, and while nothing changed. It ignores runs in progress: the project's automation
    sensor considers them. With other sensors, add `& ~dg.AutomationCondition.in_progress()`.
    """
    return StateAwareCondition()


def is_state_aware(condition: dg.AutomationCondition[Any] | None) -> bool:
    """Return whether `state_aware()` is a condition, or a part of it."""
    if condition is None or isinstance(condition, StateAwareCondition):
        return condition is not None
    return any(is_state_aware(part) for part in condition.children)


@contextmanager
def planned(decisions: Mapping[str, Decision], keys: AssetKeys) -> Iterator[None]:
    """Evaluate the conditions within the block by `decisions` about nodes."""
    token = _tick_decisions.set(_by_key(decisions, keys))
    try:
        yield
    finally:
        _tick_decisions.reset(token)


def project_behind(metadata: Mapping[str, Any]) -> OrchestratedProject | None:
    """Return the dbt project that the metadata of an asset names, None where it names none."""
    value = metadata.get(PROJECT_METADATA_KEY)
    project = getattr(value, "instance", value)
    return project if isinstance(project, OrchestratedProject) else None


def project_of(asset_graph: Any, key: dg.AssetKey) -> OrchestratedProject:  # noqa: ANN401 (private in Dagster)
    """Return the dbt project of an asset.

    Raises DagsterInvalidDefinitionError for an asset that is not a dbt model of a state-aware project.
    """
    project = project_behind(asset_graph.get(key).metadata)
    if project is None:
        msg = (
            f"state_aware() is on {key.to_user_string()}, which is not a dbt model of a state-aware project. Build the dbt"
            " assets with build_state_aware_definitions or StateAwareDbtProjectComponent, or use another condition."
        )
        raise dg.DagsterInvalidDefinitionError(msg)
    return project


def _decisions_for(context: AutomationContext[dg.AssetKey], project: OrchestratedProject) -> _Decisions:
    view = context.asset_graph_view
    decisions = _decisions.setdefault(view, {})
    if project not in decisions:
        loaded, now = project.load(), context.evaluation_time
        state = read_state(view.instance, project, loaded, now)
        graph = loaded.project.graph
        asked = asked_of_sensor_run(project, loaded, graph.nodes.keys(), graph.tests)
        decisions[project] = _by_key(decide_run(RunInputs(asked, state, now)).plan.decisions, loaded.keys)
    return decisions[project]


def _by_key(decisions: Mapping[str, Decision], keys: AssetKeys) -> _Decisions:
    return {keys.by_unique_id[uid]: decision for uid, decision in decisions.items()}
