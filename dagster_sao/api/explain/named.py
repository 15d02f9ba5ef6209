"""Finds nodes and tests by the names that people use."""

from __future__ import annotations

from dagster_sao.core.errors import UnknownNodeError
from dagster_sao.core.manifest.graph import ProjectGraph
from dagster_sao.core.suggestions import did_you_mean, nearest_names
from dagster_sao.orchestration.project.loaded import LoadedProject
from dagster_sao.orchestration.selection.resolve import find_node


def find_named(loaded: LoadedProject, name: str) -> str:
    """Return the unique id of the node or test of a name. Raises UnknownNodeError."""
    graph = loaded.project.graph
    if name in graph.tests:
        return name
    try:
        uid = find_node(loaded, name)
    except UnknownNodeError as error:
        return _find_test(graph, name, error)
    if uid in graph.sources:
        msg = f"{graph.label(uid)} is a source, which is not built. `sources` shows its state."
        raise UnknownNodeError(msg)
    return uid


def _find_test(graph: ProjectGraph, name: str, unknown: UnknownNodeError) -> str:
    """Return the unique id of the test of a name. Raises UnknownNodeError, which begins with the message of `unknown`."""
    found = sorted(uid for uid, test in graph.tests.items() if test.name == name)
    if len(found) == 1:
        return found[0]
    if found:
        msg = f"{len(found)} tests of {graph.project_name} are named '{name}': name one of {', '.join(found)}."
        raise UnknownNodeError(msg) from None
    near = nearest_names(name, (test.name for test in graph.tests.values()))
    if not near:
        raise unknown
    msg = f"{unknown}{did_you_mean(near, 'the test ')}"
    raise UnknownNodeError(msg) from None
