"""Refuses what a DuckDB database in memory cannot keep: it ends with the dbt process that made it."""

from __future__ import annotations

from dagster_sao.core.errors import InvalidProjectError
from dagster_sao.orchestration.project.loaded import LoadedProject
from dagster_sao.orchestration.project.orchestrated import OrchestratedProject
from dagster_sao.orchestration.project.probed_sources import open_session_with
from dagster_sao.warehouse.adapters import traits_of
from dagster_sao.warehouse.errors import WarehouseError

_MEMORY = "memory"
"""The name of such a database in dbt-duckdb. A database in a file `memory.duckdb` has the same name."""
_SURVIVES = "external"
_NAMED = 3


def refuse_what_does_not_survive(project: OrchestratedProject, loaded: LoadedProject) -> None:
    """Raise InvalidProjectError when nodes would be kept in the memory of a process that ends with each run.

    They would count as built and be reused, and no longer be there. External models are files, and so remain.
    """
    graph = loaded.project.graph
    lost = [
        node
        for uid, node in graph.nodes.items()
        if traits_of(graph.adapter_type).is_embedded
        and str(loaded.manifest["nodes"][uid].get("database")).lower() == _MEMORY
        and node.materialized != _SURVIVES
    ]
    if not lost or not _is_in_memory(project, loaded):
        return
    names = ", ".join(f"{node.label} ({node.file})" for node in lost[:_NAMED])
    more = f" and {len(lost) - _NAMED} more" if len(lost) > _NAMED else ""
    profile = project.dbt_project.profiles_dir / "profiles.yml"
    msg = (
        f"The DuckDB target in {profile} has its database in memory (`path: ':memory:'`), so {names}{more} would be gone"
        " after the run that builds them. Give the target a file as `path`, or make these models ephemeral or external."
    )
    raise InvalidProjectError(msg)


def _is_in_memory(project: OrchestratedProject, loaded: LoadedProject) -> bool:
    try:
        # Not the target that sources are probed with.
        session = open_session_with(project, loaded, project.dbt_project.target)
    except WarehouseError:
        return False  # a broken profile is reported where it is used
    try:
        return session.is_in_memory
    finally:
        session.close()
