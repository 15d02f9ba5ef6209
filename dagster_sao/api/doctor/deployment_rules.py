"""Rules about where a project runs: the instance, the sensors, dbt, the code location, the manifest and the profile."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
import yaml
from dagster_dbt import DbtCliResource

from dagster_sao.api.doctor.findings import Finding, Patient, Severity
from dagster_sao.orchestration.automation.condition import is_state_aware, project_behind
from dagster_sao.orchestration.private.dagster_internals import dbt_resource, switched_sensors
from dagster_sao.orchestration.project.parsing import changed_since_parse
from dagster_sao.warehouse.adapters import traits_of
from dagster_sao.warehouse.dbt_private.environment import dbt_state_switch, environment_of_dbt, other_dbt


def no_instance(patient: Patient) -> Iterator[Finding]:
    """Yield a finding when there is no Dagster instance to read the state from."""
    if patient.instance_problem:
        yield Finding(
            Severity.ERROR,
            "no-instance",
            patient.instance_problem,
            "The instance holds the state of earlier builds; without it nothing can be built",
        )


def another_dbt(patient: Patient) -> Iterator[Finding]:
    """Yield the dbt executables that belong to another Python environment than this package."""
    resources = [one for one in (patient.definitions.resources or {}).values() if isinstance(one, DbtCliResource)]
    for message in sorted({other_dbt(one.dbt_executable) for one in resources} - {""}):
        yield Finding(
            Severity.WARNING,
            "other-dbt",
            message,
            "Run `dbt --version` where Dagster runs: it must be the dbt from the same Python environment as dagster-sao",
        )


def dbt_state(patient: Patient) -> Iterator[Finding]:
    """Yield a finding when dbt State is on outside of this package's runs."""
    switch = dbt_state_switch(environment_of_dbt(patient.project.dbt_project.project_dir))
    if switch:
        yield Finding(
            Severity.INFO,
            "dbt-state",
            f"dbt State is on ({switch}). Runs switch it off for their dbt commands, because it would skip planned builds",
            "Nothing to do. Your own `dbt build` still uses dbt State, and does not count as a build here",
        )


def sensors_off(patient: Patient) -> Iterator[Finding]:
    """Yield the sensors of the project that are switched off."""
    if patient.instance is None:
        return
    switched = switched_sensors(patient.instance)
    own = [patient.project.freshness_sensor_name, patient.project.automation_sensor_name]
    for sensor in patient.definitions.get_repository_def().sensor_defs:
        is_on = switched.get(sensor.name, sensor.default_status is dg.DefaultSensorStatus.RUNNING)
        if sensor.name in own and not is_on:
            yield Finding(
                Severity.INFO,
                "sensor-off",
                f"The sensor {sensor.name} is off",
                "Switch it on in the UI under Automation, or build with a state-aware job on a schedule",
            )


def not_state_aware(patient: Patient) -> Iterator[Finding]:
    """Yield the dbt models of the code location that are not built for new data or code."""
    asset_graph = patient.definitions.get_repository_def().asset_graph
    for key in sorted(asset_graph.materializable_asset_keys):
        asset = asset_graph.get(key)
        resource, project = dbt_resource(asset.metadata), project_behind(asset.metadata)
        if resource is None or is_state_aware(asset.automation_condition):
            continue
        if project is not None and project.state_name != patient.project.state_name:
            continue  # the doctor of that project finds it
        remedy = "Return `state_aware()`, alone or with other conditions, from the translator or `post_processing`"
        if project is None:
            what = "It is loaded by plain `@dbt_assets` or `DbtProjectComponent`"
            remedy = "Load it with `build_state_aware_definitions` or `StateAwareDbtProjectComponent`"
        elif asset.automation_condition is None:
            what = "It has no automation condition"
        else:
            what = "Its automation condition does not contain `state_aware()`"
        yield Finding(
            Severity.WARNING if asset.automation_condition is None else Severity.INFO,
            "not-state-aware",
            f"{what}, so new data and changed code do not build it",
            remedy,
            str(resource["name"]),
            str(resource.get("original_file_path") or ""),
        )


def old_manifest(patient: Patient) -> Iterator[Finding]:
    """Yield a finding when files or variables have changed since the manifest was parsed."""
    changed = changed_since_parse(patient.project.dbt_project, patient.project.variables)
    if changed:
        yield Finding(
            Severity.WARNING,
            "old-manifest",
            f"{changed} after the manifest was parsed, so the plan does not include it",
            "Run `dbt parse` when you deploy, or `project.prepare_if_dev()` in the code location",
            file=str(patient.project.dbt_project.manifest_path),
        )


def no_retries(patient: Patient) -> Iterator[Finding]:
    """Yield the DuckDB targets whose builds fail when the freshness sensor reads the file."""
    path = patient.project.dbt_project.profiles_dir / "profiles.yml"
    for name, output in _duckdb_outputs(patient):
        if not (output.get("retries") or {}).get("connect_attempts"):
            yield Finding(
                Severity.WARNING,
                "no-retries",
                f"The DuckDB target {name} has no `retries`, so a build fails if the freshness sensor is reading the file",
                "Add `retries: {connect_attempts: 6, retryable_exceptions: [IOException]}` to the target",
                file=str(path),
            )


def _duckdb_outputs(patient: Patient) -> Iterator[tuple[str, Mapping[str, Any]]]:
    dbt_project = patient.project.dbt_project
    try:
        profiles = yaml.safe_load((dbt_project.profiles_dir / "profiles.yml").read_text(encoding="utf-8")) or {}
        settings = yaml.safe_load((dbt_project.project_dir / "dbt_project.yml").read_text(encoding="utf-8")) or {}
        profile = profiles[dbt_project.profile or settings["profile"]]
        outputs = dict(profile["outputs"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError):
        return
    target = dbt_project.target or profile.get("target")
    for name, output in outputs.items():
        # A target given as a Jinja expression may be any of them.
        is_meant = target == name or target not in outputs
        if is_meant and isinstance(output, Mapping) and traits_of(str(output.get("type"))).is_embedded:
            path = str(output.get("path") or ":memory:")
            if not path.startswith((":memory:", "md:", "motherduck:")):
                yield name, output
