"""Probe sources and list relations through dbt's own adapter. Nothing here imports Dagster."""

from dagster_sao.core.manifest.graph import Source
from dagster_sao.warehouse.errors import StatementError, WarehouseBusyError, WarehouseError
from dagster_sao.warehouse.probes.registry import Observation, Probe, ProbeKind, SourceProber
from dagster_sao.warehouse.relations.listing import Existence, Presence, existing_relations
from dagster_sao.warehouse.session import WarehouseSession

__all__ = [
    "Existence",
    "Observation",
    "Presence",
    "Probe",
    "ProbeKind",
    "Source",
    "SourceProber",
    "StatementError",
    "WarehouseBusyError",
    "WarehouseError",
    "WarehouseSession",
    "existing_relations",
]
