"""A plan: the decisions for a selection, and what follows from them: versions, waves, and the tests to run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

from dagster_sao.core.decision.decide import Decision
from dagster_sao.core.decision.decide_functions import FunctionDecision, FunctionReason
from dagster_sao.core.decision.plan_tests import TestDecisions
from dagster_sao.core.manifest.graph import ProjectGraph, ProjectTest


class Mode(str, Enum):
    """Who decides: a sensor decides again at the next tick, a job may be the last of its hour."""

    SENSOR = "sensor"
    JOB = "job"


@dataclass(frozen=True)
class Plan:
    """The decisions for a selection, in topological order."""

    decisions: Mapping[str, Decision]
    versions: Mapping[str, str]
    """The data version of every node and source after this plan, where it has one."""
    graph: ProjectGraph
    tests: TestDecisions
    """The decisions about tests."""
    functions: Mapping[str, FunctionDecision] = field(default_factory=dict)
    """The decisions about functions, each after those that it calls itself."""
    dropped: Mapping[str, AbstractSet[str]] = field(default_factory=dict)
    """What this plan builds because it is dropped, each with the relations whose replacement by this plan drops it."""

    @property
    def builds(self) -> list[str]:
        """The nodes to build, parents first."""
        return [unique_id for unique_id, decision in self.decisions.items() if decision.builds]

    @property
    def test_runs(self) -> list[str]:
        """The tests to run."""
        return self.tests.runs

    @property
    def uncalled(self) -> list[str]:
        """The functions to create that no node or test of the plan calls."""
        return [uid for uid, d in self.functions.items() if d.creates and d.reason is not FunctionReason.CALLED]

    def in_order(self, nodes: Iterable[str], tests: Iterable[str]) -> list[str]:
        """Return nodes and tests in one order, as dbt has it: a test after what it reads, before what it gates."""
        places = self.graph.gates.places
        # What gates a node reads nothing that comes later, so right after the last thing that it reads is early enough.
        last = {uid: _last_read(self.graph.tests[uid], places) for uid in tests}
        # A unit test comes before its model.
        order = [(places[uid], 1, uid) for uid in nodes]
        order += [(place, 0 if self.graph.tests[uid].is_unit_test else 2, uid) for uid, place in last.items()]
        return [uid for _, _, uid in sorted(order)]

    @cached_property
    def waves(self) -> list[list[str]]:
        """The nodes to build in groups: each group needs only the groups before it."""
        depth: dict[str, int] = {}
        waves: list[list[str]] = []
        # Through nodes that are not built, order still holds: dbt respects it only among the built ones.
        for unique_id in self.graph.nodes:
            above = max((depth[p] for p in self.graph.nodes[unique_id].parents if p in depth), default=-1)
            decision = self.decisions.get(unique_id)
            if decision is not None and decision.builds:
                above += 1
                if above == len(waves):
                    waves.append([])
                waves[above].append(unique_id)
            depth[unique_id] = above
        return waves


def _last_read(test: ProjectTest, places: Mapping[str, int]) -> int:
    return max((places[uid] for uid in test.about if uid in places), default=-1)
