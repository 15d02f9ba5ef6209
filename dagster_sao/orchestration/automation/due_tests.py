"""Which of the due tests a tick of the automation sensor requests, and how the request names them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import dagster as dg

from dagster_sao.core.code.versions import digest
from dagster_sao.core.decision.plan import Plan
from dagster_sao.core.durations import is_waiting
from dagster_sao.core.manifest.graph import ProjectGraph, ProjectTest
from dagster_sao.core.project import Project
from dagster_sao.core.state.state import FIRST_RETRY, StateSnapshot
from dagster_sao.orchestration.events.event_schema import CARRIERS_TAG, TESTS_TAG
from dagster_sao.orchestration.project.loaded import LoadedProject
from dagster_sao.orchestration.state.run_activity import RunActivity


def tests_of_targets(graph: ProjectGraph, targets: AbstractSet[str]) -> frozenset[str]:
    """Return the tests that a sensor decides about: tests of a node that it targets, and tests of sources alone."""
    if targets >= graph.nodes.keys():
        return frozenset(graph.tests)
    return frozenset(
        uid
        for uid, test in graph.tests.items()
        if not targets.isdisjoint(test.about) or graph.nodes.keys().isdisjoint(test.about)
    )


@dataclass
class AskedTests:
    """The tests that a sensor requested. In memory: after a restart, a test is perhaps requested once more."""

    _asked: dict[str, tuple[str, datetime]] = field(default_factory=dict)

    def due(  # noqa: PLR0913, PLR0917 (what a tick knows)
        self,
        plan: Plan,
        project: Project,
        state: StateSnapshot,
        activity: RunActivity,
        waiting: AbstractSet[str],
        now: datetime,
    ) -> tuple[list[str], int]:
        """Return the tests to request now, and how many others wait for a run. `waiting` are nodes that wait themselves.

        A test waits for a run that will run it or replace its data. A test that its run left without a result is requested
        again after five minutes, or when there is something new to test.
        """
        graph = plan.graph
        busy = {*activity.building, *graph.descendants(activity.building), *waiting}
        building = graph.gates.mask(activity.building)
        found, waits = [], 0
        for uid in plan.test_runs:
            is_busy = (
                uid in activity.testing
                or not busy.isdisjoint(graph.tests[uid].about)
                or graph.gates.masks.get(uid, 0) & building
            )
            signature = _signature(graph.tests[uid], plan, project, state)
            before, asked_at = self._asked.get(uid, ("", now))
            if is_busy or (before == signature and is_waiting(now, asked_at, FIRST_RETRY)):
                waits += 1
                continue
            self._asked[uid] = signature, now
            found.append(uid)
        return found, waits


def run_request(  # noqa: PLR0913, PLR0917 (what a request is made of)
    loaded: LoadedProject,
    builds: Iterable[str],
    tests: Iterable[str],
    known_checks: AbstractSet[dg.AssetCheckKey],
    tags: Mapping[str, str],
    run_config: Mapping[str, Any] | None = None,
) -> dg.RunRequest | None:
    """Return the request of one run for all builds and tests, None when there are none.

    The request selects the check of a test that Dagster shows. Any other test follows from the nodes, or a tag names it.
    """
    nodes, tests = list(builds), list(tests)
    if not nodes and not tests:
        return None
    graph, keys = loaded.project.graph, loaded.keys.by_unique_id
    checks = [key for uid in tests if (key := loaded.check_keys.get(uid)) in known_checks and key is not None]
    hidden = [uid for uid in tests if loaded.check_keys.get(uid) not in known_checks]
    mask = graph.gates.mask(nodes)
    named = [uid for uid in hidden if not _follows(graph.tests[uid], set(nodes), graph, mask)]
    if named:
        tags = {**tags, TESTS_TAG: json.dumps(sorted(named))}
    if not nodes and not checks:
        # To Dagster, a run without assets is a run of all. The run decides again about these nodes, and reuses them.
        nodes, tags = _carriers(graph, named), {**tags, CARRIERS_TAG: "yes"}
    return dg.RunRequest(
        run_config=run_config, asset_selection=[keys[uid] for uid in nodes], asset_check_keys=checks, tags=tags
    )


def _follows(test: ProjectTest, nodes: AbstractSet[str], graph: ProjectGraph, mask: int) -> bool:
    """Return whether a run of `nodes` decides about a test without a request."""
    is_gate = test.is_error and bool(graph.gates.masks.get(test.unique_id, 0) & mask)
    return is_gate or not nodes.isdisjoint(test.about)


def _carriers(graph: ProjectGraph, tests: Iterable[str]) -> list[str]:
    """Return nodes for a run whose tests are not checks: the tested ones, else those below, else any one."""
    about = {uid for test in tests for uid in graph.tests[test].about}
    found = {uid for uid in about if uid in graph.nodes}
    below = {child for uid in about - found for child in graph.children.get(uid, ())}
    return sorted(found or below) or list(graph.nodes)[:1]


def _signature(test: ProjectTest, plan: Plan, project: Project, state: StateSnapshot) -> str:
    """Return a value that changes when there is something new to test, or the test has a new result."""
    verdict = state.verdicts.get(test.unique_id)
    versions = [plan.versions.get(uid) for uid in test.reads]
    return digest([project.fingerprints[test.unique_id].digest, versions, verdict.at.isoformat() if verdict else None])
