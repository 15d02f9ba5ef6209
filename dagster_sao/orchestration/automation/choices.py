"""Which of the nodes that are due a tick of the automation sensor requests, and why the others wait for a run.

Plain values in and out: the plan, what runs are doing and the state. Nothing here reads Dagster or a clock.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from dagster_sao.core.decision.decide import Action, Decision
from dagster_sao.core.decision.plan import Plan
from dagster_sao.core.durations import is_waiting
from dagster_sao.core.manifest.graph import ProjectGraph
from dagster_sao.core.state.state import StateSnapshot, retry_wait
from dagster_sao.orchestration.state.run_activity import FAILURES_WITH_A_WAIT, EndedRun, Reported, RunActivity


@dataclass(frozen=True, slots=True)
class Choice:
    """What a tick does with one node: the decision, and why the node waits all the same."""

    decision: Decision
    waits: str = ""
    """The reason, empty for a node that does not wait."""

    @property
    def requested(self) -> bool:
        """Whether the tick requests the node."""
        return self.decision.builds and not self.waits


@dataclass(frozen=True, slots=True)
class Facts:
    """What a tick knows when it chooses."""

    plan: Plan
    state: StateSnapshot
    activity: RunActivity
    origins: Callable[[], Mapping[str, str]]
    """Returns what each node follows from in the end. In a large project this takes a while, and a quiet tick needs none."""
    wiped_at: Mapping[str, datetime]
    """When the history of a node was last wiped, where it ever was."""
    now: datetime
    reported: Callable[[str], Reported] = lambda _: Reported()
    """Returns what a run reported. Reads all its events, and is asked only about a run that the state knows nothing of."""


@dataclass
class RequestedNodes:
    """The nodes that a sensor requested. In memory: after a restart, a node is perhaps requested once more."""

    _origins: dict[str, str] = field(default_factory=dict)
    """What each node followed from when it was last requested."""
    _unanswered: dict[str, tuple[EndedRun, int]] = field(default_factory=dict)
    """The last run for each node that reported nothing about it, and how many such runs there were in a row."""

    def choose(self, facts: Facts) -> Mapping[str, Choice]:
        """Return the choice for each node of the plan, and remember what is requested."""
        graph, building = facts.plan.graph, facts.activity.building
        # A run that builds a parent would make a build of the node stale, so the node waits for that run.
        below = graph.descendants(building) if building else set()
        choices: dict[str, Choice] = {}
        waiting: set[str] = set()
        for uid, decision in facts.plan.decisions.items():
            waits = ""
            waits_for = [parent for parent in graph.nodes[uid].parents if parent in waiting]
            if not decision.builds:
                self._unanswered.pop(uid, None)
            elif uid in building:
                waits = f"Run {building[uid][:8]} is building it"
            elif uid in below:
                waits = "A run is building one of its upstreams"
            elif waits_for:
                waits = f"Waits for {', '.join(graph.label(parent) for parent in waits_for)}"
            else:
                waits = self._waits_after_a_run(uid, facts)
            if waits or waits_for:
                waiting.add(uid)
            choices[uid] = Choice(decision, waits)
        requested = [uid for uid, choice in choices.items() if choice.requested]
        self._origins.update({uid: facts.origins()[uid] for uid in requested})
        return choices

    def _waits_after_a_run(self, uid: str, facts: Facts) -> str:
        """Return why a node waits whose last run neither built it nor recorded a failure; empty where it does not wait.

        Without this, every tick would request a node again if its run dies before it records anything, or sees another
        environment than this process. The wait is 5 minutes, doubling up to 6 hours. New code or data ends it.
        """
        before, times = self._unanswered.get(uid, (None, 0))
        run = facts.activity.ended.get(uid) or before
        if run is None:
            return ""
        has_changed = self._origins.get(uid, "") not in {"", facts.origins()[uid]}
        if has_changed or is_answered(uid, run, facts):
            self._unanswered.pop(uid, None)
            return ""
        if before is None or before.run_id != run.run_id:
            times += 1
        self._unanswered[uid] = run, times
        wait = retry_wait(times)
        if not is_waiting(facts.now, run.ended_at, wait):
            return ""
        return f"The last run for it ended without building it. Retries at {run.ended_at + wait:%H:%M:%S} UTC"


def is_answered(uid: str, run: EndedRun, facts: Facts) -> bool:
    """Return whether a run had an outcome for a node: the run built it, failed at or above it, or held it.

    Compares ids of runs, not times: clocks differ between machines.
    """
    state, graph = facts.state, facts.plan.graph
    build = state.builds.get(uid)
    if build is not None and build.run_id == run.run_id:
        return True
    # Whoever wipes the history of a node asks for a new build.
    wiped_at = facts.wiped_at.get(uid)
    if wiped_at is not None and wiped_at >= run.created_at:
        return True
    # A failure has a wait of its own, and the run skipped what is below it.
    at_or_above = {uid} | graph.ancestors([uid])
    has_failed = any(
        failure.run_id == run.run_id and failure.kind in FAILURES_WITH_A_WAIT
        for failed, failure in state.failures.items()
        if failed in at_or_above
    )
    if has_failed or any(
        verdict.run_id == run.run_id and verdict.is_failing and _held(uid, test, graph)
        for test, verdict in state.verdicts.items()
    ):
        return True
    # The state has only the last attempt at each node, and another run may have built it since.
    reported = facts.reported(run.run_id)
    return uid in reported.built or not reported.failed.isdisjoint(at_or_above)


def _held(uid: str, test: str, graph: ProjectGraph) -> bool:
    """Return whether a failing test held a node: it gates the node, or it did before it was removed."""
    return graph.gates.gates(test, uid) or test not in graph.tests


def held_back(choices: Collection[Choice], waiting_tests: int = 0) -> list[str]:
    """Return how many models and tests a tick holds back, one part of a line for each cause."""
    actions = [choice.decision.action for choice in choices]
    counts = {
        "held after a failure": actions.count(Action.HOLD),
        "skipped below it": actions.count(Action.SKIP),
        "waiting for a run": sum(bool(choice.waits) for choice in choices),
    }
    parts = [f"{count} {why}" for why, count in counts.items() if count]
    if waiting_tests:
        parts.append(f"{waiting_tests} tests waiting for a run")
    return parts


def nothing_to_build(choices: Collection[Choice], waiting_tests: int) -> str:
    """Return the one line of a tick that requests nothing: how many models and tests it holds back, and why."""
    return "; ".join([f"0 of {len(choices)} models to build", *held_back(choices, waiting_tests)]) + "."
