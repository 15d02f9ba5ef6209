"""Runs all rules of the doctor over a project."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from dagster_sao.api.doctor import data_rules, deployment_rules, model_rules
from dagster_sao.api.doctor.findings import Finding, Findings, Patient, Severity

_RULES: tuple[Callable[[Patient], Iterator[Finding]], ...] = (
    deployment_rules.no_instance,
    deployment_rules.not_state_aware,
    deployment_rules.another_dbt,
    deployment_rules.old_manifest,
    model_rules.settings_without_meaning,
    model_rules.waits_for_the_unchanging,
    data_rules.untracked_sources,
    data_rules.nodes_with_untracked_inputs,
    data_rules.own_effects,
    data_rules.unsound_metadata,
    deployment_rules.no_retries,
    deployment_rules.sensors_off,
    model_rules.schedules_as_often_as_models,
    model_rules.waiting_views,
    model_rules.long_view_chains,
    deployment_rules.dbt_state,
)


def examine(patient: Patient) -> Findings:
    """Return the findings of all rules, the worst first."""
    found = [finding for rule in _RULES for finding in rule(patient)]
    order = list(Severity)
    return Findings(patient.project.name, tuple(sorted(found, key=lambda finding: order.index(finding.severity))))
