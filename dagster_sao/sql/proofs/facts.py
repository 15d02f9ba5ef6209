"""What is proven of the rows of one step of a query: keys, and facts about each column, each with its reason.

A key that ignores NULLs (*lax*) and a key that takes NULLs for equal (*strict*) are different facts: only a strict key says
anything about GROUP BY, DISTINCT and rows without a match. It is always safe to leave out a fact: less is proven then.

Rules: Paulley, "Exploiting Functional Dependence in Query Optimization" (2000), on strict and lax dependencies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

Id = str | tuple[str, str]
"""A column: its name in a query's result, or a source's alias and the name while a query is put together."""


@dataclass(frozen=True, slots=True)
class Step:
    """One part of a reason."""

    text: str
    premises: frozenset[str] = frozenset()
    label: str = ""
    """How readers see it, where it is the result of a test."""


Reason = tuple[Step, ...]


def joined(*reasons: Reason) -> Reason:
    """Return the steps of all reasons in order, each once."""
    return tuple(dict.fromkeys(step for reason in reasons for step in reason))


def cited(reason: Reason) -> str:
    """Return a reason as readers see it, in brackets after what it proves; empty where there is none."""
    return ", ".join(step.label or step.text for step in reason)


@dataclass(frozen=True, slots=True)
class Values:
    """The literals that a column's values equal, NULL aside."""

    texts: frozenset[str]
    quoted: bool
    reason: Reason = ()


@dataclass(frozen=True, slots=True)
class Member:
    """Each value of a column, NULL aside, is one of a parent's column."""

    parent: str
    column: str
    reason: Reason = ()


@dataclass(frozen=True, slots=True)
class Column:
    """What is known of one column."""

    shown: str = ""
    """How proofs name it."""
    type: str | None = None
    """The family of its type (`column_types`), where known."""
    has_scalar_type: bool = False
    """Whether it has a type of no family that is known to be no composite and no document."""
    origin: tuple[str, str] | None = None
    """The relation and the column that it is, unchanged but for added NULLs."""
    is_whole: bool = False
    """Whether it is this column itself, without added NULLs: all of its values are there if all of the relation's rows are."""
    not_null: Reason | None = None
    nullable_because: str = ""
    values: Values | None = None
    members: tuple[Member, ...] = ()
    constant: Reason | None = None
    """Why all rows have the same value, perhaps NULL."""
    is_stable: bool = True
    """Whether it has the same value each time an engine computes it for one row."""


@dataclass(frozen=True, slots=True)
class Key:
    """No two rows agree on these columns. None at all: there is at most one row."""

    columns: frozenset[Id]
    is_strict: bool
    reason: Reason = ()


@dataclass(frozen=True, slots=True)
class Rows:
    """What is known of the rows of one step."""

    columns: Mapping[Id, Column] = field(default_factory=dict)
    keys: tuple[Key, ...] = ()
    is_open: bool = False
    """Whether there may be columns of other names."""
    hides_names: bool = False
    """Whether some of the columns have names that the database made up."""
    is_ordered: bool = True
    """Whether the columns stand in the order of the query's result."""
    holds_all_of: str | None = None
    """The relation whose rows are all here, perhaps with other columns."""
    losses: tuple[str, ...] = ()
    """Why keys were lost, for readers."""


NOTHING = Rows(is_open=True)
"""The facts about rows that are not understood: none."""
_MOST_KEYS = 16


def with_keys(rows: Rows, keys: Iterable[Key]) -> Rows:
    """Return rows with exactly these keys, without those that follow from others, and without constants."""
    found: list[Key] = []
    for key in sorted((_without_constants(rows, key) for key in keys), key=_cost):
        if not any(other.columns <= key.columns and other.is_strict >= key.is_strict for other in found):
            found.append(key)
    return replace(rows, keys=tuple(found[:_MOST_KEYS]))


def _cost(key: Key) -> tuple[int, bool, int]:
    return len(key.columns), not key.is_strict, len(key.reason)


def _without_constants(rows: Rows, key: Key) -> Key:
    """Return a key without columns that are the same in all rows; a lax key keeps one that could be NULL."""
    columns, reason = set(key.columns), key.reason
    for column in key.columns:
        facts = rows.columns.get(column)
        if facts is not None and facts.constant is not None and can_be_dropped(facts, is_strict=key.is_strict):
            columns.discard(column)
            reason = joined(reason, facts.constant, () if key.is_strict else facts.not_null or ())
    return Key(frozenset(columns), key.is_strict, reason)


def can_be_dropped(constant: Column, *, is_strict: bool) -> bool:
    """Return whether a key is one without this constant: where it is NULL, a lax key said nothing."""
    return is_strict or constant.not_null is not None


def key_within(rows: Rows, columns: Iterable[Id], *, is_strict: bool) -> Reason | None:
    """Return why no two rows agree on the columns; None where that is not known."""
    wanted = frozenset(columns)
    reasons = [
        reason
        for key in rows.keys
        if key.columns <= wanted and (reason := _as_strict(rows, key) if is_strict else key.reason) is not None
    ]
    return min(reasons, key=len, default=None)


def _as_strict(rows: Rows, key: Key) -> Reason | None:
    """Return why NULLs make no difference to a key."""
    if key.is_strict:
        return key.reason
    found = [rows.columns[column].not_null if column in rows.columns else None for column in key.columns]
    return None if any(reason is None for reason in found) else joined(key.reason, *(reason or () for reason in found))


def as_lax(key: Key) -> Key:
    """Return a key as a lax one."""
    return replace(key, is_strict=False)


def optional(column: Column, because: str) -> Column:
    """Return the facts about a column that stay true when rows of NULLs are added."""
    return replace(column, not_null=None, constant=None, is_whole=False, nullable_because=because)


def changed(rows: Rows, columns: Mapping[Id, Column]) -> Rows:
    """Return rows with other facts about some columns; new constants leave the keys."""
    return with_keys(replace(rows, columns={**rows.columns, **columns}), rows.keys)
