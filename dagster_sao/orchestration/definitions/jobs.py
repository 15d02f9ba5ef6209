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
from dagster_sao.orchestration.runs.config import RUN_OPTIONS, RunOptions, StateAwareRunConfig, problem_of
from dagster_sao.orchestration.selection.resolve import ALL, NodeSelection, is_stateful, resolve_selection


@dataclass
class StateAwareJob(RunOptions, dg.Resolvable):
    """A job that builds the models of a selection that need it, and reports the rest as reused.

    Beside the options below it takes those of a run (`RunOptions`). With `state_aware` false it builds everything selected,
    and updates the same state.
    """

    name: Annotated[str, Resolver.default(description="The job's name in Dagster.", examples=["nightly"])]
    _: KW_ONLY
    schedule: Annotated[
        str | None,
        Resolver.default(
            description="A cron expression. Without one, the job runs when you start it.", examples=["0 * * * *"]
        ),
    ] = None
    timezone: Annotated[
        str | None,
        Resolver.default(description="The time zone of the schedule. UTC by default.", examples=["Europe/Oslo"]),
    ] = None
    schedule_enabled: Annotated[
        bool | None,
        Resolver.default(description="Whether the schedule is on from the start. By default as the project's sensors."),
    ] = None
    in_process: Annotated[
        bool,
        Resolver.default(
            description="Run the job's only step in the run's process. If false, the code location's executor starts a process"
            " or a pod for it, which helps only if the step gets resources of its own."
        ),
    ] = True
    tags: Annotated[dict[str, str], Resolver.default(description="Tags of the job and its runs.")] = field(
        default_factory=dict
    )
    description: Annotated[
        str | None,
        Resolver.default(description="The job's description in the UI. By default a sentence about what it builds."),
    ] = None

    @property
    def selection(self) -> NodeSelection:
        """What of the project the job is about."""
        state = Path(self.state) if self.state else None
        return NodeSelection(self.select or ALL, self.exclude, self.selector, state=state)


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
            problem = problem_of(error) if isinstance(error, ValidationError) else str(error)
            msg = f"The job '{job.name}' cannot be defined: {problem}"
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
    options = {name: getattr(job, name) for name in RUN_OPTIONS}
    # What the job selects are its assets, unless only the run can know.
    selection = job.selection if stateful else NodeSelection()
    options |= {"select": selection.select, "exclude": selection.exclude, "selector": selection.selector}
    config = StateAwareRunConfig(**options)
    return {name: value.name if isinstance(value, Enum) else value for name, value in config.model_dump().items()}


def _description(project: OrchestratedProject, job: StateAwareJob) -> str:
    what = f"`{job.selection}` of the dbt project {project.name}"
    if job.full_refresh:
        return f"Builds {what} anew, incremental models too."
    if job.state_aware:
        return f"Builds of {what} what changed in code or upstream data, and reports the rest as reused."
    return f"Builds all of {what}, changed or not."
