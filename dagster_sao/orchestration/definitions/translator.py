"""dbt resource -> asset spec: the condition, the code version, the freshness thresholds, and the project behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster_dbt import DagsterDbtTranslator, DbtProject

from dagster_sao.core.durations import format_duration
from dagster_sao.core.errors import InvalidProjectError
from dagster_sao.core.manifest.policy import read_source_policy
from dagster_sao.orchestration.automation.condition import state_aware
from dagster_sao.orchestration.definitions.partitions import unpartitioned
from dagster_sao.orchestration.events.event_schema import ERROR_AFTER_KEY, PROJECT_METADATA_KEY, WARN_AFTER_KEY
from dagster_sao.orchestration.project.loaded import LoadedProject
from dagster_sao.orchestration.project.orchestrated import OrchestratedProject

_EMPTY_SQL = "#### Raw SQL:\n```sql\n\n```"
_NODES = ("model.", "seed.", "snapshot.")


class StateAwareDbtTranslator(DagsterDbtTranslator):
    """Translates dbt resources as DagsterDbtTranslator does, and makes models, seeds and snapshots state-aware.

    Subclass it and override its `get_*` methods as you would dagster-dbt's own. An automation condition that
    `get_automation_condition` returns takes the place of `state_aware()`. A subclass of DagsterDbtTranslator does as
    well; with this one a `get_asset_spec` that takes the condition away from a model leaves it without one.
    """

    def get_asset_spec(self, manifest: Mapping[str, Any], unique_id: str, project: DbtProject | None) -> dg.AssetSpec:
        """Return the spec of a dbt resource, with condition."""
        spec = super().get_asset_spec(manifest, unique_id, project)
        # Not in the constructor: a subclass need not call it.
        if not hasattr(self, "_state_aware_specs"):
            self._state_aware_specs = SpecMemory()
        return self._state_aware_specs.state_aware(spec, self.get_resource_props(manifest, unique_id))


class SpecMemory:
    """Makes each spec state-aware once: dagster-dbt keeps its specs, and is asked for them again for each child of a model."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[dg.AssetSpec, Mapping[str, Any], dg.AssetSpec]] = {}

    def state_aware(self, spec: dg.AssetSpec, props: Mapping[str, Any]) -> dg.AssetSpec:
        """Return what `state_aware_spec` returns."""
        unique_id = str(props["unique_id"])
        known = self._made.get(unique_id)
        if known is None or known[0] is not spec or known[1] is not props:
            known = self._made[unique_id] = spec, props, state_aware_spec(spec, props)
        return known[2]


def state_aware_spec(spec: dg.AssetSpec, props: Mapping[str, Any]) -> dg.AssetSpec:
    """Return a dbt resource's spec with what its dbt properties ask of this package."""
    unique_id = str(props["unique_id"])
    if unique_id.startswith("source."):
        # dagster-dbt shows the SQL below the description, and a source has none.
        description = (spec.description or "").replace(_EMPTY_SQL, "").strip() or None
        return spec.replace_attributes(description=description).merge_attributes(metadata=_thresholds(props))
    if not unique_id.startswith(_NODES):
        return spec
    return spec.replace_attributes(automation_condition=spec.automation_condition or state_aware())


def checked_translator(translator: object) -> DagsterDbtTranslator:
    """Return the translator that a user gave, by default one of ours.

    Raises InvalidProjectError for what is not a translator, such as its class.
    """
    if translator is None:
        return StateAwareDbtTranslator()
    if isinstance(translator, DagsterDbtTranslator):
        return translator
    given = translator.__name__ if isinstance(translator, type) else type(translator).__name__
    remedy = f"`translator={given}()`" if isinstance(translator, type) else "an instance of a subclass of it"
    msg = f"`translator` is {given}, which is not an instance of DagsterDbtTranslator. Give {remedy}."
    raise InvalidProjectError(msg)


def models_of(
    project: OrchestratedProject, loaded: LoadedProject, models: dg.AssetsDefinition, *, have_conditions: bool
) -> dg.AssetsDefinition:
    """Return the assets of a dbt project, each with its project and its code version.

    Unless they `have_conditions`, or are without one on purpose, each also has the condition.
    """

    def state_aware_model(spec: dg.AssetSpec) -> dg.AssetSpec:
        unique_id = loaded.keys.unique_ids[spec.key]
        if not have_conditions:
            spec = state_aware_spec(spec, loaded.manifest["nodes"][unique_id])
        return spec.replace_attributes(
            code_version=project.code_version(unique_id), metadata={**spec.metadata, PROJECT_METADATA_KEY: project}
        )

    return unpartitioned(models, [state_aware_model(spec) for spec in models.specs], loaded)


def _thresholds(props: Mapping[str, Any]) -> Mapping[str, str]:
    policy, _ = read_source_policy(props)
    limits = {WARN_AFTER_KEY: policy.warn_after, ERROR_AFTER_KEY: policy.error_after}
    return {name: format_duration(limit) for name, limit in limits.items() if limit is not None}
