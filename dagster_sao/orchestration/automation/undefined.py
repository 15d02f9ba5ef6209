"""Models that the manifest has and the definitions do not: Dagster cannot run an asset that it does not know.

A sensor reads a new manifest at its next tick, while the assets stay as they were when the definitions loaded. So a new model,
or one whose schema and so its asset key changed, is in no plan until then.
"""

from __future__ import annotations

import dagster as dg

from dagster_sao.orchestration.project.loaded import LoadedProject

_NAMED = 5


def undefined_line(loaded: LoadedProject, repository: dg.RepositoryDefinition | None) -> str:
    """Return a sentence about the models that are no assets of the code location, empty where all are."""
    if repository is None:
        return ""
    defined = repository.asset_graph.get_all_asset_keys()
    graph, keys = loaded.project.graph, loaded.keys
    names = sorted(graph.label(uid) for uid in keys.nodes if keys.by_unique_id[uid] not in defined)
    if not names:
        return ""
    more = [f"and {len(names) - _NAMED} more"] if len(names) > _NAMED else []
    return (
        f"Not built, since the definitions do not have their asset keys: {', '.join([*names[:_NAMED], *more])}."
        " Reload the code location."
    )
