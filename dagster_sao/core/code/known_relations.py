"""Which relations dbt knows that a node reads, and which others its SQL names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from dagster_sao.core.code.fingerprinter import Fingerprinter
from dagster_sao.core.durations import format_duration
from dagster_sao.core.manifest.graph import ProjectGraph
from dagster_sao.core.manifest.policy import Policy, SettingWarning
from dagster_sao.sql.compiled_sql import relation_key
from dagster_sao.sql.python.libraries import IMPORT


class KnownRelations:
    """The relations of a project's nodes and sources, by the names that SQL has for them."""

    def __init__(self, graph: ProjectGraph) -> None:
        """Take the graph."""
        self._graph = graph
        self._keys: dict[str, str] = {}

    def key(self, relation_name: str | None) -> str:
        """Return the name by which a relation is compared, empty for none."""
        return relation_key(relation_name, self._graph.adapter_type) if relation_name else ""

    def keys_of(self, unique_ids: Iterable[str]) -> frozenset[str]:
        """Return the names of the relations of nodes and sources, without those that have none."""
        return frozenset(map(self._key_of, unique_ids)) - {""}

    def _key_of(self, unique_id: str) -> str:
        # Parsed once, and only of what something asks for.
        if unique_id not in self._keys:
            item = self._graph.nodes.get(unique_id) or self._graph.sources.get(unique_id)
            self._keys[unique_id] = self.key(item.relation_name) if item is not None else ""
        return self._keys[unique_id]


def is_among(name: str, known: Iterable[str]) -> bool:
    """Return whether a name, which may lack its database, is one of `known`.

    A name without a schema is not, since it is up to the session whether `orders` is the model or the source of that name.

    >>> is_among("raw.orders", {"db.raw.orders"}), is_among("orders", {"db.raw.orders"})
    (True, False)
    """
    return bool(name) and any(key == name or ("." in name and key.endswith(f".{name}")) for key in known)


def unknown_relation_warnings(code: Fingerprinter, policies: Mapping[str, Policy]) -> Iterator[SettingWarning]:
    """Yield a warning for each node whose SQL spells out a relation or a file that dbt does not know."""
    known = KnownRelations(code.graph)
    for uid, node in code.graph.nodes.items():
        named = code.relations_spelled_out(node)
        if not named:
            continue
        readable = known.keys_of([*node.parents, uid])
        unknown = [name for name in named if not is_among(name, readable)]
        if unknown:
            interval = format_duration(policies[uid].untracked_interval)
            text = f"{reads_unknown(unknown)}. Until then it counts as updated every {interval}."
            yield SettingWarning(node.name, node.file, text)


def reads_unknown(names: Iterable[str]) -> str:
    """Return the message about a node that reads relations or files, or imports libraries, that dbt does not know.

    >>> reads_unknown(["raw.rates"])
    'reads raw.rates, which dbt does not know: add a source'
    >>> reads_unknown(["import acme"])
    'has `import acme`, which may read anything: name it in `meta.dagster_sao.trusted_imports` if it does not'
    """
    labels = [*names]
    libraries = [name for name in labels if name.startswith(IMPORT)]
    inputs = [name for name in labels if name not in libraries]
    said = [f"reads {', '.join(inputs)}, which dbt does not know: add a source"] if inputs else []
    if libraries:
        said.append(
            f"has {', '.join(f'`{name}`' for name in libraries)}, which may read anything: name"
            " it in `meta.dagster_sao.trusted_imports` if it does not"
        )
    return "; ".join(said)
