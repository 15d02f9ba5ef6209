"""UNION, INTERSECT and EXCEPT: columns meet by position, and take a common type."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product

from sqlglot import exp

from dagster_sao.sql.dialects import Semantics
from dagster_sao.sql.proofs.alternatives import one_of
from dagster_sao.sql.proofs.column_types import INTEGER, NULL, TEXT, are_comparable, common, is_scalar
from dagster_sao.sql.proofs.facts import NOTHING, Column, Id, Key, Reason, Rows, Step, joined, with_keys
from dagster_sao.sql.proofs.scope import has_only

_ARGUMENTS = ("this", "expression", "distinct", "with", "order", "limit", "offset")
_MOST_KEYS = 4
_WHOLE = re.compile(r"[0-9]+")


def is_understood(node: exp.SetOperation) -> bool:
    """Return whether each part of a set operation is known, and its meaning does not depend on what binds first."""
    if not has_only(node, *_ARGUMENTS) or node.args.get("distinct") not in {True, False}:
        return False
    sides = [side for side in (node.this, node.expression) if isinstance(side, exp.SetOperation)]
    return not any(isinstance(node, exp.Intersect) != isinstance(side, exp.Intersect) for side in sides)


def combined(node: exp.SetOperation, left: Rows, right: Rows, semantics: Semantics) -> Rows:
    """Return the rows of a set operation."""
    if (
        left.is_open
        or right.is_open
        or not (left.is_ordered and right.is_ordered)
        or len(left.columns) != len(right.columns)
    ):
        return replace(NOTHING, losses=("the columns of a set operation are not all known",))
    is_distinct = bool(node.args.get("distinct"))
    pairs = list(zip(left.columns.items(), right.columns.items(), strict=True))
    names = {other: name for (name, _), (other, _) in pairs}
    kept = {name for (name, one), (_, other) in pairs if are_comparable(one, other, semantics)}
    columns = {name: _combined_column(node, one, other, semantics) for (name, one), (_, other) in pairs}
    keys = [
        *(key for key in left.keys if keeps_keys_of_left(node) and key.columns <= kept),
        *_renamed(right, names, kept, is_kept=keeps_keys_of_right(node)),
    ]
    word = type(node).__name__.lower()
    if isinstance(node, exp.Union):
        keys += _keys_of_branches(left, right, columns, names, kept)
    if is_distinct:
        keys.append(Key(frozenset(columns), is_strict=True, reason=(Step(word),)))
    losses = () if is_distinct or keys else (f"{word} all may repeat rows",)
    lost = (*left.losses, *right.losses, *losses)
    return with_keys(Rows(columns, hides_names=left.hides_names, losses=lost), keys)


def _keys_of_branches(
    left: Rows, right: Rows, columns: dict[Id, Column], names: dict[Id, Id], kept: set[Id]
) -> list[Key]:
    """Return keys of both branches together with a column that tells the branches apart."""
    here = {names[other]: facts for other, facts in right.columns.items()}
    telling = [name for name in columns if name in kept and are_apart(left.columns[name], here[name])]
    others = _renamed(right, names, kept, is_kept=True)[:_MOST_KEYS]
    found = []
    for name in telling:
        reason = joined(
            (Step(f"{left.columns[name].shown or name} tells the branches apart"),),
            *_reasons(left.columns[name], here[name]),
        )
        is_not_null = columns[name].not_null
        for one, other in product([key for key in left.keys if key.columns <= kept][:_MOST_KEYS], others):
            is_strict = one.is_strict and other.is_strict and is_not_null is not None
            why = joined(one.reason, other.reason, reason, is_not_null or ())
            found.append(Key(one.columns | other.columns | {name}, is_strict, why))
    return found


def are_apart(one: Column, other: Column) -> bool:
    """Return whether two columns certainly have no value in common, whatever the case of texts or the zeros in front."""
    if one.values is None or other.values is None or one.type != other.type or one.type not in {TEXT, INTEGER}:
        return False
    if not one.values.quoted == other.values.quoted == (one.type == TEXT):
        return False
    texts = one.values.texts | other.values.texts
    # A number can be written in many ways, such as 2 and 2.0.
    if not all(text.isascii() if one.values.quoted else _WHOLE.fullmatch(text) for text in texts):
        return False
    return {_plain(text) for text in one.values.texts}.isdisjoint(_plain(text) for text in other.values.texts)


def _plain(text: str) -> str:
    return text.strip().lstrip("0").lower()


def _reasons(*columns: Column) -> list[Reason]:
    return [column.values.reason for column in columns if column.values is not None]


def _renamed(right: Rows, names: dict[Id, Id], kept: set[Id], *, is_kept: bool) -> list[Key]:
    if not is_kept:
        return []
    keys = [replace(key, columns=frozenset(names[column] for column in key.columns)) for key in right.keys]
    return [key for key in keys if key.columns <= kept]


def keeps_keys_of_left(node: exp.SetOperation) -> bool:
    """Return whether the result is a part of the left side's rows, each at most as often."""
    return isinstance(node, exp.Intersect | exp.Except)


def keeps_keys_of_right(node: exp.SetOperation) -> bool:
    """Return the same for the right side."""
    return isinstance(node, exp.Intersect)


def _combined_column(node: exp.SetOperation, one: Column, other: Column, semantics: Semantics) -> Column:
    """Return the facts of a column of the result."""
    if isinstance(node, exp.Union):
        facts = one_of(
            [one, other],
            not_null_of_both(one, other) if semantics.fails_loudly or are_comparable(one, other, semantics) else None,
        )
        because = one.nullable_because if one.not_null is None else other.nullable_because
        origin = one.origin if one.origin == other.origin or other.type == NULL else None
        return replace(facts, origin=origin, nullable_because=because)
    type_ = common([one.type, other.type])
    is_same = are_comparable(one, other, semantics)
    is_intersect = isinstance(node, exp.Intersect)
    not_null = one.not_null if one.not_null is not None or not is_intersect else other.not_null
    return Column(
        type=type_,
        has_scalar_type=is_scalar(one) and is_scalar(other),
        not_null=not_null if semantics.fails_loudly or is_same else None,
        nullable_because=one.nullable_because,
        values=one.values if is_same else None,
        members=one.members if is_same else (),
        is_stable=one.is_stable and other.is_stable,
    )


def not_null_of_both(one: Column, other: Column) -> Reason | None:
    """Return why a column of a union is never NULL: in no branch."""
    return None if one.not_null is None or other.not_null is None else joined(one.not_null, other.not_null)
