"""Jobs over a part of a dbt project, with the config of their runs and their schedules."""

# No `from __future__ import annotations` here: Dagster reads the annotations of a component at run time.
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass, field
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import dagster as dg
from dagster.components.resolved.model import Resolver
from pydantic import ValidationError

from dagster_sao.core.decision.plan_tests import tests_of_selection
from dagster_sao.core.errors import DagsterSaoError, InvalidJobError
from dagster_sao.orchestration.project.orchestrated import OrchestratedProject
from dagster_sao.orchestration.project.selection import ALL, NodeSelection, is_stateful, resolve_selection
from dagster_sao.orchestration.runs.config import StateAwareRunConfig, TestStrategy


@dataclass
class StateAwareJob(dg.Resolvable):
    """A job that builds of a selection what needs it and reports the rest as reused.

    With `state_aware` false it builds all that it selects, and updates the same state.
    """

    name: Annotated[str, Resolver.default(description="The job's name in Dagster.", examples=["nightly"])]
    _: KW_ONLY
    select: Annotated[
        str,
        Resolver.default(description="What to build, in dbt's selection syntax.", examples=["tag:nightly", "+orders"]),
    ] = ALL
    exclude: Annotated[str, Resolver.default(description="What of it not to build.", examples=["tag:slow"])] = ""
    selector: Annotated[str, Resolver.default(description="A yaml selector in place of select and exclude.")] = ""
    schedule: Annotated[
        str | None,
        Resolver.default(
            description="When the job runs, as cron has it. None: when it is started.", examples=["0 * * * *"]
        ),
    ] = None
    timezone: Annotated[
        str | None,
        Resolver.default(description="The time zone of the schedule. UTC by default.", examples=["Europe/Oslo"]),
    ] = None
    schedule_enabled: Annotated[
        bool | None,
        Resolver.default(description="Whether the schedule runs from the start. By default as the project's sensors."),
    ] = None
    state_aware: Annotated[
        bool,
        Resolver.default(description="Whether to build only what needs it. If not, all that is selected is built."),
    ] = True
    full_refresh: Annotated[
        bool, Resolver.default(description="Whether to build everything selected anew, incremental models too.")
    ] = False
    refresh_sources: Annotated[
        bool,
        Resolver.default(description="Whether to look first for new data in the sources above the selection."),
    ] = True
    test_strategy: Annotated[
        TestStrategy, Resolver.default(description="When tests are run: immediate, deferred or skip.")
    ] = TestStrategy.IMMEDIATE
    retries: Annotated[int, Resolver.default(description="How often a run tries again what failed.")] = 0
    retry_delay_seconds: Annotated[
        float, Resolver.default(description="Seconds before the first retry. Each later one waits twice as long.")
    ] = 30.0
    fail_fast: Annotated[
        bool, Resolver.default(description="Whether to start no further model after the first failure.")
    ] = False
    threads: Annotated[int | None, Resolver.default(description="How many models dbt builds at once.")] = None
    target: Annotated[str | None, Resolver.default(description="The target of the dbt profile to build in.")] = None
    vars: Annotated[dict[str, Any], Resolver.default(description="Values of `var()`, over those of the project.")] = (
        field(default_factory=dict)
    )
    state: Annotated[
        str | None,
        Resolver.default(description="A folder with the manifest of another environment, for `state:` and `defer`."),
    ] = None
    defer: Annotated[
        bool, Resolver.default(description="Whether to read what is not built here from the environment of `state`.")
    ] = False
    favor_state: Annotated[
        bool, Resolver.default(description="With defer: whether to read it from there also where it exists here.")
    ] = False
    in_process: Annotated[
        bool,
        Resolver.default(
            description="Whether a run is one process. A job has one step, so that the code location's executor would"
            " start a second process for it, or a pod, which is of use where that step is given resources of its own."
        ),
    ] = True
    tags: Annotated[dict[str, str], Resolver.default(description="Tags of the job and its runs.")] = field(
        default_factory=dict
    )
    description: Annotated[
        str | None, Resolver.default(description="What the UI says of the job. By default what it builds.")
    ] = None

    @property
    def selection(self) -> NodeSelection:
        """What of the project the job is about."""
        state = Path(self.state) if self.state else None
        return NodeSelection(self.select, self.exclude, self.selector, state=state)


# As Dagster names what makes a definition from its parts.
build_state_aware_job = StateAwareJob


def build_jobs(
    project: OrchestratedProject,
    models: dg.AssetsDefinition,
    jobs: Iterable[StateAwareJob],
    *,
    schedules_enabled: bool,
) -> dg.Definitions:
    """Return the jobs of a project and their schedules.

    `models` are the project's assets, `schedules_enabled` tells whether those schedules run from the start whose job
    does not say so itself. Raises InvalidJobError for a job whose selection or settings have no meaning.
    """
    definitions = []
    for job in jobs:
        try:
            definitions.append(_define(project, models, job, schedules_enabled=schedules_enabled))
        except (DagsterSaoError, ValidationError) as error:
            msg = f"The job '{job.name}' cannot be defined: {_sentence(error)}"
            raise InvalidJobError(msg) from error
    return dg.Definitions.merge(*definitions)


def _define(
    project: OrchestratedProject, models: dg.AssetsDefinition, job: StateAwareJob, *, schedules_enabled: bool
) -> dg.Definitions:
    if job.schedule is None and (job.timezone is not None or job.schedule_enabled is not None):
        msg = "`timezone` and `schedule_enabled` need a `schedule`: give one, or leave them out."
        raise InvalidJobError(msg)
    stateful = is_stateful(project, job.selection)
    config = {"ops": {models.op.name: {"config": _run_config(job, stateful=stateful)}}}
    definition = dg.define_asset_job(
        job.name,
        selection=_assets(project, models, job, stateful=stateful),
        config=config,
        description=job.description or _description(project, job),
        tags=job.tags,
        executor_def=dg.in_process_executor if job.in_process else None,
    )
    if job.schedule is None:
        return dg.Definitions(jobs=[definition])
    enabled = schedules_enabled if job.schedule_enabled is None else job.schedule_enabled
    schedule = dg.ScheduleDefinition(
        name=f"{job.name}_schedule",
        job=definition,
        # The job's own default would do, but the UI shows of a run what it was given.
        run_config=config,
        cron_schedule=job.schedule,
        execution_timezone=job.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING if enabled else dg.DefaultScheduleStatus.STOPPED,
        description=f"Starts {job.name}.",
    )
    return dg.Definitions(jobs=[definition], schedules=[schedule])


def _assets(
    project: OrchestratedProject, models: dg.AssetsDefinition, job: StateAwareJob, *, stateful: bool
) -> dg.AssetSelection:
    """Return the assets that a run of the job may build, with the tests that read any of them."""
    loaded = project.load()
    # Without the state that a stateful selection needs no run could resolve it either: that is an error now.
    if stateful and job.state is not None:
        selected = set(loaded.project.graph.nodes)
    else:
        selected = resolve_selection(
            project,
            loaded,
            job.selection,
            warn=lambda text: dg.get_dagster_logger().warning(f"The job '{job.name}': {text}"),
        )
    keys = loaded.keys.by_unique_id
    # As dbt selects tests: also one that reads a selected model and that Dagster shows on another.
    tests = set(tests_of_selection(loaded.project.graph, selected))
    read = {key for uid, key in loaded.check_keys.items() if uid in tests}
    assets = dg.AssetSelection.assets(*(keys[uid] for uid in sorted(selected)))
    return assets | dg.AssetSelection.checks(*sorted(read & set(models.check_keys)))


def _run_config(job: StateAwareJob, *, stateful: bool) -> dict[str, Any]:
    """Return the config that a run of the job has unless it is told another, with every field."""
    # What the job selects are its assets, unless only the run can know.
    selection = job.selection if stateful else NodeSelection()
    config = StateAwareRunConfig(
        state_aware=job.state_aware,
        select=selection.select,
        exclude=selection.exclude,
        selector=selection.selector,
        full_refresh=job.full_refresh,
        refresh_sources=job.refresh_sources,
        test_strategy=job.test_strategy,
        retries=job.retries,
        retry_delay_seconds=job.retry_delay_seconds,
        fail_fast=job.fail_fast,
        vars=job.vars,
        target=job.target,
        threads=job.threads,
        state=job.state,
        defer=job.defer,
        favor_state=job.favor_state,
    )
    return {name: value.name if isinstance(value, Enum) else value for name, value in config.model_dump().items()}


def _sentence(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    return f"`{first['loc'][0]}` is {first['input']!r}. {first['msg']}."


def _description(project: OrchestratedProject, job: StateAwareJob) -> str:
    what = f"`{job.selection}` of the dbt project {project.name}"
    if job.full_refresh:
        return f"Builds {what} anew, incremental models too."
    if job.state_aware:
        return f"Builds of {what} what changed in code or upstream data, and reports the rest as reused."
    return f"Builds all of {what}, changed or not."
