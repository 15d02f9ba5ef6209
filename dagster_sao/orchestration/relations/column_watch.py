"""Notes the columns of sources and of the relations that views are bound to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from dagster_sao.core.decision.view_rules import follows_columns, has_definition
from dagster_sao.core.manifest.graph import Node, Source
from dagster_sao.core.state.state import StateSnapshot
from dagster_sao.orchestration.project.loaded import LoadedProject
from dagster_sao.orchestration.state.read_state import ProjectView
from dagster_sao.orchestration.state.relation_notes import Columns, last_build_id, read_columns, write_columns
from dagster_sao.warehouse.adapters import traits_of
from dagster_sao.warehouse.relations.listing import Existence, Presence
from dagster_sao.warehouse.relations.names import parse_relation_name

Recheck = Callable[[], tuple[StateSnapshot, Collection[str]]]
"""Returns the state, and the nodes that runs are writing, after the warehouse was queried."""


def relations_with_columns(loaded: LoadedProject) -> dict[str, Node | Source]:
    """Return the sources that some node reads and the parents of stored definitions, where the warehouse lists columns."""
    project = loaded.project
    graph = project.graph
    if not traits_of(graph.adapter_type).lists_columns:
        return {}
    found: dict[str, Node | Source] = {uid: source for uid, source in graph.sources.items() if graph.children[uid]}
    bound = (node for node in graph.nodes.values() if has_definition(node, project))
    read = {parent for node in bound if follows_columns(node, project) or not node.is_view for parent in node.parents}
    found.update({uid: node for uid, node in graph.nodes.items() if uid in read})
    # No catalog lists a file that is read as a table.
    return {
        uid: relation
        for uid, relation in found.items()
        if relation.relation_name and parse_relation_name(relation.relation_name, graph.adapter_type)
    }


def unseen_columns(loaded: LoadedProject, state: StateSnapshot, nodes: Iterable[str]) -> dict[str, Node | Source]:
    """Return the sources and nodes at or above `nodes` that exist and whose current columns are unknown."""
    graph, wanted = loaded.project.graph, set(nodes)
    read = wanted | graph.ancestors(wanted)
    return {
        uid: relation
        for uid, relation in relations_with_columns(loaded).items()
        if uid in read and uid not in state.columns and (uid in graph.sources or uid in state.builds)
    }


def note_columns(view: ProjectView, found: Mapping[str, Existence], recheck: Recheck) -> None:
    """Keep the columns in `found`, which the warehouse listed after the state in `view` was read.

    Columns that could not be listed this time are unknown until a later listing.
    """
    state, state_name = view.state, view.project.state_name
    before = read_columns(view.instance, state_name)
    seen, hidden = dict(before.seen), set(before.hidden)
    for uid, existence in found.items():
        if existence.columns is not None:
            seen[uid] = (last_build_id(uid, state), existence.columns)
            hidden.discard(uid)
        elif existence.presence is not Presence.MISSING and uid in seen:
            hidden.add(uid)
    project = view.loaded.project
    if Columns(seen, before.bound, frozenset(hidden)).learned(state, project) == before:
        return
    # A run may have started meanwhile and replaced what was listed.
    after, building = recheck()
    moved = [uid for uid in seen if uid in building or last_build_id(uid, after) != last_build_id(uid, state)]
    for uid in moved:
        seen.pop(uid, None)
    seen.update({uid: before.seen[uid] for uid in moved if uid in before.seen})
    columns = Columns(seen, before.bound, frozenset(hidden)).learned(after, project)
    write_columns(view.instance, state_name, columns)
