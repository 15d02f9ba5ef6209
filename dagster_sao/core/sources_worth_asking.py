"""Which sources to probe: only those whose new data could trigger a build now."""

from __future__ import annotations

from datetime import datetime

from dagster_sao.core.decision.view_rules import asks_parents
from dagster_sao.core.durations import is_waiting
from dagster_sao.core.manifest.graph import ProjectGraph
from dagster_sao.core.project import Project
from dagster_sao.core.state.state import StateSnapshot


def wanted_sources(project: Project, state: StateSnapshot, now: datetime) -> set[str]:
    """Return the sources whose new data could lead to a build now.

    A node within its `build_after` ignores new data, and so do the nodes below it. A view counts as its children do. One
    without children counts, so that its source is shown as it is; so does one whose templates query its parents, since it is
    created anew for their new data. A test does not count while the nodes that it gates wait, because it runs right before
    them.
    """
    graph = project.graph
    wants: dict[str, bool] = {}
    for uid in reversed(list(graph.nodes)):
        children = graph.children[uid]
        if graph.nodes[uid].is_view and children and not _asks(uid, project, state):
            wants[uid] = any(wants[child] for child in children)
        else:
            wants[uid] = not _waits(uid, project, state, now)
    return {
        uid
        for uid in graph.sources
        if any(wants[child] for child in graph.children[uid]) or _is_only_tested(uid, graph)
    }


def _asks(uid: str, project: Project, state: StateSnapshot) -> bool:
    build = state.builds.get(uid)
    return build is not None and asks_parents(project.graph.nodes[uid], project, build.evidence)


def _is_only_tested(source: str, graph: ProjectGraph) -> bool:
    """Return whether only tests read a source: they wait for no node."""
    return not graph.children[source] and source in graph.tests_about


def _waits(unique_id: str, project: Project, state: StateSnapshot, now: datetime) -> bool:
    build_after, build = project.policy(unique_id).build_after, state.builds.get(unique_id)
    if build_after is None or build is None or unique_id in state.failures:
        return False
    return is_waiting(now, build.started_at, build_after)
