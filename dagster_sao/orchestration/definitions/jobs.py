"""Jobs over a part of a dbt project, with the config of their runs and their schedules."""

# No `from __future__ import annotations` here: Dagster reads the annotations of a component at run time.
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass, field
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import dagster as dg
from dagster.components.resolved.model import Resolver
from pydantic import ValidationError

from dagster_sao.core.decision.plan_tests import tests_of_selection
from dagster_sao.core.errors import DagsterSaoError, InvalidJobError
from dagster_sao.orchestration.arguments import check_types
from dagster_sao.orchestration.automation.schedule import JobSchedule, ScheduledJob
from dagster_sao.orchestration.project.orchestrated import OrchestratedProject
from dagster_sao.orchestration.runs.config import RUN_OPTIONS, RunOptions, StateAwareRunConfig, problem_of
from dagster_sao.orchestration.selection.resolve import ALL, NodeSelection, is_stateful, resolve_selection


@dataclass
class StateAwareJob(RunOptions, dg.Resolvable):
    """A job that builds the models of a selection that need it, and reports the rest as reused.

    Beside the options below it takes the options of a run (`RunOptions`). With `state_aware` false it builds everything selected,
    and updates the same state. The schedule of a state-aware job starts a run only when there is something to build or test.
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
        Resolver.default(
            description="Whether the schedule is on from the start. By default like the project's sensors."
        ),
    ] = None
    start_run_when_idle: Annotated[
        bool,
        Resolver.default(
            description="Start a run at each tick of the schedule, even if nothing is to be built or tested. By default such a"
            " tick is skipped, with the reason."
        ),
    ] = False
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
        """The part of the project that the job is about."""
        state = Path(self.state) if self.state else None
        return NodeSelection(self.select or ALL, self.exclude, self.selector, state=state)


# As Dagster names what makes a definition from its parts.
build_state_aware_job = StateAwareJob


@dataclass(frozen=True, slots=True)
class ScheduleSettings:
    """What the schedules of a project have in common."""

    are_enabled: bool
    """Whether they run from the start where the job does not say so itself."""
    tick_seconds: float
    """The time budget of a tick for probing."""
    decide_first: bool = True
    """Whether a schedule can decide to start no run, because it knows what a run would do."""


def build_jobs(
    project: OrchestratedProject,
    models: dg.AssetsDefinition,
    jobs: Iterable[StateAwareJob],
    *,
    schedules: ScheduleSettings,
) -> dg.Definitions:
    """Return the jobs of a project and their schedules. `models` are the project's assets.

    Raises InvalidJobError for a job whose selection or settings have no meaning.
    """
    definitions = []
    for job in jobs:
        try:
            definitions.append(_define(project, models, job, schedules))
        except (DagsterSaoError, ValidationError) as error:
            problem = problem_of(error) if isinstance(error, ValidationError) else str(error)
            msg = f"The job '{job.name}' cannot be defined: {problem}"
            raise InvalidJobError(msg) from error
    return dg.Definitions.merge(*definitions)


def _define(
    project: OrchestratedProject, models: dg.AssetsDefinition, job: StateAwareJob, schedules: ScheduleSettings
) -> dg.Definitions:
    check_types(get_type_hints(StateAwareJob), vars(job), InvalidJobError)
    of_schedule = (job.timezone is not None, job.schedule_enabled is not None, job.start_run_when_idle)
    if job.schedule is None and any(of_schedule):
        msg = "`timezone`, `schedule_enabled` and `start_run_when_idle` need a `schedule`: give one, or leave them out."
        raise InvalidJobError(msg)
    stateful = is_stateful(project, job.selection)
    run_config = _run_config(job, stateful=stateful)
    config = {"ops": {models.op.name: {"config": _as_dagster_takes_it(run_config)}}}
    assets, checks = _assets(project, models, job, stateful=stateful)
    definition = dg.define_asset_job(
        job.name,
        selection=dg.AssetSelection.assets(*assets) | dg.AssetSelection.checks(*checks),
        config=config,
        description=job.description or _description(project, job),
        tags=job.tags,
        executor_def=dg.in_process_executor if job.in_process else None,
    )
    if job.schedule is None:
        return dg.Definitions(jobs=[definition])
    enabled = schedules.are_enabled if job.schedule_enabled is None else job.schedule_enabled
    name = f"{job.name}_schedule"
    decides_first = schedules.decide_first and job.state_aware and not job.start_run_when_idle
    scheduled = ScheduledJob(
        job.name,
        name,
        run_config,
        config,
        frozenset(assets),
        frozenset(checks),
        is_stateful=stateful,
        timezone=job.timezone,
        tick_seconds=schedules.tick_seconds,
    )
    when = " when it has something to build or test" if decides_first else ""
    schedule = dg.ScheduleDefinition(
        name=name,
        job=definition,
        # The job's own default would do, but the UI shows only the config that a run was given.
        run_config=None if decides_first else config,
        execution_fn=JobSchedule(project, scheduled).tick if decides_first else None,
        cron_schedule=job.schedule,
        execution_timezone=job.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING if enabled else dg.DefaultScheduleStatus.STOPPED,
        description=f"Starts {job.name}{when}.",
    )
    return dg.Definitions(jobs=[definition], schedules=[schedule])


def _assets(
    project: OrchestratedProject, models: dg.AssetsDefinition, job: StateAwareJob, *, stateful: bool
) -> tuple[list[dg.AssetKey], list[dg.AssetCheckKey]]:
    """Return the assets that a run of the job may build, and the checks of the tests that read any of them."""
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
    return [keys[uid] for uid in sorted(selected)], sorted(read & set(models.check_keys))


def _run_config(job: StateAwareJob, *, stateful: bool) -> StateAwareRunConfig:
    """Return the config of a run of the job by default."""
    options = {name: getattr(job, name) for name in RUN_OPTIONS}
    # The selection is in the assets of the job, unless only the run can resolve it.
    selection = job.selection if stateful else NodeSelection()
    options |= {"select": selection.select, "exclude": selection.exclude, "selector": selection.selector}
    return StateAwareRunConfig(**options)


def _as_dagster_takes_it(config: StateAwareRunConfig) -> dict[str, Any]:
    """Return a config with every field."""
    return {name: value.name if isinstance(value, Enum) else value for name, value in config.model_dump().items()}


def _description(project: OrchestratedProject, job: StateAwareJob) -> str:
    what = f"`{job.selection}` of the dbt project {project.name}"
    if job.full_refresh:
        return f"Builds {what} anew, incremental models too."
    if job.state_aware:
        return f"Builds the models of {what} whose code or upstream data changed, and reports the rest as reused."
    return f"Builds all of {what}, changed or not."
