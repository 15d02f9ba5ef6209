"""The origin of a node: the code of the node and of all nodes above it, and the data of the sources.

Builds do not change it. So what a killed run had built is no news to the nodes that it did not reach.
"""

from __future__ import annotations

from collections.abc import Mapping

from dagster_sao.core.code.versions import digest
from dagster_sao.core.project import Project
from dagster_sao.core.state.state import StateSnapshot


def origins(project: Project, state: StateSnapshot) -> Mapping[str, str]:
    """Return a digest for each node and source that changes when its code or data, or anything above it, changes."""
    found = {uid: source.version for uid, source in state.sources.items()}
    for uid, node in project.graph.nodes.items():
        found[uid] = digest([project.fingerprints[uid].digest, [found.get(parent, "") for parent in node.parents]])
    return found
