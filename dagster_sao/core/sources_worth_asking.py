"""Which sources are worth asking: those of which a node below could act on the answer."""

from __future__ import annotations

from datetime import datetime

from dagster_sao.core.manifest.graph import ProjectGraph
from dagster_sao.core.project import Project
from dagster_sao.core.state.state import StateSnapshot


def wanted_sources(project: Project, state: StateSnapshot, now: datetime) -> set[str]:
    """Return the sources whose new data could lead to a build now.

    A node within its `build_after` does nothing about new data, and so nothing below it does. A view asks for what reads
    it, and for itself when nothing does: its source is then shown as it is. A test asks for nothing while what it gates
    waits: it comes before that.
    """
    graph = project.graph
    wants: dict[str, bool] = {}
    for uid in reversed(list(graph.nodes)):
        children = graph.children[uid]
        if graph.nodes[uid].is_view and children:
            wants[uid] = any(wants[child] for child in children)
        else:
            wants[uid] = not _waits(uid, project, state, now)
    return {
        uid
        for uid in graph.sources
        if any(wants[child] for child in graph.children[uid]) or _is_only_tested(uid, graph)
    }


def _is_only_tested(source: str, graph: ProjectGraph) -> bool:
    """Return whether tests alone read a source: nothing else waits, so they need not either."""
    return not graph.children[source] and source in graph.tests_about


def _waits(unique_id: str, project: Project, state: StateSnapshot, now: datetime) -> bool:
    build_after, build = project.policy(unique_id).build_after, state.builds.get(unique_id)
    if build_after is None or build is None or unique_id in state.failures:
        return False
    return now < build.started_at + build_after
