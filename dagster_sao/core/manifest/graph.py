"""A dbt project as a build graph: nodes, sources, tests, and which node reads which.

Plain values: they know nothing of dbt's Python classes, of Dagster or of a warehouse.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from typing import Any

from dagster_sao.core.manifest.build_settings import NO_SETTINGS, BuildSettings
from dagster_sao.core.manifest.functions import Function
from dagster_sao.core.manifest.gates import Gates


class NodeKind(str, Enum):
    """The effect of a node's build on the rows that its children read."""

    VIEW = "view"
    DETERMINISTIC = "deterministic"
    HISTORY_DEPENDENT = "history_dependent"
    SEED = "seed"


@dataclass(frozen=True, slots=True)
class Node:
    """A dbt resource that is built: a model, a seed or a snapshot."""

    unique_id: str
    name: str
    resource_type: str
    kind: NodeKind
    materialized: str
    language: str
    file: str
    fqn: tuple[str, ...]
    relation_name: str | None
    parents: tuple[str, ...]
    """Unique ids of the direct parents, ephemeral models replaced by theirs."""
    ephemerals: tuple[str, ...] = ()
    """Unique ids of the ephemeral models that dbt inlines into this node."""
    functions: tuple[str, ...] = ()
    """Unique ids of the functions that it calls, directly or not, in the order in which dbt has to create them."""
    settings: BuildSettings = NO_SETTINGS
    """How dbt builds it."""
    continues_on_error: bool = False
    """Whether dbt builds its children even if it failed: `on_error: continue`."""

    @property
    def label(self) -> str:
        """The name that messages use."""
        return self.name

    @property
    def is_view(self) -> bool:
        """Whether the node stores no rows of its own."""
        return self.kind is NodeKind.VIEW


@dataclass(frozen=True, slots=True)
class Source:
    """A relation that something else loads: a dbt source, or a node of another dbt project."""

    unique_id: str
    source_name: str
    name: str
    file: str
    database: str | None = None
    schema: str | None = None
    identifier: str | None = None
    relation_name: str | None = None
    definition: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """The manifest's own entry, for what only one reader needs (columns, external location…)."""

    @property
    def label(self) -> str:
        """The name that messages use, such as `raw.orders`."""
        return f"{self.source_name}.{self.name}"

    @property
    def is_external_node(self) -> bool:
        """Whether this is a node of another dbt project (cross-project ref), not a dbt source."""
        return not self.unique_id.startswith("source.")


@dataclass(frozen=True, slots=True)
class ProjectTest:
    """A data test, generic or singular, or a unit test."""

    unique_id: str
    name: str
    fqn: tuple[str, ...]
    file: str
    reads: tuple[str, ...] = ()
    """Unique ids of the nodes and sources that a data test reads, ephemeral models replaced by their parents."""
    is_error: bool = True
    """Whether its failure stops what it gates; with `severity: warn` it does not."""
    ephemerals: tuple[str, ...] = ()
    """Unique ids of the ephemeral models that dbt inlines into a data test."""
    model: str = ""
    """The model of a unit test, which runs it on rows of its own; empty for a data test."""
    is_volatile: bool = False
    """Whether its SQL gives another answer at another time over the same data."""
    functions: tuple[str, ...] = ()
    """Unique ids of the functions that it calls, directly or not, in the order in which dbt has to create them."""

    @property
    def is_unit_test(self) -> bool:
        """Whether its answer depends on code alone."""
        return bool(self.model)

    @property
    def about(self) -> tuple[str, ...]:
        """Unique ids of the nodes and sources that a data test reads, or the model of a unit test."""
        return (self.model,) if self.model else self.reads


@dataclass(frozen=True)
class ProjectGraph:
    """A dbt project as nodes and sources, parents before children, and its tests."""

    project_name: str
    adapter_type: str
    nodes: Mapping[str, Node]
    """By unique id, in topological order."""
    sources: Mapping[str, Source]
    tests: Mapping[str, ProjectTest] = field(default_factory=dict)
    gates: Gates = field(default_factory=lambda: Gates({}, {}))
    """Which nodes dbt builds only after which tests."""
    functions: Mapping[str, Function] = field(default_factory=dict)
    """By unique id, each after those that it calls itself."""

    @cached_property
    def children(self) -> Mapping[str, tuple[str, ...]]:
        """The direct children of every node and source."""
        found: dict[str, list[str]] = {unique_id: [] for unique_id in (*self.sources, *self.nodes)}
        for node in self.nodes.values():
            for parent in node.parents:
                found[parent].append(node.unique_id)
        return {unique_id: tuple(children) for unique_id, children in found.items()}

    @cached_property
    def views_under_contract(self) -> AbstractSet[str]:
        """The views with an enforced contract, and the views that these read, through views too: their columns are compared with it."""
        found: set[str] = set()
        for node in reversed([*self.nodes.values()]):  # children first
            reaches = not found.isdisjoint(self.children[node.unique_id])
            if node.is_view and (node.settings.enforces_contract or reaches):
                found.add(node.unique_id)
        return found

    @cached_property
    def tests_about(self) -> Mapping[str, tuple[str, ...]]:
        """The tests that read each node and source, and the unit tests of each model; without those that have none."""
        found: dict[str, list[str]] = {}
        for test in self.tests.values():
            for unique_id in test.about:
                found.setdefault(unique_id, []).append(test.unique_id)
        return {unique_id: tuple(tests) for unique_id, tests in found.items()}

    def label(self, unique_id: str) -> str:
        """Return the name that messages use for a node, a source, a test or a function."""
        if unique_id in self.tests:
            return self.tests[unique_id].name
        if unique_id in self.functions:
            return self.functions[unique_id].label
        return (self.nodes.get(unique_id) or self.sources[unique_id]).label

    def with_volatile(self, unique_ids: AbstractSet[str]) -> ProjectGraph:
        """Return the graph with the nodes and tests counted as volatile whose SQL gives other rows at another time.

        Such a table is history-dependent. The SQL of a view runs again whenever a test reads it, directly or through views.
        """
        views: set[str] = set()
        for uid, node in self.nodes.items():
            if node.is_view and (uid in unique_ids or not views.isdisjoint(node.parents)):
                views.add(uid)
        volatile = {uid for uid in unique_ids if uid in self.nodes and self.nodes[uid].kind is NodeKind.DETERMINISTIC}
        tests = {
            uid: replace(test, is_volatile=True) if uid in unique_ids or not views.isdisjoint(test.reads) else test
            for uid, test in self.tests.items()
        }
        return replace(self, tests=tests).with_history_dependent(volatile)

    def with_history_dependent(self, unique_ids: AbstractSet[str]) -> ProjectGraph:
        """Return the graph with nodes counted as history-dependent: each build of them is another version."""
        changed = {uid: replace(self.nodes[uid], kind=NodeKind.HISTORY_DEPENDENT) for uid in unique_ids}
        return replace(self, nodes={uid: changed.get(uid, node) for uid, node in self.nodes.items()})

    def descendants(self, unique_ids: Iterable[str]) -> set[str]:
        """Return all nodes below `unique_ids`, without them unless they are below each other."""
        return set(_reach(unique_ids, self.children))

    def ancestors(self, unique_ids: Iterable[str]) -> set[str]:
        """Return all nodes and sources above `unique_ids`."""
        return set(_reach(unique_ids, {n.unique_id: n.parents for n in self.nodes.values()}))


def _reach(start: Iterable[str], edges: Mapping[str, Sequence[str]]) -> Iterator[str]:
    seen: set[str] = set()
    stack = [n for unique_id in start for n in edges.get(unique_id, ())]
    while stack:
        unique_id = stack.pop()
        if unique_id not in seen:
            seen.add(unique_id)
            yield unique_id
            stack.extend(edges.get(unique_id, ()))
