"""The nodes with a condition that a user composed: which of them a tick builds, and the plan that comes of it.

What `state_aware()` says about a node depends on what the conditions of other nodes ask for: a parent that its own condition holds
back is not built, and so is no new data. Plain values in and out: nothing here reads Dagster or a clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Generic, TypeVar

from dagster_sao.core.decision.decide import Decision
from dagster_sao.core.decision.plan import Plan

# Each time, a plan agrees with the conditions about at least one more generation. Some never agree, such as `~state_aware()`.
_MOST_ROUNDS = 10

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Nodes:
    """The nodes that a sensor decides about."""

    selected: AbstractSet[str]
    composed: Mapping[str, bool]
    """Those of them with a composed condition, and whether `state_aware()` is a part of it."""
    waiting: AbstractSet[str]
    """Those that an earlier tick asked for, and that had to wait. Dagster's conditions take them for requested."""


@dataclass(frozen=True, slots=True)
class Asked(Generic[_T]):
    """What the conditions ask for, and the plan for it."""

    plan: Plan
    decided: AbstractSet[str]
    """The nodes that the plan is about."""
    asked: AbstractSet[str]
    """Those with a composed condition among them."""
    forced: AbstractSet[str]
    """Those that are built for their condition alone."""
    evaluation: _T


def ask(
    nodes: Nodes,
    make_plan: Callable[[AbstractSet[str], AbstractSet[str]], Plan],
    evaluate: Callable[[Mapping[str, Decision]], tuple[AbstractSet[str], _T]],
) -> Asked[_T]:
    """Return what the conditions ask for.

    `make_plan` returns the plan for nodes, some of them built in any case; `evaluate` returns the nodes that the conditions
    request by some decisions, with what else comes of it.
    """
    decisions = dict(make_plan(nodes.selected, frozenset()).decisions)
    composed, still_asked = nodes.composed.keys(), nodes.waiting & nodes.composed.keys()
    rounds = 0
    while True:
        rounds += 1
        requested, evaluation = evaluate(decisions)
        asked = requested | still_asked
        decided = (nodes.selected - composed) | asked
        plan = make_plan(decided, frozenset())
        overruled = {uid for uid in requested if decisions[uid].builds and not plan.decisions[uid].builds}
        decisions |= plan.decisions
        if not overruled or rounds == _MOST_ROUNDS:
            break
    unneeded = {uid for uid in asked if not plan.decisions[uid].builds}
    forced = {uid for uid in unneeded if uid in requested or not nodes.composed[uid]}
    if unneeded:
        asked -= unneeded - forced
        decided = (nodes.selected - composed) | asked
        plan = make_plan(decided, forced)
    return Asked(plan, decided, asked, forced, evaluation)
