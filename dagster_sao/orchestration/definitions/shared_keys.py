"""Refuses asset keys that two resources of a dbt project share: state is kept by asset key."""

from __future__ import annotations

import dagster as dg

from dagster_sao.core.errors import InvalidProjectError
from dagster_sao.core.manifest.graph import Source
from dagster_sao.orchestration.project.loaded import LoadedProject


def refuse_shared_keys(loaded: LoadedProject) -> None:
    """Raise InvalidProjectError when two models, two sources, or a source and a model have one asset key."""
    graph, keys = loaded.project.graph, loaded.keys.by_unique_id
    owners: dict[dg.AssetKey, str] = {}
    for uid in (*graph.nodes, *graph.sources):
        first = owners.setdefault(keys[uid], uid)
        if first != uid:
            msg = (
                f"{_both(loaded, first, uid)} have the same asset key {keys[uid].to_user_string()}."
                " Give one of them another key with `meta.dagster.asset_key`."
            )
            raise InvalidProjectError(msg)


def _both(loaded: LoadedProject, first: str, second: str) -> str:
    graph = loaded.project.graph
    one, other = (graph.nodes.get(uid) or graph.sources[uid] for uid in (first, second))
    if isinstance(one, Source):  # sources come last
        return f"The sources {one.label} and {other.label} ({other.file})"
    if isinstance(other, Source):
        return f"The model {one.label} ({one.file}) and the source {other.label} ({other.file})"
    return f"The models {one.label} ({one.file}) and {other.label} ({other.file})"
