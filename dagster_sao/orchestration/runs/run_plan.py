"""What a run decides: one computation, which the run executes, a dry run shows, and a sensor makes before it requests a run.

`decide_run` is pure. Everything that it depends on is in its inputs; `asked_of_run` resolves the selections among them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import datetime

import dagster as dg

from dagster_sao.core.code.versions import deferred_version
from dagster_sao.core.decision.decide import Request
from dagster_sao.core.decision.plan import Mode, Plan
from dagster_sao.core.decision.plan_tests import TestScope, tests_of_selection
from dagster_sao.core.decision.planner import make_run_plan
from dagster_sao.core.manifest.graph import ProjectGraph
from dagster_sao.core.state.state import SourceState, StateSnapshot
from dagster_sao.orchestration.project.loaded import LoadedProject
from dagster_sao.orchestration.project.orchestrated import OrchestratedProject
from dagster_sao.orchestration.runs.config import StateAwareRunConfig, TestStrategy, with_dbt_arguments
from dagster_sao.orchestration.selection.resolve import NodeSelection, resolve_selection

_NO_RUN = "dry run"


@dataclass(frozen=True, slots=True)
class ChecksAsked:
    """The tests that a run was asked for beside the tests of its nodes. By default none is added or taken out."""

    named: frozenset[str] = frozenset()
    """The tests that the sensor named."""
    planned: frozenset[str] = frozenset()
    """The tests whose asset check is selected."""
    deselected: frozenset[str] = frozenset()
    """The tests whose asset is selected, and whose check is not."""
    left_out: frozenset[str] = frozenset()
    """The nodes whose asset is selected, and which the run's config leaves out."""


@dataclass(frozen=True, slots=True)
class AskedOfRun:
    """Everything that a run was asked for. It is known before the run begins, and stays as it is."""

    loaded: LoadedProject
    config: StateAwareRunConfig
    selected: frozenset[str]
    """The nodes of the run."""
    state_aware: bool = True
    """Whether only the nodes that need it are built."""
    requests: Mapping[str, Request] = field(default_factory=dict)
    """The nodes that are built in any case."""
    tests: frozenset[str] = frozenset()
    """The tests that the run decides about, beside those that gate what it builds."""
    tests_again: frozenset[str] = frozenset()
    """The tests that are run in any case."""
    mode: Mode = Mode.JOB
    run_id: str = _NO_RUN

    @property
    def defers(self) -> bool:
        """Whether dbt reads what is not here from another environment."""
        return self.config.defer


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come when it decides. The default is a run that begins."""

    todo: frozenset[str] | None = None
    """The nodes that are still to be decided; None for all."""
    blocked: frozenset[str] = frozenset()
    """The nodes from which nothing is built, after what has failed in the run."""
    retried: frozenset[str] = frozenset()
    """The nodes that failed in the run, and are tried again."""
    open_tests: frozenset[str] | None = None
    """The tests that are still to be decided; None for all."""
    tests_again: frozenset[str] | None = None
    """The tests that are run in any case; None for those that the run was asked for."""
    answered: frozenset[str] = frozenset()
    """The tests that have been run or reported."""


@dataclass(frozen=True, slots=True)
class RunInputs:
    """Everything that the decisions of a run follow from."""

    asked: AskedOfRun
    state: StateSnapshot
    """The state as it is recorded."""
    now: datetime
    progress: Progress = field(default_factory=Progress)


@dataclass(frozen=True, slots=True)
class RunPlan:
    """The decisions of a run, and the state that they were made from."""

    plan: Plan
    recorded: StateSnapshot
    """The state as it is recorded, without what follows from failures of this run."""
    captured: StateSnapshot
    """The same with a version of each node that the run reads from another environment: builds consume these versions."""


def decide_run(inputs: RunInputs) -> RunPlan:
    """Return the decisions about the nodes and tests of a run.

    The run executes them, a dry run shows them, and a sensor requests a run for them.
    """
    asked, progress = inputs.asked, inputs.progress
    recorded = replace(inputs.state, blocked=inputs.state.blocked | progress.blocked)
    elsewhere = _read_elsewhere(asked, recorded)
    plan = make_run_plan(
        asked.loaded.project,
        _with_unknown(recorded, read_by(asked.loaded.project.graph, asked.selected) & elsewhere, asked, inputs.now),
        now=inputs.now,
        selection=asked.selected if progress.todo is None else progress.todo,
        # What failed a moment ago would be held, though the reason of its first attempt still holds.
        requests={**dict.fromkeys(progress.retried, Request.BUILD), **asked.requests},
        mode=asked.mode,
        tests=_scope_of_tests(asked, progress),
    )
    # Tests that gate what is built read nodes further up.
    return RunPlan(plan, recorded, _with_unknown(recorded, elsewhere, asked, inputs.now))


def asked_of_run(  # noqa: PLR0913 (what a run can be asked for)
    project: OrchestratedProject,
    loaded: LoadedProject,
    config: StateAwareRunConfig,
    selected: AbstractSet[str],
    *,
    state_aware: bool,
    checks: ChecksAsked | None = None,
    asked: Collection[str] = (),
    failing: Collection[str] = (),
    mode: Mode = Mode.JOB,
    run_id: str = _NO_RUN,
) -> AskedOfRun:
    """Return what a run with this config was asked for, `selected` being its nodes.

    `asked` are nodes that are built in any case, for a condition or because the run executes another one again;
    `failing` are the tests that are run in any case. Raises InvalidSelectionError when a selection in `force` is invalid.
    """
    forced: set[str] = set()
    if state_aware and not config.full_refresh:
        for select in config.force:
            forced |= resolve_selection(project, loaded, NodeSelection(select, state=config.state_path))
    tests = asked_tests(loaded.project.graph, selected, checks or ChecksAsked(), state_aware=state_aware)
    return AskedOfRun(
        loaded,
        config,
        frozenset(selected),
        state_aware,
        explicit_requests(config, selected, forced.union(asked), state_aware=state_aware),
        tests,
        tests.intersection(failing),
        mode,
        run_id,
    )


def asked_of_assets(  # noqa: PLR0913 (what a run can be asked for)
    project: OrchestratedProject,
    loaded: LoadedProject,
    config: StateAwareRunConfig,
    assets: AbstractSet[dg.AssetKey],
    planned: frozenset[str],
    *,
    warn: Callable[[str], None],
    state_aware: bool,
    named: Iterable[str] = (),
    deselected: frozenset[str] = frozenset(),
    asked: Collection[str] = (),
    failing: Collection[str] = (),
    mode: Mode = Mode.JOB,
    run_id: str = _NO_RUN,
) -> AskedOfRun:
    """Return what a run of these assets and of the checks of `planned` tests is asked for. Raises as `asked_of_run` does.

    `named` are tests that it is asked for by name, `deselected` those whose asset is selected and whose check is not.
    """
    keys = loaded.keys
    nodes = {uid for key in assets if (uid := keys.unique_ids.get(key)) in keys.nodes}
    selected = _selected(project, loaded, config, nodes, warn)
    known = {keys.unique_ids[key] for key in assets if key in keys.unique_ids}
    return asked_of_run(
        project,
        loaded,
        config,
        selected,
        state_aware=state_aware,
        checks=ChecksAsked(frozenset(named), planned, deselected, left_out=frozenset(known - selected)),
        asked=asked,
        failing=failing,
        mode=mode,
        run_id=run_id,
    )


def _selected(
    project: OrchestratedProject,
    loaded: LoadedProject,
    config: StateAwareRunConfig,
    nodes: set[str],
    warn: Callable[[str], None],
) -> set[str]:
    if not (config.select or config.exclude or config.selector):
        return nodes
    wanted = NodeSelection(config.select, config.exclude, config.selector, state=config.state_path)
    return nodes & resolve_selection(project, loaded, wanted, warn=warn)


def asked_of_sensor_run(
    project: OrchestratedProject,
    loaded: LoadedProject,
    selected: AbstractSet[str],
    tests: Iterable[str],
    asked: Collection[str] = (),
) -> AskedOfRun:
    """Return what a run of the automation sensor is asked for, `asked` being nodes that are built for their own condition."""
    config = with_dbt_arguments(StateAwareRunConfig(), project.dbt_args)
    return asked_of_run(
        project,
        loaded,
        # A full refresh among dbt's arguments says how the run builds. It does not make a node due, or each tick would build all.
        config.model_copy(update={"full_refresh": False}),
        selected,
        state_aware=True,
        checks=ChecksAsked(named=frozenset(tests)),
        asked=asked,
        mode=Mode.SENSOR,
    )


def explicit_requests(
    config: StateAwareRunConfig, selected: AbstractSet[str], asked: AbstractSet[str], *, state_aware: bool
) -> dict[str, Request]:
    """Return the nodes that a run builds in any case: with a full refresh all of them anew, and those that are `asked`."""
    if config.full_refresh:
        return dict.fromkeys(selected, Request.FULL_REFRESH)
    return dict.fromkeys(selected & asked if state_aware else selected, Request.BUILD)


def asked_tests(
    graph: ProjectGraph, selected: AbstractSet[str], checks: ChecksAsked, *, state_aware: bool
) -> frozenset[str]:
    """Return the tests that a run decides about, beside those that gate what it builds."""
    found = set(tests_of_selection(graph, selected))
    if not state_aware:
        # Somebody took these checks out of the selection of their assets.
        found -= checks.deselected
    # What the run's config leaves out of its assets is left out with its tests.
    found |= {uid for uid in checks.planned if checks.left_out.isdisjoint(graph.tests[uid].about)}
    return frozenset(found | (checks.named & graph.tests.keys()))


def _scope_of_tests(asked: AskedOfRun, progress: Progress) -> TestScope:
    """Return the tests that a run's next plan decides about, and how. A run that is not state-aware runs them all."""
    strategy = asked.config.test_strategy
    if strategy is TestStrategy.SKIP:
        return TestScope(tests=frozenset(), with_gates=False, before_builds=False)
    tests = asked.tests if progress.open_tests is None else progress.open_tests
    again = asked.tests_again if progress.tests_again is None else progress.tests_again
    return TestScope(
        tests=tests,
        requested=again if asked.state_aware else tests,
        answered=progress.answered,
        with_gates=asked.state_aware,
        before_builds=strategy is TestStrategy.IMMEDIATE,
    )


def _read_elsewhere(asked: AskedOfRun, state: StateSnapshot) -> AbstractSet[str]:
    """Return the nodes that dbt reads from another environment wherever the run reads them."""
    config, graph = asked.config, asked.loaded.project.graph
    if not asked.defers:
        return frozenset()
    there = frozenset() if config.favor_state else state.builds.keys() - state.missing_relations
    return graph.nodes.keys() - asked.selected - there


def _with_unknown(state: StateSnapshot, nodes: AbstractSet[str], asked: AskedOfRun, now: datetime) -> StateSnapshot:
    """Return the state with nodes that are read from another environment: always new, as nothing is known of them."""
    unknown = SourceState(deferred_version(asked.run_id), now)
    return replace(state, sources={**state.sources, **dict.fromkeys(nodes, unknown)}) if nodes else state


def read_by(graph: ProjectGraph, selected: AbstractSet[str]) -> set[str]:
    """Return the nodes and sources that a selection and its tests read."""
    tests = tests_of_selection(graph, selected)
    return {
        *(parent for uid in selected for parent in graph.nodes[uid].parents),
        *(read for uid in tests for read in graph.tests[uid].reads),
    }
