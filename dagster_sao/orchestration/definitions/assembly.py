"""What Python and `defs.yaml` have in common: one dbt project, its settings and its assets become definitions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
from dagster_dbt import DagsterDbtTranslator, DbtCliResource, DbtProject

from dagster_sao.collector import paused_collector
from dagster_sao.core.errors import InvalidJobError
from dagster_sao.orchestration.automation.sensor import StateAwareAutomationSensor
from dagster_sao.orchestration.dbt.executable import find_dbt
from dagster_sao.orchestration.definitions.jobs import ScheduleSettings, build_jobs
from dagster_sao.orchestration.definitions.partitions import refuse_partitions
from dagster_sao.orchestration.definitions.selections import warn_of_other_selections
from dagster_sao.orchestration.definitions.settings import StateAwareSettings
from dagster_sao.orchestration.definitions.shared_keys import refuse_shared_keys
from dagster_sao.orchestration.definitions.translator import models_of, state_aware_spec
from dagster_sao.orchestration.private.warm_runs import fork_runs
from dagster_sao.orchestration.project.dbt_arguments import (
    DbtSettings,
    check_arguments,
    in_standard_form,
    project_with,
    read_arguments,
    together,
    with_environment,
)
from dagster_sao.orchestration.project.in_memory import refuse_what_does_not_survive
from dagster_sao.orchestration.project.loaded import LoadedProject, Selection
from dagster_sao.orchestration.project.orchestrated import OrchestratedProject
from dagster_sao.orchestration.project.parsing import ensure_manifest
from dagster_sao.orchestration.runs.config import StateAwareRunConfig
from dagster_sao.orchestration.runs.execution import Finish, execute_dbt_assets
from dagster_sao.orchestration.sources.age_checks import build_freshness_checks
from dagster_sao.orchestration.sources.sensor import FreshnessProber, build_freshness_sensor

_LOG = dg.get_dagster_logger("dagster_sao")
_DAEMON_SECONDS = 5
_IMPORTED_BY_RUNS = (
    "dagster_sao.orchestration.definitions.build",
    "dagster_sao.orchestration.definitions.component",
    "dbt.cli.main",
)
_WARM_UP = "dagster_sao.warehouse.dbt_private.warm_up"


def orchestrate(  # noqa: PLR0913 (what a project consists of)
    project: DbtProject,
    translator: DagsterDbtTranslator,
    *,
    arguments: tuple[str, Sequence[Any]],
    others: Mapping[str, DbtSettings],
    selection: Selection,
    probe_target: str | None,
) -> OrchestratedProject:
    """Return the project with the variables, the target and the profile that its runs have.

    They are in the `arguments` of the dbt command, with their name in messages, and in `others`, by name. Raises
    InvalidProjectError when two of these contradict each other, or the command builds nothing.
    """
    name, given = arguments
    args = in_standard_form(given, name)
    check_arguments(args, name)
    settings, environment = with_environment(
        project, together([(f"`{name}`", read_arguments(args, name)), *others.items()])
    )
    return OrchestratedProject(
        project_with(project, settings),
        translator,
        variables=settings.variables,
        selection=selection,
        probe_target=probe_target,
        environment=environment,
        dbt_args=args,
    )


@paused_collector()
def assemble(  # noqa: PLR0913 (what definitions consist of)
    project: OrchestratedProject,
    settings: StateAwareSettings,
    make_models: Callable[[LoadedProject], Iterable[Any]],
    *,
    have_conditions: bool,
    config: type[dg.Config] = StateAwareRunConfig,
    other_assets: Sequence[Any] = (),
    runs_are_ours: bool = True,
) -> dg.Definitions:
    """Return the assets, the sources, the two sensors and the jobs of a project, which is parsed first where it must be.

    `make_models` returns the dbt assets, perhaps with others. `have_conditions` tells whether they have the automation
    condition already, or are without one on purpose. `config` is the config of their runs. `other_assets` are those of
    the code location. `runs_are_ours` is False where the user replaced a part of what runs do.

    Raises InvalidProjectError, InvalidPolicyError or InvalidJobError.
    """
    find_dbt()
    settings.check()
    ensure_manifest(project.dbt_project, project.variables)
    warn_of_other_selections(project)
    loaded = project.load()
    adapter = f"dbt.adapters.{loaded.project.graph.adapter_type}"
    fork_runs([*_IMPORTED_BY_RUNS, adapter, _WARM_UP], is_wanted=settings.warm_runs)
    refuse_shared_keys(loaded)
    refuse_partitions(loaded)
    made = list(make_models(loaded))
    given = next(asset for asset in made if isinstance(asset, dg.AssetsDefinition))
    models = models_of(project, loaded, given, have_conditions=have_conditions)
    sources = _finish_project(project, loaded, settings, other_assets)
    if settings.jobs and not issubclass(config, StateAwareRunConfig):
        msg = (
            f"The jobs of the dbt project {project.name} need a run config that derives from StateAwareRunConfig,"
            f" not {config.__name__}: change the component's `op_config_schema`, or leave out its jobs."
        )
        raise InvalidJobError(msg)
    return dg.Definitions.merge(
        dg.Definitions(
            assets=[*(asset for asset in made if asset is not given), models, *sources, *other_assets],
            asset_checks=build_freshness_checks(project, loaded),
            sensors=_build_sensors(project, models, settings),
        ),
        build_jobs(
            project,
            models,
            settings.jobs,
            schedules=ScheduleSettings(settings.sensors_enabled, settings.tick_seconds, decide_first=runs_are_ours),
        ),
    )


def execute(  # noqa: PLR0913 (what a run consists of)
    context: dg.AssetExecutionContext,
    dbt: DbtCliResource,
    project: OrchestratedProject,
    settings: StateAwareSettings,
    *,
    args: Sequence[str],
    config: StateAwareRunConfig,
    include_metadata: Sequence[str],
) -> Iterator[Any]:
    """Build the selected assets that must be built, and report the rest as reused. Yields their events."""
    yield from execute_dbt_assets(
        context,
        dbt,
        project,
        args=args,
        config=config,
        finish=_finisher(include_metadata),
        kept_dbt_folders=settings.kept_dbt_folders,
        testing=settings.test_settings,
    )


def _finish_project(
    project: OrchestratedProject,
    loaded: LoadedProject,
    settings: StateAwareSettings,
    other_assets: Iterable[Any],
) -> list[dg.AssetSpec]:
    """Tell the project which sources other assets load, and return the remaining ones as external assets.

    Raises InvalidProjectError when the target cannot keep what is built.
    """
    refuse_what_does_not_survive(project, loaded)
    for warning in loaded.warnings:
        _LOG.warning(str(warning))
    keys = loaded.keys
    loads = {key for asset in other_assets if _is_loader(asset) for key in _keys_of(asset)}
    given = {key for asset in other_assets for key in _keys_of(asset)}
    patterns = [_pattern(name) for name in settings.loaded_by_dagster]
    specs: dict[dg.AssetKey, dg.AssetSpec] = {}
    for uid, source in loaded.project.graph.sources.items():
        key = keys.by_unique_id[uid]
        if any(pattern.fullmatch(source.label) for pattern in patterns):
            loads.add(key)
        if key not in loads | given and not source.is_external_node:
            spec = state_aware_spec(loaded.spec(uid), source.definition)
            specs[key] = spec.replace_attributes(automation_condition=None, deps=[], skippable=False)
    project.loaded_by_dagster = frozenset(loads & {keys.by_unique_id[uid] for uid in loaded.project.graph.sources})
    return list(specs.values())


def _keys_of(asset: object) -> Iterable[dg.AssetKey]:
    if isinstance(asset, (dg.AssetSpec, dg.SourceAsset)):
        return [asset.key]
    return asset.keys if isinstance(asset, dg.AssetsDefinition) else []


def _is_loader(asset: object) -> bool:
    """Return whether Dagster materializes or observes an asset. Others only describe it, and tell nothing of its data."""
    if isinstance(asset, dg.SourceAsset):
        return asset.is_observable
    return isinstance(asset, dg.AssetsDefinition) and asset.is_executable


def _build_sensors(
    project: OrchestratedProject, models: dg.AssetsDefinition, settings: StateAwareSettings
) -> list[dg.SensorDefinition]:
    """Return a project's freshness sensor and its automation sensor."""
    prober = FreshnessProber(
        project, tick_seconds=settings.tick_seconds, interval_seconds=settings.freshness_interval_seconds
    )
    return [
        build_freshness_sensor(
            project,
            prober,
            name=project.freshness_sensor_name,
            interval_seconds=_asked_interval(settings.freshness_interval_seconds),
            default_status=settings.default_sensor_status,
        ),
        StateAwareAutomationSensor(
            project.automation_sensor_name,
            project=project,
            before_plan=prober.probe_before_plan,
            target=_target(models),
            minimum_interval_seconds=_asked_interval(settings.automation_interval_seconds),
            default_status=settings.default_sensor_status,
            description=f"Builds the models of the dbt project {project.name} whose code or upstream data changed.",
        ),
    ]


def _asked_interval(seconds: int) -> int:
    """Return the interval to ask Dagster for, so that ticks are `seconds` apart.

    Its daemon looks every five seconds (`MIN_INTERVAL_LOOP_TIME` in dagster/_daemon/sensor.py) whether a sensor is due, and finds what
    becomes due at that very moment at this look or the next, as it happens.
    """
    return seconds - 1 if seconds % _DAEMON_SECONDS == 0 else seconds


def _target(models: dg.AssetsDefinition) -> dg.AssetSelection:
    """Return the models with their checks, and the checks on sources where there are any."""
    # As short as can be: the UI cannot abbreviate a selection that names checks.
    target = dg.AssetSelection.assets(*models.keys)
    others = [key for key in models.check_keys if key.asset_key not in models.keys]
    return target | dg.AssetSelection.checks(*others) if others else target


def _finisher(include_metadata: Sequence[str]) -> Finish | None:
    """Return a function that fetches the requested metadata, as dagster-dbt's component does; None if none is requested."""
    if not include_metadata:
        return None

    def finish(events: Any) -> Any:  # noqa: ANN401
        if "column_metadata" in include_metadata:
            events = events.fetch_column_metadata()
        if "row_count" in include_metadata:
            events = events.fetch_row_counts()
        if "insights" in include_metadata:
            events = events.with_insights()
        return events

    return finish


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(re.escape(name).replace(r"\*", ".*"))
