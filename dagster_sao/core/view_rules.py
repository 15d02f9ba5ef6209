"""What a view's stored definition is bound to, and what the columns of a node follow from. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from dagster_sao.core.fingerprint import Fingerprint
from dagster_sao.core.graph import Node, NodeKind, ProjectGraph
from dagster_sao.core.project import Project
from dagster_sao.core.state import LastBuild
from dagster_sao.core.versions import digest

# Replacing a table there drops or strands the views that read it.
_DROPS_DEPENDENT_VIEWS = frozenset({"postgres", "redshift"})
_MATERIALIZED_VIEW = "materialized_view"
_REPLACED_WHEN_BUILT = frozenset({"table", "view"})


def drops_dependent_views(graph: ProjectGraph) -> bool:
    """Return whether replacing a table of a project drops or strands the views that read it."""
    return graph.adapter_type in _DROPS_DEPENDENT_VIEWS


def shape(node: Node, project: Project, shapes: Mapping[str, str]) -> str:
    """Return what the columns of a newly built node follow from: its code, and those it selects `*` from."""
    code = project.fingerprints[node.unique_id].digest
    if node.unique_id not in project.stars:
        return code
    return digest([code, [shapes.get(parent, "") for parent in node.parents]])


def replaces_relation(
    node: Node, fingerprint: Fingerprint, last_build: LastBuild | None, *, full_refresh: bool
) -> bool:
    """Return whether a build replaces the node's relation; otherwise it only changes rows of it.

    Other code may mean another materialization, so an incremental model with changed code counts as replaced.
    """
    return (
        node.materialized in _REPLACED_WHEN_BUILT
        or full_refresh
        or last_build is None
        or last_build.fingerprint.digest != fingerprint.digest
    )


def definition_inputs(
    node: Node, project: Project, shapes: Mapping[str, str], replaced_in: Mapping[str, str]
) -> dict[str, str]:
    """Return a marker for each parent that the stored definition of a view is bound to.

    A view that selects `*` is bound to its parents' columns. Where replacing a table drops the views on it, a view is
    bound to each parent's relation: to the run in which it was last replaced.
    """
    drops_views = drops_dependent_views(project.graph)
    if not (is_dropped(node.unique_id, project.graph) if drops_views else node.is_view):
        return {}
    parents = [parent for parent in node.parents if parent in project.graph.nodes]
    if drops_views:
        return {parent: replaced_in.get(parent, "") for parent in parents}
    if node.unique_id in project.stars:
        return {parent: shapes.get(parent, "") for parent in parents}
    return {}


def view_leaves(node: Node, graph: ProjectGraph) -> list[str]:
    """Return what a node reads through views: the nearest ancestors behind them that are no views."""
    leaves: dict[str, None] = {}
    stack = [parent for parent in node.parents if _is_view(graph, parent)]
    seen = set(stack)
    while stack:
        for parent in graph.nodes[stack.pop()].parents:
            if not _is_view(graph, parent):
                leaves[parent] = None
            elif parent not in seen:
                seen.add(parent)
                stack.append(parent)
    return list(leaves)


def is_dropped(unique_id: str, graph: ProjectGraph) -> bool:
    """Return whether a node's relation is dropped with a table that it reads, where views are."""
    node = graph.nodes[unique_id]
    return node.is_view or node.materialized == _MATERIALIZED_VIEW


def _is_view(graph: ProjectGraph, unique_id: str) -> bool:
    node = graph.nodes.get(unique_id)
    return node is not None and node.kind is NodeKind.VIEW
