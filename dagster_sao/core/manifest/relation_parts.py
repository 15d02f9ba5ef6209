"""What of relations is code: the names of those that stored SQL reads, and the columns that a contract gives to a node's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from dagster_sao.core.manifest.graph import Node, ProjectGraph

_WITHOUT_STORED_SQL = frozenset({"incremental", "seed", "snapshot", "table"})
_OF_COLUMNS = frozenset(
    {
        "config", "constraints", "data_type", "description", "dimension", "doc_blocks", "entity", "granularity", "meta", "name", "quote", "tags",
    }
)  # fmt: skip
"""What dbt itself knows of a column. All else is a setting of an adapter."""


def parts_of_parents(
    node: Node, graph: ProjectGraph, entries: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, str, object]]:
    """Yield by parent and name what a node's build depends on of its parents, beside their rows.

    `entries` are the manifest's, by unique id. A parent with another relation has another version too, so that rows are built again.
    But what stores its SQL, as a view does, would go on to read the old relation.
    """
    if node.materialized not in _WITHOUT_STORED_SQL:
        yield from stored_names(node.parents, graph)
    if node.settings.batches is not None:
        # dbt filters each batch by it: https://docs.getdbt.com/reference/resource-configs/event-time
        sources = (graph.sources[parent] for parent in node.parents if parent in graph.sources)
        filtered = [(source.unique_id, f"source: {source.label}", source.definition) for source in sources]
        filtered += [(uid, f"ephemeral: {entries[uid]['name']}", entries[uid]) for uid in node.ephemerals]
        for unique_id, name, definition in filtered:
            if event_time := (definition.get("config") or {}).get("event_time"):
                yield unique_id, name, ["event_time", event_time]


def stored_names(parents: Iterable[str], graph: ProjectGraph) -> Iterator[tuple[str, str, object]]:
    """Yield by parent and name the relations of parents, for SQL that the warehouse keeps; those of sources are parts of all code."""
    for node in (graph.nodes[parent] for parent in parents if parent in graph.nodes):
        yield node.unique_id, f"relation: {node.name}", node.relation_name


def contract_of(props: Mapping[str, Any]) -> list[Any]:
    """Return what an enforced contract says of a relation's columns: https://docs.getdbt.com/reference/resource-configs/contract."""
    columns = (props.get("columns") or {}).values()
    found: list[Any] = [
        props.get("constraints"),
        [[c.get("name"), c.get("data_type"), c.get("constraints")] for c in columns],
    ]
    if quoted := [[c.get("name"), c["quote"]] for c in columns if c.get("quote") is not None]:
        found.append(quoted)
    if ((props.get("config") or {}).get("contract") or {}).get("alias_types") is False:
        found.append("types as they are written")
    return found


def settings_of_columns(props: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the settings of adapters at a relation's columns, by column, such as `policy_tags`: they need no contract.

    >>> settings_of_columns({"columns": {"id": {"name": "id", "description": "key", "policy_tags": ["secret"]}}})
    {'id': {'policy_tags': ['secret']}}
    """
    columns = (props.get("columns") or {}).values()
    found = {str(c.get("name")): {name: c[name] for name in c if name not in _OF_COLUMNS} for c in columns}
    return {name: settings for name, settings in found.items() if settings}
