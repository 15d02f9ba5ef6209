"""What a node follows from in the end: the code at and above it, and the data of the sources.

What runs built meanwhile is not in it, so a run that was killed half way is no news to what it was to build.
"""

from __future__ import annotations

from collections.abc import Mapping

from dagster_sao.core.code.versions import digest
from dagster_sao.core.project import Project
from dagster_sao.core.state.state import StateSnapshot


def origins(project: Project, state: StateSnapshot) -> Mapping[str, str]:
    """Return for each node and source what tells that it, or something above it, has other code or data than before."""
    found = {uid: source.version for uid, source in state.sources.items()}
    for uid, node in project.graph.nodes.items():
        found[uid] = digest([project.fingerprints[uid].digest, [found.get(parent, "") for parent in node.parents]])
    return found
