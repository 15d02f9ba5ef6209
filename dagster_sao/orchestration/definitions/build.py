"""The definitions of a state-aware dbt project, in Python."""

# No `from __future__ import annotations` here: Dagster reads the annotation of `context` at run time.
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
from dagster_dbt import DagsterDbtTranslator, DbtCliResource, DbtProject, dbt_assets

from dagster_sao.orchestration.automation.sensor import StateAwareAutomationSensor
from dagster_sao.orchestration.dbt.executable import find_dbt
from dagster_sao.orchestration.dbt.invocation_folders import DEFAULT_KEPT
from dagster_sao.orchestration.definitions.jobs import StateAwareJob, build_jobs
from dagster_sao.orchestration.definitions.partitions import refuse_partitions
from dagster_sao.orchestration.definitions.selections import warn_of_other_selections
from dagster_sao.orchestration.definitions.settings import StateAwareSettings
from dagster_sao.orchestration.definitions.shared_keys import refuse_shared_keys
from dagster_sao.orchestration.definitions.translator import (
    StateAwareDbtTranslator,
    checked_translator,
    models_of,
    state_aware_spec,
)
from dagster_sao.orchestration.project.dbt_arguments import (
    DbtSettings,
    check_no_selection,
    project_with,
    read_arguments,
    settings_of,
    together,
    with_environment,
)
from dagster_sao.orchestration.project.in_memory import refuse_what_does_not_survive
from dagster_sao.orchestration.project.orchestrated import LoadedProject, OrchestratedProject, Selection
from dagster_sao.orchestration.project.parsing import ensure_manifest
from dagster_sao.orchestration.runs.config import StateAwareRunConfig
from dagster_sao.orchestration.runs.execution import Finish, execute_dbt_assets
from dagster_sao.orchestration.sources.age_checks import build_freshness_checks
from dagster_sao.orchestration.sources.sensor import build_freshness_sensor

logger = dg.get_dagster_logger("dagster_sao")


def build_state_aware_definitions(  # noqa: PLR0913
    project: DbtProject,
    *,
    assets: Sequence[Any] = (),
    translator: DagsterDbtTranslator | None = None,
    select: str = "fqn:*",
    exclude: str = "",
    selector: str = "",
    dbt: DbtCliResource | None = None,
    dbt_args: Sequence[str] = ("build",),
    variables: Mapping[str, Any] | None = None,
    include_metadata: Sequence[str] = (),
    default_sensor_status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.STOPPED,
    freshness_interval_seconds: int = 30,
    automation_interval_seconds: int = 30,
    tick_seconds: float = 40.0,
    loaded_by_dagster: Sequence[str] = (),
    probe_target: str | None = None,
    kept_dbt_folders: int = DEFAULT_KEPT,
    jobs: Sequence[StateAwareJob] = (),
) -> dg.Definitions:
    """Return the assets, the sources, the two sensors and the jobs of a dbt project.

    Args:
        project: The dbt project. Its manifest is written when there is none, and under `dagster dev` always.
        assets: Other assets of the code location. A dbt source that one of them loads is left to it, and not probed.
        translator: How dbt resources become assets: a DagsterDbtTranslator. It stays as it is, and may serve several projects.
        select: The dbt selection of what becomes an asset.
        exclude: What of it does not.
        selector: A yaml selector in their place.
        dbt: The resource that runs dbt.
        dbt_args: The dbt command of a run. `--vars`, `--target` and `--profile` in it also hold for the parse and the sensors.
        variables: Values of `var()`, for the parse and, with `--vars`, for each run.
        include_metadata: `row_count` and `column_metadata`, fetched for each model that is built.
        default_sensor_status: Whether the sensors run from the start.
        freshness_interval_seconds: Seconds between two looks at the sources.
        automation_interval_seconds: Seconds between two decisions about the models.
        tick_seconds: Seconds that a look at the sources may take; the next one goes on from there.
        loaded_by_dagster: Sources that assets of other code locations load, as `source.table` or `source.*`.
        probe_target: The target of the profile that sources are probed with, such as one with a small virtual warehouse.
        kept_dbt_folders: How many of the folders are kept that dbt writes below `target/`, and as many of runs that failed.
        jobs: Jobs over parts of the project, as `build_state_aware_job` makes them.

    Raises:
        InvalidProjectError: There is no dbt project, no manifest that can be used, a variable has two values, or assets
            have partitions.
        InvalidPolicyError: A `freshness`, `state` or `meta.dagster_sao` setting, or a number of seconds or folders, has no
            meaning.
        InvalidJobError: The selection or a setting of a job has no meaning.
    """
    find_dbt()
    check_no_selection(dbt_args, "dbt_args")
    given = together(
        [
            ("`variables`", DbtSettings(variables or {})),
            ("`dbt_args`", read_arguments(dbt_args, "dbt_args")),
            ("the DbtProject", settings_of(project)),
            ("the DbtCliResource", settings_of(dbt)),
        ]
    )
    found, environment = with_environment(project, given)
    project = project_with(project, found)
    ensure_manifest(project, found.variables)
    settings = StateAwareSettings(
        freshness_interval_seconds=freshness_interval_seconds,
        automation_interval_seconds=automation_interval_seconds,
        tick_seconds=tick_seconds,
        sensors_enabled=default_sensor_status is dg.DefaultSensorStatus.RUNNING,
        loaded_by_dagster=list(loaded_by_dagster),
        probe_target=probe_target,
        kept_dbt_folders=kept_dbt_folders,
        jobs=list(jobs),
    )
    orchestrated_project = OrchestratedProject(
        project,
        checked_translator(translator),
        variables=found.variables,
        selection=Selection(select, exclude, selector),
        probe_target=settings.probe_target,
        environment=environment,
    )
    warn_of_other_selections(orchestrated_project)
    return assemble(
        orchestrated_project,
        settings,
        assets=assets,
        dbt=dbt,
        dbt_args=dbt_args,
        include_metadata=include_metadata,
    )


def assemble(  # noqa: PLR0913 (what definitions consist of)
    orchestrated_project: OrchestratedProject,
    settings: StateAwareSettings,
    *,
    assets: Sequence[Any] = (),
    dbt: DbtCliResource | None = None,
    dbt_args: Sequence[str] = ("build",),
    include_metadata: Sequence[str] = (),
) -> dg.Definitions:
    """Return the definitions of a project that has a manifest. Raises as `build_state_aware_definitions` does."""
    settings.check()
    project, selection = orchestrated_project.dbt_project, orchestrated_project.selection
    loaded = orchestrated_project.load()
    refuse_unusable_assets(loaded)

    @dbt_assets(
        manifest=loaded.manifest,
        select=selection.select,
        exclude=selection.exclude or None,
        selector=selection.selector or None,
        name=f"{project.name}_dbt_assets",
        project=project,
        dagster_dbt_translator=loaded.translator,
        required_resource_keys={_resource_key(project)},
    )
    def dbt_models(context: dg.AssetExecutionContext, config: StateAwareRunConfig) -> Iterator[Any]:
        resource = getattr(context.resources, _resource_key(project))
        yield from execute_dbt_assets(
            context,
            resource,
            orchestrated_project,
            args=dbt_args,
            config=config,
            finish=finisher(include_metadata),
            kept_dbt_folders=settings.kept_dbt_folders,
        )

    models = models_of(
        orchestrated_project,
        loaded,
        dbt_models,
        have_conditions=isinstance(loaded.translator, StateAwareDbtTranslator),
    )
    sources = finish_project(orchestrated_project, loaded, settings, other_assets=assets)
    definitions = dg.Definitions(
        assets=[models, *sources, *assets],
        asset_checks=build_freshness_checks(orchestrated_project, loaded),
        sensors=build_sensors(orchestrated_project, models, settings),
        resources={_resource_key(project): dbt or DbtCliResource(project)},
    )
    return dg.Definitions.merge(
        definitions,
        build_jobs(orchestrated_project, models, settings.jobs, schedules_enabled=settings.sensors_enabled),
    )


def refuse_unusable_assets(loaded: LoadedProject) -> None:
    """Raise InvalidProjectError when two resources have one asset key, or when assets have partitions."""
    refuse_shared_keys(loaded)
    refuse_partitions(loaded)


def finish_project(
    project: OrchestratedProject,
    loaded: LoadedProject,
    settings: StateAwareSettings,
    *,
    other_assets: Iterable[Any] = (),
) -> list[dg.AssetSpec]:
    """Tell the project what becomes of its resources, and return its sources as external assets.

    Raises InvalidProjectError when the target cannot keep what is built.
    """
    refuse_what_does_not_survive(project, loaded)
    for warning in loaded.warnings:
        logger.warning(str(warning))
    keys = loaded.keys
    loads = {key for asset in other_assets for key in _keys_of(asset)}
    patterns = [_pattern(name) for name in settings.loaded_by_dagster]
    specs: dict[dg.AssetKey, dg.AssetSpec] = {}
    for uid, source in loaded.project.graph.sources.items():
        key = keys.by_unique_id[uid]
        if any(pattern.fullmatch(source.label) for pattern in patterns):
            loads.add(key)
        if key not in loads and not source.is_external_node:
            spec = state_aware_spec(loaded.spec(uid), source.definition)
            specs[key] = spec.replace_attributes(automation_condition=None, deps=[], skippable=False)
    project.loaded_by_dagster = frozenset(loads & {keys.by_unique_id[uid] for uid in loaded.project.graph.sources})
    return list(specs.values())


def _keys_of(asset: object) -> Iterable[dg.AssetKey]:
    """Return what an asset materializes, or observes."""
    if isinstance(asset, dg.SourceAsset):
        return [asset.key] if asset.is_observable else []
    return asset.keys if isinstance(asset, dg.AssetsDefinition) else []


def build_sensors(
    project: OrchestratedProject, models: dg.AssetsDefinition, settings: StateAwareSettings
) -> list[dg.SensorDefinition]:
    """Return a project's freshness sensor and its automation sensor."""
    return [
        build_freshness_sensor(
            project,
            name=f"{project.name}_freshness_sensor",
            interval_seconds=settings.freshness_interval_seconds,
            default_status=settings.default_sensor_status,
            tick_seconds=settings.tick_seconds,
        ),
        StateAwareAutomationSensor(
            f"{project.name}_automation_sensor",
            project=project,
            target=_target(models),
            minimum_interval_seconds=settings.automation_interval_seconds,
            default_status=settings.default_sensor_status,
            description=f"Builds the models of the dbt project {project.name} whose code or upstream data changed.",
        ),
    ]


def _target(models: dg.AssetsDefinition) -> dg.AssetSelection:
    """Return the models with their checks, and the checks on sources where there are any."""
    # As short as can be: the UI cannot abbreviate a selection that names checks.
    target = dg.AssetSelection.assets(*models.keys)
    others = [key for key in models.check_keys if key.asset_key not in models.keys]
    return target | dg.AssetSelection.checks(*others) if others else target


def finisher(include_metadata: Sequence[str]) -> Finish:
    """Return what fetches the metadata that was asked for, as dagster-dbt's component does."""

    def finish(events: Any) -> Any:  # noqa: ANN401
        if "column_metadata" in include_metadata:
            events = events.fetch_column_metadata()
        if "row_count" in include_metadata:
            events = events.fetch_row_counts()
        if "insights" in include_metadata:
            events = events.with_insights()
        return events

    return finish


def _resource_key(project: DbtProject) -> str:
    # One per project, so that the definitions of two projects can be merged.
    return f"dbt_{project.name}"


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(re.escape(name).replace(r"\*", ".*"))
