"""The inputs of a run: read once at its beginning, and the same until its end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster_dbt import DbtCliResource

from dagster_sao.core.decision.decide import Reason
from dagster_sao.core.decision.plan import Mode
from dagster_sao.core.errors import InvalidSelectionError
from dagster_sao.core.manifest.graph import ProjectGraph
from dagster_sao.core.manifest.policy import EfficientTesting
from dagster_sao.orchestration.dbt.efficient_testing import TestSettings
from dagster_sao.orchestration.dbt.limits import Limits, limits_of
from dagster_sao.orchestration.events.event_schema import (
    CONDITION_TAG,
    PROJECT_TAG,
    TESTS_TAG,
    NodeEvent,
    Outcome,
    given_nodes,
    node_event,
)
from dagster_sao.orchestration.leases.relation_keys import lease_keys
from dagster_sao.orchestration.private.dagster_internals import (
    DbtEventIterator,
    all_check_keys,
    events_of_run,
    metadata_of_engine_event,
)
from dagster_sao.orchestration.project.dbt_arguments import (
    check_arguments,
    in_standard_form,
    read_arguments,
    vars_arguments,
    without_hiding,
    without_settings,
)
from dagster_sao.orchestration.project.loaded import AssetKeys, LoadedProject
from dagster_sao.orchestration.project.orchestrated import OrchestratedProject
from dagster_sao.orchestration.project.parsing import input_files
from dagster_sao.orchestration.runs.config import StateAwareRunConfig, TestStrategy, with_dbt_arguments
from dagster_sao.orchestration.runs.run_plan import AskedOfRun, asked_of_assets
from dagster_sao.orchestration.state.contradictions import found_contradiction
from dagster_sao.orchestration.state.event_log import EventLogState, event_log_state
from dagster_sao.warehouse.redaction import masked

_PARENT_TAG = "dagster/parent_run_id"

Finish = Callable[[DbtEventIterator[Any]], Iterable[Any]]
"""What to do with the events of an invocation before they are yielded, such as fetching row counts."""


@dataclass(frozen=True, slots=True)
class RunSetup:
    """The inputs of a run. Its results are in its `Outcomes`."""

    context: dg.AssetExecutionContext
    dbt: DbtCliResource
    project: OrchestratedProject
    loaded: LoadedProject
    files: str
    """The stamp of the project's files from before the manifest was loaded."""
    config: StateAwareRunConfig
    arguments: tuple[str, ...]
    """The dbt command, without what it selects."""
    limits: Limits | None
    """The options that limit the builds to a part of the rows."""
    finish: Finish
    asked: AskedOfRun
    checks: Mapping[str, dg.AssetCheckKey]
    """The asset check of each test that Dagster shows."""
    planned_checks: frozenset[str]
    """The tests whose result Dagster expects of this run."""
    relations: Mapping[str, str]
    """The key of the lease of each node and function."""
    log_state: EventLogState
    testing: TestSettings
    """How data tests are answered, unless one says otherwise."""

    @property
    def graph(self) -> ProjectGraph:
        """The graph of the dbt project."""
        return self.loaded.project.graph

    @property
    def instance(self) -> dg.DagsterInstance:
        """The Dagster instance of the run."""
        instance: dg.DagsterInstance = self.context.instance
        return instance

    @property
    def run_id(self) -> str:
        """The id of the run."""
        return self.context.run.run_id

    def has_planned_files(self) -> bool:
        """Return whether no file of the project was written since the manifest was loaded."""
        return input_files(self.project.dbt_project).stamp == self.files

    @property
    def tests_hold(self) -> bool:
        """Whether a failed test holds back the nodes that it gates: only where tests run in dbt's order."""
        return self.config.test_strategy is TestStrategy.IMMEDIATE

    @property
    def functions_with_other_sql(self) -> frozenset[str]:
        """The functions that dbt creates in this run with other SQL than their code has.

        The SQL reads no rows with `--empty`, and may read models of another environment with `--defer`.
        """
        is_empty = self.limits is not None and self.limits.of_all_sql != ""
        return frozenset(
            uid
            for uid, function in self.graph.functions.items()
            if (is_empty and function.parents)
            or (self.asked.defers and not self.graph.nodes.keys().isdisjoint(function.parents))
        )

    @property
    def is_automated(self) -> bool:
        """Whether a sensor of this package started the run."""
        return self.asked.mode is Mode.SENSOR


def read_setup(  # noqa: PLR0913, PLR0917 (what a run is given)
    context: dg.AssetExecutionContext,
    dbt: DbtCliResource,
    project: OrchestratedProject,
    args: Sequence[str],
    config: StateAwareRunConfig,
    finish: Finish | None,
    testing: TestSettings,
) -> RunSetup:
    """Return what a run was given. Raises InvalidSelectionError when a selection of its config or a dbt argument is invalid."""
    arguments = dbt_arguments(args, config, project)
    config = with_dbt_arguments(config, arguments)
    limits = limits_of(arguments, project.dbt_project.project_dir)
    files = input_files(project.dbt_project).stamp
    loaded = project.load()
    log_state = event_log_state(context.instance, project)
    log_state.verdicts.prepare()
    known = all_check_keys(context)
    checks = {uid: key for uid, key in loaded.check_keys.items() if key in known}
    planned = frozenset(uid for uid, key in checks.items() if key in context.selected_asset_check_keys)
    return RunSetup(
        context,
        dbt,
        project,
        loaded,
        files,
        config,
        tuple(arguments),
        limits,
        finish or iter,
        _asked(context, project, loaded, config, log_state, checks, planned),
        checks,
        planned,
        lease_keys(project.name, loaded.project.graph),
        log_state,
        _testing(context, project, testing.of_run(config.efficient_testing), limits),
    )


def _testing(
    context: dg.AssetExecutionContext, project: OrchestratedProject, settings: TestSettings, limits: Limits | None
) -> TestSettings:
    if limits is not None:  # the tests read a part of the rows
        return settings.limited_to(EfficientTesting.OFF)
    contradicted = found_contradiction(context.instance, project.state_name)
    if not contradicted:
        return settings
    if settings.efficient_testing.proves:
        context.log.warning(masked(contradicted))
    return settings.limited_to(EfficientTesting.AGGREGATE)


def _asked(  # noqa: PLR0913, PLR0917 (what a run can be asked for)
    context: dg.AssetExecutionContext,
    project: OrchestratedProject,
    loaded: LoadedProject,
    config: StateAwareRunConfig,
    log_state: EventLogState,
    checks: Mapping[str, dg.AssetCheckKey],
    planned: frozenset[str],
) -> AskedOfRun:
    assets, tags = context.selected_asset_keys, context.run.tags
    is_automated = PROJECT_TAG in tags
    again = _failed_before(context, loaded.keys)
    verdicts = log_state.verdicts.read() if again is not None else {}
    return asked_of_assets(
        project,
        loaded,
        config,
        assets,
        planned,
        warn=context.log.warning,
        state_aware=is_automated if config.state_aware is None else config.state_aware,
        named=json.loads(tags.get(TESTS_TAG, "[]")),
        deselected=frozenset(uid for uid, key in checks.items() if key.asset_key in assets and uid not in planned),
        asked={*json.loads(tags.get(CONDITION_TAG, "[]")), *(again or ())},
        failing=[uid for uid, verdict in verdicts.items() if verdict.is_failing],
        mode=Mode.SENSOR if is_automated else Mode.JOB,
        run_id=context.run.run_id,
    )


def dbt_arguments(args: Sequence[str], config: StateAwareRunConfig, project: OrchestratedProject) -> list[str]:
    """Return the dbt command of a run, without what it selects.

    Raises InvalidSelectionError when `args` select something, or when `defer` has no `state`.
    """
    args = in_standard_form(args, "dbt_args")
    check_arguments(args, "dbt_args")
    arguments = without_hiding(without_settings(args, "--vars"))
    if project.dbt_project.target is not None:
        arguments = without_settings(arguments, "--target")
    if project.dbt_project.profile is not None:
        arguments = without_settings(arguments, "--profile")
    # Arguments that are computed for a run, such as from its partition, are known only here.
    given = {name: v for name, v in read_arguments(args, "dbt_args").variables.items() if name not in config.vars}
    arguments += vars_arguments({**project.variables, **given})
    if config.full_refresh and "--full-refresh" not in arguments:
        arguments.append("--full-refresh")
    if config.threads is not None:
        arguments += ["--threads", str(config.threads)]
    if config.defer:
        if config.state_path is None:
            msg = "`defer` needs `state`: the folder with the manifest of the environment to defer to."
            raise InvalidSelectionError(msg)
        arguments += ["--defer", "--state", str(config.state_path)]
        if config.favor_state:
            arguments.append("--favor-state")
    return arguments


def _failed_before(context: dg.AssetExecutionContext, keys: AssetKeys) -> AbstractSet[str] | None:
    """Return the nodes that failed in what is executed again: another run, or an earlier attempt of this step; None for neither.

    A person did so, Dagster's run retries, or the retry policy of an op. The nodes that were interrupted are among them,
    and those that were held for an earlier failure of the same code and data.
    """
    run, parent = context.run, context.run.tags.get(_PARENT_TAG)
    before = [*([parent] if parent is not None else []), *([run.run_id] if context.retry_number else [])]
    if not before:
        return None
    failed: set[str] = set()
    # Nothing is left of a run that was deleted since.
    for record in (record for run_id in before for record in events_of_run(context.instance, run_id)):
        event = record.event_log_entry.dagster_event
        if event is None:
            continue
        failed |= {node.unique_id for node in given_nodes(metadata_of_engine_event(event))}
        uid = keys.unique_ids.get(event.asset_key) if event.asset_key is not None else None
        if uid is None:
            continue
        if record.asset_materialization is not None:
            failed.discard(uid)
        elif (observation := record.event_log_entry.asset_observation) is not None:
            reported = node_event(observation.metadata)
            if reported.has_failed or _is_held(reported):
                failed.add(uid)
            elif reported.outcome is Outcome.SKIPPED:
                failed.discard(uid)
    return failed & keys.nodes


def _is_held(reported: NodeEvent) -> bool:
    return reported.outcome is Outcome.HELD and reported.reason_code == Reason.FAILED_UNCHANGED.value
