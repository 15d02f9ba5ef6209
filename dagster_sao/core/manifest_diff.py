"""What differs between two manifests of one project, told by fingerprints: dbt's `state:` without its false alarms.

The manifests may be of two environments, so where they put their relations does not count, unless the project says so
itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from dagster_sao.core.code.fingerprint import RELATION_NAME
from dagster_sao.core.code.fingerprinter import Fingerprinter
from dagster_sao.core.errors import InvalidSelectionError

_CONFIG = "config: "
_RELATION_OF_PARENT = "relation: "
_PLACE = ("database", "schema", "alias")
# The parts of a fingerprint that dbt's `state:modified.…` asks for. Descriptions are never part of what is built.
_ASPECTS: Mapping[str, tuple[str, ...]] = {
    "modified.body": ("sql", "file", "ephemeral: ", "function: "),
    "modified.configs": (_CONFIG,),
    "modified.persisted_descriptions": (),
    "modified.relation": (RELATION_NAME,),
    "modified.macros": ("macro: ",),
    "modified.contract": ("config: contract",),
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """The differences between the nodes and sources of two manifests."""

    new: frozenset[str]
    """The unique ids that the other manifest does not have."""
    changed: Mapping[str, tuple[str, ...]]
    """By unique id, the names of the parts that differ; without those that are new."""
    unchanged: frozenset[str]

    def select(self, criterion: str) -> AbstractSet[str]:
        """Return the unique ids that `state:<criterion>` means.

        Raises InvalidSelectionError for a criterion that dbt does not have either.
        """
        if criterion == "new":
            return self.new
        if criterion == "old":
            return self.unchanged | self.changed.keys()
        if criterion == "modified":
            return self.new | self.changed.keys()
        if criterion == "unmodified":
            return self.unchanged
        if criterion not in _ASPECTS:
            known = ", ".join(["new", "old", "modified", "unmodified", *_ASPECTS])
            msg = f"Unknown criterion 'state:{criterion}': use one of {known}."
            raise InvalidSelectionError(msg)
        changed = {uid for uid, parts in self.changed.items() if _has(parts, criterion)}
        # As in dbt, a new node counts as modified in everything but its macros.
        return changed if criterion == "modified.macros" else self.new | changed


def compare(current: Fingerprinter, other: Fingerprinter) -> Comparison:
    """Return how `current` differs from `other`, each made of a manifest without its environment.

    Ephemeral models are left out: a change of one is a change of the nodes that inline it.
    """
    pairs = {uid: _changes(uid, current, other) for uid in current.graph.nodes}
    pairs.update({uid: tuple(_source_changes(uid, current, other)) for uid in current.graph.sources})
    old = {*other.graph.nodes, *other.graph.sources}
    return Comparison(
        new=frozenset(uid for uid in pairs if uid not in old),
        changed={uid: parts for uid, parts in pairs.items() if parts and uid in old},
        unchanged=frozenset(uid for uid, parts in pairs.items() if not parts and uid in old),
    )


def without_environment(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return a manifest in which relations are named as the project's files spell them, before rendering."""
    return {
        **manifest,
        "nodes": {uid: _node_as_written(props) for uid, props in manifest["nodes"].items()},
        "sources": {uid: _source_as_written(props) for uid, props in manifest["sources"].items()},
        "functions": {uid: {**props, **_place_as_written(props)} for uid, props in _functions(manifest).items()},
    }


def _changes(unique_id: str, current: Fingerprinter, other: Fingerprinter) -> tuple[str, ...]:
    before = other.graph.nodes.get(unique_id)
    if before is None:
        return ()
    node = current.graph.nodes[unique_id]
    written, written_before = current.written_config(node), other.written_config(before)
    # Another target is not a change; another template is.
    kept = {
        f"{_CONFIG}{name}" for name, text in written.items() if _is_template(text) and written_before.get(name) == text
    }
    changes = current.fingerprint(node).changes_since(other.fingerprint(before))
    return tuple(part for part in changes if part not in kept and not part.startswith(_RELATION_OF_PARENT))


def _source_changes(unique_id: str, current: Fingerprinter, other: Fingerprinter) -> Iterator[str]:
    before = other.graph.sources.get(unique_id)
    if before is not None and before.relation_name != current.graph.sources[unique_id].relation_name:
        yield RELATION_NAME


def _has(parts: tuple[str, ...], criterion: str) -> bool:
    if criterion == "modified.configs":
        parts = tuple(part for part in parts if part != RELATION_NAME)
    return any(part.startswith(_ASPECTS[criterion]) for part in parts)


def _functions(manifest: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    return manifest.get("functions") or {}


def _node_as_written(props: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**props, "relation_name": ".".join(_place_as_written(props).values())}


def _place_as_written(props: Mapping[str, Any]) -> Mapping[str, str]:
    config, written = props.get("config") or {}, props.get("unrendered_config") or {}
    return {key: str(written.get(key) or config.get(key) or "") for key in _PLACE}


def _source_as_written(props: Mapping[str, Any]) -> Mapping[str, Any]:
    # An older dbt did not keep them: then the rendered names are the best there is.
    database = props.get("unrendered_database") if "unrendered_database" in props else props.get("database")
    schema = props.get("unrendered_schema") if "unrendered_schema" in props else props.get("schema")
    place = [str(database or ""), str(schema or props["source_name"]), str(props.get("identifier") or props["name"])]
    return {**props, "relation_name": ".".join(place)}


def _is_template(value: object) -> bool:
    return isinstance(value, str) and ("{{" in value or "{%" in value)
