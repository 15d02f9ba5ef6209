"""The templates and macros that a node, test or function is made of, grouped by the context in which dbt renders them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dagster_sao.core.code.text_facts import TextFacts
from dagster_sao.core.manifest import inert_settings
from dagster_sao.core.manifest.functions import Function
from dagster_sao.core.manifest.graph import Node, ProjectTest
from dagster_sao.core.manifest.macros import Macros
from dagster_sao.sql.jinja_reads import Read
from dagster_sao.sql.volatility import is_volatile

HOOKS = ("pre-hook", "post-hook")
_ASKS = frozenset(
    {
        "adapter", "builtins", "context", "get_column_schema_from_query", "get_columns_in_query", "get_columns_in_relation",
        "load_cached_relation", "load_relation", "load_result", "run_query", "statement",
    }
)  # fmt: skip
"""The names by which a template queries the warehouse."""
_RUNS = frozenset({"set_sql_header", "statement"})
"""The names by which a template runs statements without asking for an answer."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Templates that dbt renders in one context: of a node, test or function, or of an ephemeral model that it inlines."""

    props: Mapping[str, Any]
    """The manifest's entry of the node whose context it is."""
    texts: Sequence[str]
    macros: Sequence[str]
    """All macros that the texts may call, directly or not, by unique id."""


class Units:
    """The units of all nodes, tests and functions of one manifest."""

    def __init__(self, manifest: Mapping[str, Any], macros: Macros, facts: TextFacts) -> None:
        """Read nothing yet."""
        self._nodes: Mapping[str, Mapping[str, Any]] = manifest["nodes"]
        self._functions: Mapping[str, Mapping[str, Any]] = manifest.get("functions") or {}
        self._macros = macros
        self._facts = facts
        self._of_nodes: dict[str, tuple[Unit, ...]] = {}

    def of_node(self, node: Node) -> Sequence[Unit]:
        """Return the units of a node: its own, then one for each ephemeral model that dbt inlines."""
        if node.unique_id not in self._of_nodes:
            self._of_nodes[node.unique_id] = tuple(self._units_of_node(node))
        return self._of_nodes[node.unique_id]

    def _units_of_node(self, node: Node) -> Iterator[Unit]:
        props = self._nodes[node.unique_id]
        raw = [str(props.get("raw_code") or "")] if node.language == "sql" else []
        yield self.unit(props, [*raw, *hooks_of(props)], self._macros.called_in_building(props))
        yield from self._inlined(node.ephemerals)

    def of_test(self, test: ProjectTest) -> Iterator[Unit]:
        """Yield the units of a data test: its own, then one for each ephemeral model that dbt inlines."""
        props = self._nodes[test.unique_id]
        texts = [str(props.get("raw_code") or ""), *_texts_of_test(props)]
        yield self.unit(props, texts, self._macros.called_in_testing())
        yield from self._inlined(test.ephemerals)

    def of_function(self, function: Function) -> Iterator[Unit]:
        """Yield the units of a user-defined function: its own, then one for each ephemeral model that dbt inlines."""
        props = self._functions[function.unique_id]
        # After a build dbt also lists its own macros that created the function.
        called = [uid for uid in _macros_of(props) if uid in self._macros.own]
        yield self.unit(
            {**props, "depends_on": {}},
            [str(props.get("raw_code") or ""), *hooks_of(props)],
            [*called, *self._macros.called_in_building(props)],
        )
        yield from self._inlined(function.ephemerals)

    def unit(self, props: Mapping[str, Any], texts: Sequence[str], called: Iterable[str] = ()) -> Unit:
        """Return the unit of an entry of the manifest. `called` are macros that dbt's own code calls for it."""
        reads = [self._facts.reads(text) for text in texts]
        names = {name for read in reads for name in read.names}
        return Unit(props, texts, self._macros.reached_from([*_macros_of(props), *called], names))

    def values_read(self, unit: Unit) -> set[Read]:
        """Return the values of the context that a unit's templates and the project's macros below them may read."""
        return {read for text in self._texts(unit) for read in self._facts.reads(text).values}

    def _texts(self, unit: Unit) -> list[str]:
        return [*unit.texts, *(self._macros.text(uid) for uid in unit.macros if uid in self._macros.own)]

    def may_ask(self, units: Iterable[Unit]) -> bool:
        """Return whether a template, or a macro that it may call, mentions what queries the warehouse."""
        return self._mention(units, _ASKS)

    def runs_statements(self, units: Iterable[Unit]) -> bool:
        """Return whether a template, or a macro that it may call, mentions what runs statements."""
        return self._mention(units, _RUNS)

    def _mention(self, units: Iterable[Unit], names: frozenset[str]) -> bool:
        return any(not names.isdisjoint(self._facts.reads(text).names) for unit in units for text in self._texts(unit))

    def is_volatile(self, units: Iterable[Unit]) -> bool:
        """Return whether a template, or a macro that it may call, mentions the time, a random value or a sequence."""
        return any(
            any(map(is_volatile, unit.texts))
            or any(self._facts.is_volatile(self._macros.text(uid)) for uid in unit.macros)
            for unit in units
        )

    def _inlined(self, ephemerals: Iterable[str]) -> Iterator[Unit]:
        for unique_id in ephemerals:
            props = self._nodes[unique_id]
            yield self.unit(props, [str(props.get("raw_code") or "")])


def hooks_of(props: Mapping[str, Any], *kinds: str) -> list[str]:
    """Return the SQL of a node's hooks: of all kinds, or of the given ones."""
    hooks = [hook for kind in kinds or HOOKS for hook in (props.get("config") or {}).get(kind) or []]
    return [str(hook.get("sql") if isinstance(hook, Mapping) else hook) for hook in hooks]


def settings_of_hooks(props: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    """Return what each of a node's hooks of one kind has beside its SQL: whether it runs in the transaction."""
    hooks = (props.get("config") or {}).get(kind) or []
    return [
        {name: value for name, value in hook.items() if name != "sql" and value is not None and value is not True}
        if isinstance(hook, Mapping)
        else {}
        for hook in hooks
    ]


def _texts_of_test(props: Mapping[str, Any]) -> list[str]:
    """Return the templates of a data test beside its SQL: its arguments and its config."""
    arguments = (props.get("test_metadata") or {}).get("kwargs") or {}
    config = {name: v for name, v in (props.get("config") or {}).items() if name not in inert_settings.OF_TESTS}
    return list(_strings_in([arguments, config]))


def _strings_in(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _strings_in(inner)
    elif isinstance(value, Iterable):
        for inner in value:
            yield from _strings_in(inner)


def _macros_of(props: Mapping[str, Any]) -> list[str]:
    return list((props.get("depends_on") or {}).get("macros") or [])
