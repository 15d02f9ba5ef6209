"""dbt resource -> asset spec: the condition, the code version and the freshness thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster_dbt import DagsterDbtTranslator, DagsterDbtTranslatorSettings, DbtProject

from dagster_sao.core.durations import format_duration
from dagster_sao.core.policy import read_source_policy
from dagster_sao.orchestration.conditions import PROJECT_ATTRIBUTE, state_aware
from dagster_sao.orchestration.project import OrchestratedProject

_EMPTY_SQL = "#### Raw SQL:\n```sql\n\n```"
_NODES = ("model.", "seed.", "snapshot.")


class StateAwareDbtTranslator(DagsterDbtTranslator):
    """Translates dbt resources as DagsterDbtTranslator does, and makes models, seeds and snapshots state-aware.

    Subclass it and override its `get_*` methods as you would dagster-dbt's own. An automation condition that
    `get_automation_condition` returns takes the place of `state_aware()`.
    """

    def __init__(self, settings: DagsterDbtTranslatorSettings | None = None) -> None:
        """Take dagster-dbt's translator settings."""
        super().__init__(settings)
        self.orchestrated_project: OrchestratedProject | None = None
        self._state_aware_specs: dict[tuple[int, str], dg.AssetSpec] = {}

    def get_asset_spec(self, manifest: Mapping[str, Any], unique_id: str, project: DbtProject | None) -> dg.AssetSpec:
        """Return the spec of a dbt resource, with condition and code version."""
        key = (id(manifest), unique_id)
        if key not in self._state_aware_specs:
            spec = super().get_asset_spec(manifest, unique_id, project)
            props = self.get_resource_props(manifest, unique_id)
            self._state_aware_specs[key] = state_aware_spec(spec, props, self.orchestrated_project)
        return self._state_aware_specs[key]


def state_aware_spec(spec: dg.AssetSpec, props: Mapping[str, Any], project: OrchestratedProject | None) -> dg.AssetSpec:
    """Return a dbt resource's spec with what this package adds to it."""
    unique_id = str(props["unique_id"])
    if unique_id.startswith("source."):
        # dagster-dbt shows the SQL below the description, and a source has none.
        description = (spec.description or "").replace(_EMPTY_SQL, "").strip() or None
        return spec.replace_attributes(description=description).merge_attributes(metadata=_thresholds(props))
    if not unique_id.startswith(_NODES):
        return spec
    spec = spec.replace_attributes(automation_condition=spec.automation_condition or state_aware())
    fingerprint = project.code_version(unique_id) if project is not None else None
    return spec.replace_attributes(code_version=fingerprint) if fingerprint else spec


def attach_project(translator: object, project: OrchestratedProject) -> None:
    """Let the assets that `translator` describes find their project."""
    setattr(translator, PROJECT_ATTRIBUTE, project)


def _thresholds(props: Mapping[str, Any]) -> Mapping[str, str]:
    policy, _ = read_source_policy(props)
    limits = {"dagster_sao/warn_after": policy.warn_after, "dagster_sao/error_after": policy.error_after}
    return {name: format_duration(limit) for name, limit in limits.items() if limit is not None}
