"""Refuses partitions on dbt assets: a state-aware run has no partition, so that each would build its table and then fail."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import dagster as dg

from dagster_sao.core.errors import InvalidProjectError
from dagster_sao.orchestration.private.dagster_internals import with_specs
from dagster_sao.orchestration.project.loaded import LoadedProject

_NAMED = 3


def refuse_partitions(loaded: LoadedProject, specs: Iterable[dg.AssetSpec] | None = None) -> None:
    """Raise InvalidProjectError when any of a project's assets, by default as translated, has a partitions definition."""
    if specs is None:
        specs = map(loaded.spec, loaded.project.graph.nodes)
    graph, unique_ids = loaded.project.graph, loaded.keys.unique_ids
    nodes = [graph.nodes[unique_ids[spec.key]] for spec in specs if spec.partitions_def is not None]
    if not nodes:
        return
    names = ", ".join(f"{node.label} ({node.file})" for node in nodes[:_NAMED])
    more = f" and {len(nodes) - _NAMED} more" if len(nodes) > _NAMED else ""
    have = "has a partitions definition" if len(nodes) == 1 else "have a partitions definition"
    msg = (
        f"{names}{more} {have}, and state-aware dbt assets cannot be partitioned. Remove it from the translator"
        " (`get_partitions_def`) or from `post_processing`, or leave these models out with `exclude` and load them with"
        " `@dbt_assets`."
    )
    raise InvalidProjectError(msg)


def unpartitioned(
    models: dg.AssetsDefinition, specs: Sequence[dg.AssetSpec], loaded: LoadedProject
) -> dg.AssetsDefinition:
    """Return assets with `specs`, to which nobody can give partitions later, as `post_processing` in a `defs.yaml` would."""
    return with_specs(models, specs, lambda others: refuse_partitions(loaded, others))
