"""Which nodes dbt builds only after which tests: its own edges, computed from who reads whom.

`dbt build` puts a node after a test when the node is below *all* that the test reads (`Linker.add_test_edges` in dbt's
compilation.py). So a `relationships` test from a fact to a dimension comes before what is below both, and never before the
dimension or what reads the dimension alone. A unit test comes before its own model.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Gates:
    """The nodes that wait for each test, as one number per test: bit n stands for the n-th node."""

    masks: Mapping[str, int]
    """The number of each test. Sets of nodes for 30,000 tests would not fit into memory."""
    places: Mapping[str, int]
    """The place of each node in topological order: its bit."""

    def gates(self, test: str, node: str) -> bool:
        """Return whether dbt builds `node` only after `test`."""
        place = self.places.get(node)
        return place is not None and bool(self.masks.get(test, 0) >> place & 1)

    def gated_by(self, test: str) -> list[str]:
        """Return the nodes that wait for a test, parents first."""
        mask = self.masks.get(test, 0)
        return [node for place, node in enumerate(self._nodes) if mask >> place & 1] if mask else []

    def mask(self, nodes: Iterable[str]) -> int:
        """Return nodes as a number to compare with `masks`. Sources, which wait for no test, are left out."""
        found = 0
        for node in nodes:
            if (place := self.places.get(node)) is not None:
                found |= 1 << place
        return found

    @cached_property
    def _nodes(self) -> list[str]:
        return list(self.places)


def find_gates(
    nodes: Iterable[str],
    reads: Mapping[str, Collection[str]],
    parents: Mapping[str, Sequence[str]],
    *,
    itself: AbstractSet[str] = frozenset(),
) -> Gates:
    """Return which of `nodes` wait for which test.

    `reads` is what each test reads and `parents` what everything else reads, ephemeral models as they are. The tests of
    `itself` also come before what they read: unit tests.

    >>> edges = {"fct": ["dim"], "report": ["fct", "dim"], "labels": ["dim"]}
    >>> find_gates(["dim", "fct", "report", "labels"], {"relationships": ["fct", "dim"]}, edges).gated_by(
    ...     "relationships"
    ... )
    ['report']
    """
    places = {node: place for place, node in enumerate(nodes)}
    below = _below(parents, places)
    masks: dict[str, int] = {}
    known: dict[tuple[str, ...], int] = {}
    for test, read in reads.items():
        key = tuple(sorted(set(read)))
        if key not in known:
            known[key] = _common(below.get(unique_id, 0) for unique_id in key)
        masks[test] = known[key]
        if test in itself:
            masks[test] |= sum(1 << places[unique_id] for unique_id in key if unique_id in places)
    return Gates(masks, places)


def _common(masks: Iterable[int]) -> int:
    """Return what all masks have in common; nothing for a test that reads nothing."""
    found: int | None = None
    for mask in masks:
        found = mask if found is None else found & mask
    return found or 0


def _below(parents: Mapping[str, Sequence[str]], places: Mapping[str, int]) -> dict[str, int]:
    """Return the nodes below each thing that is read."""
    children: dict[str, list[str]] = {}
    for child, above in parents.items():
        for parent in above:
            if parent != child:  # an incremental model may name itself
                children.setdefault(parent, []).append(child)
    below: dict[str, int] = {}
    for unique_id in _children_first(children):
        mask = 0
        for child in children.get(unique_id, ()):
            # Do not fail here for ephemeral models that read each other: dbt refuses them.
            mask |= below.get(child, 0) | (1 << places[child] if child in places else 0)
        below[unique_id] = mask
    return below


def _children_first(children: Mapping[str, Sequence[str]]) -> Iterator[str]:
    done: set[str] = set()
    for start in children:
        stack = [(start, iter(children[start]))] if start not in done else []
        done.add(start)
        while stack:
            unique_id, rest = stack[-1]
            child = next((child for child in rest if child not in done), None)
            if child is None:
                stack.pop()
                yield unique_id
            else:
                done.add(child)
                stack.append((child, iter(children.get(child, ()))))
