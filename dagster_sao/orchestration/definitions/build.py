"""The definitions of a state-aware dbt project, in Python."""

# No `from __future__ import annotations` here: Dagster reads the annotation of `context` at run time.
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
from dagster_dbt import DagsterDbtTranslator, DbtCliResource, DbtProject, dbt_assets

from dagster_sao.core.errors import InvalidPolicyError
from dagster_sao.core.manifest.policy import EfficientTesting
from dagster_sao.orchestration.arguments import with_checked_arguments
from dagster_sao.orchestration.dbt.efficient_testing import DEFAULT_VERIFIED_SHARE
from dagster_sao.orchestration.dbt.invocation_folders import DEFAULT_KEPT
from dagster_sao.orchestration.definitions.assembly import assemble, execute, orchestrate
from dagster_sao.orchestration.definitions.jobs import StateAwareJob
from dagster_sao.orchestration.definitions.settings import StateAwareSettings
from dagster_sao.orchestration.definitions.translator import StateAwareDbtTranslator, checked_translator
from dagster_sao.orchestration.project.dbt_arguments import DbtSettings, check_places, command_of, settings_of
from dagster_sao.orchestration.project.loaded import LoadedProject, Selection
from dagster_sao.orchestration.project.orchestrated import OrchestratedProject
from dagster_sao.orchestration.runs.config import StateAwareRunConfig

# `StateAwareSettings.check` says which numbers they take.
_NUMBERS = (
    "freshness_interval_seconds",
    "automation_interval_seconds",
    "tick_seconds",
    "kept_dbt_folders",
    "efficient_testing",
    "verify_proofs",
)


@with_checked_arguments(InvalidPolicyError, but=("translator", *_NUMBERS))
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
    efficient_testing: EfficientTesting | str = EfficientTesting.AGGREGATE,
    verify_proofs: float = DEFAULT_VERIFIED_SHARE,
    warm_runs: bool = True,
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
        efficient_testing: How to save queries of data tests: `off`, `reuse` (proofs), `aggregate` (several tests of a relation in
            one query) or `all`.
        verify_proofs: The share of proven tests that are run all the same, 0 to 1.
        warm_runs: Whether the code server forks the processes of runs, of all that it launches, from one that has imported Dagster
            and dbt, instead of starting a new Python for each. On Linux.
        jobs: Jobs over parts of the project, as `build_state_aware_job` makes them.

    Raises:
        InvalidProjectError: There is no dbt project, no manifest that can be used, a variable has two values, assets
            have partitions, or dbt's arguments or its resource are not those that a run can have.
        InvalidPolicyError: A `freshness`, `state` or `meta.dagster_sao` setting, or one of the arguments above, has no
            meaning.
        InvalidJobError: The selection or a setting of a job has no meaning.
    """
    check_places(dbt, project)
    has_flags = dbt is not None and dbt.global_config_flags
    orchestrated_project = orchestrate(
        project,
        checked_translator(translator),
        arguments=("global_config_flags + dbt_args" if has_flags else "dbt_args", command_of(dbt, dbt_args)),
        others={
            "`variables`": DbtSettings(variables or {}),
            "the DbtProject": settings_of(project),
            "the DbtCliResource": settings_of(dbt),
        },
        selection=Selection(select, exclude, selector),
        probe_target=probe_target,
    )
    settings = StateAwareSettings(
        freshness_interval_seconds=freshness_interval_seconds,
        automation_interval_seconds=automation_interval_seconds,
        tick_seconds=tick_seconds,
        sensors_enabled=default_sensor_status is dg.DefaultSensorStatus.RUNNING,
        loaded_by_dagster=list(loaded_by_dagster),
        probe_target=probe_target,
        kept_dbt_folders=kept_dbt_folders,
        efficient_testing=efficient_testing,  # type: ignore[arg-type]  # checked by the settings
        verify_proofs=verify_proofs,
        warm_runs=warm_runs,
        jobs=list(jobs),
    )
    return define(
        orchestrated_project, settings, assets=assets, dbt=dbt, dbt_args=dbt_args, include_metadata=include_metadata
    )


def define(  # noqa: PLR0913 (what definitions consist of)
    orchestrated_project: OrchestratedProject,
    settings: StateAwareSettings,
    *,
    assets: Sequence[Any] = (),
    dbt: DbtCliResource | None = None,
    dbt_args: Sequence[str] = ("build",),
    include_metadata: Sequence[str] = (),
) -> dg.Definitions:
    """Return the definitions of a project with `@dbt_assets`. Raises as `build_state_aware_definitions` does."""
    project, selection = orchestrated_project.dbt_project, orchestrated_project.selection

    def make_models(loaded: LoadedProject) -> list[dg.AssetsDefinition]:
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
            yield from execute(
                context,
                getattr(context.resources, _resource_key(project)),
                orchestrated_project,
                settings,
                args=dbt_args,
                config=config,
                include_metadata=include_metadata,
            )

        return [dbt_models]

    definitions = assemble(
        orchestrated_project,
        settings,
        make_models,
        have_conditions=isinstance(orchestrated_project.translator, StateAwareDbtTranslator),
        other_assets=assets,
    )
    resources = dg.Definitions(resources={_resource_key(project): dbt or DbtCliResource(project)})
    return dg.Definitions.merge(definitions, resources)


def _resource_key(project: DbtProject) -> str:
    # One per project, so that the definitions of two projects can be merged.
    return f"dbt_{project.name}"
