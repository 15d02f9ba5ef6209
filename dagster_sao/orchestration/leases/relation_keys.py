"""The keys of relations: of the lease on a relation, and of its last writer.

A lease may cover too much, never too little: its key ignores case, quotes and the warehouse. The record of a writer
belongs to exactly one relation of one warehouse.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dagster_sao.core.code.versions import digest
from dagster_sao.core.manifest.graph import ProjectGraph
from dagster_sao.orchestration.project.loaded import LoadedProject
from dagster_sao.warehouse.relations.names import parse_relation_name


def lease_keys(project_name: str, graph: ProjectGraph) -> Mapping[str, str]:
    """Return the key of the lease of each node and function, the same for every spelling of a name."""
    adapter = graph.adapter_type
    nodes = {
        uid: digest([adapter, _lowered(node.relation_name or f"{project_name}.{uid}", adapter)])
        for uid, node in graph.nodes.items()
    }
    functions = {
        uid: digest([adapter, "function", _lowered(function.relation_name, adapter)])
        for uid, function in graph.functions.items()
    }
    return {**nodes, **functions}


def writer_keys(loaded: LoadedProject) -> Mapping[str, str]:
    """Return a key for the relation of each node, the same for each node, target and project that writes the relation.

    Empty where the warehouse of the names is not known. A node without a relation has no key.
    """
    nodes = loaded.project.graph.nodes
    names = {uid: node.relation_name for uid, node in nodes.items() if node.relation_name}
    keys = {uid: key for uid, name in names.items() if (key := writer_key(loaded, name))}
    # The rows of an external model of dbt-duckdb are in its file, whatever the name of the view on it.
    files = {uid: nodes[uid].settings.file for uid in keys if nodes[uid].settings.file}
    return {**keys, **{uid: _key_of_file(loaded, file) for uid, file in files.items()}}


def writer_key(loaded: LoadedProject, relation_name: str) -> str:
    """Return the key for a relation of this name; empty where the warehouse of the name is not known."""
    place, adapter = loaded.warehouse, loaded.project.graph.adapter_type
    return digest([adapter, place, _parts(relation_name, adapter)]) if place else ""


def _key_of_file(loaded: LoadedProject, file: str) -> str:
    path = Path(loaded.dbt_project.project_dir, file).resolve()
    return digest([loaded.project.graph.adapter_type, "file", str(path)])


def _lowered(text: str, adapter: str) -> list[str]:
    parts = _parts(text.lower(), adapter)
    return [part.lower() for part in parts] if isinstance(parts, list) else [parts]


def _parts(text: str, adapter: str) -> list[str] | str:
    """Return the parts of a relation's name, or the text as it is where it is not a plain name."""
    name = parse_relation_name(text, adapter)
    return [name.database, name.schema, name.identifier] if name is not None else text
