"""Whether a property follows from what is proven of a query's rows. A test that could be an error is not proven to pass."""

from __future__ import annotations

from dagster_sao.sql.dialects import Semantics
from dagster_sao.sql.proofs.column_types import BOOLEAN, INTEGER, TEXT, is_scalar
from dagster_sao.sql.proofs.facts import Column, Reason, Rows, Step, key_within
from dagster_sao.sql.proofs.properties import AcceptedValues, NotNull, NotProvable, Property, Relationship, Unique
from dagster_sao.sql.proofs.scope import fold_text


def answer(rows: Rows, wanted: Property, semantics: Semantics) -> Reason | NotProvable:
    """Return the reason for a property."""
    texts = wanted.columns if isinstance(wanted, Unique) else (wanted.column,)
    names = [fold_text(text, semantics) for text in texts]
    columns: list[tuple[str, Column]] = []
    for text, name in zip(texts, names, strict=True):
        if name is None:
            return NotProvable(f"{text} is not the name of a column")
        if name not in rows.columns:
            return NotProvable(
                rows.losses[-1] if rows.is_open and rows.losses else f"it is not known where {text} comes from"
            )
        columns.append((name, rows.columns[name]))
    if isinstance(wanted, Unique):
        return _unique(rows, wanted, [name for name, _ in columns], semantics)
    ((_, column),) = columns
    if isinstance(wanted, NotNull):
        return (
            NotProvable(column.nullable_because or f"{wanted.column} may be NULL")
            if column.not_null is None
            else column.not_null
        )
    if not semantics.keeps_types:
        return NotProvable("a table of this database may have other types than its query")
    if isinstance(wanted, AcceptedValues):
        return _accepted(column, wanted, semantics)
    return _related(column, wanted, semantics)


def _unique(rows: Rows, wanted: Unique, names: list[str], semantics: Semantics) -> Reason | NotProvable:
    reason = key_within(rows, names, is_strict=wanted.nulls_equal)
    if reason is not None:
        return _no_equality(rows, names, semantics) or reason
    shown = " and ".join(rows.columns[name].shown or name for name in names)
    if wanted.nulls_equal and key_within(rows, names, is_strict=False) is not None:
        return NotProvable(f"rows with a NULL in {shown} may be repeated")
    return NotProvable(rows.losses[-1] if rows.losses else f"nothing says that {shown} is unique")


def _no_equality(rows: Rows, names: list[str], semantics: Semantics) -> NotProvable | None:
    """Return why the test could be an error: a column is not known to have an equality, nor to be part of a key, which shows one."""
    of_keys = frozenset().union(*(key.columns for key in rows.keys if key.columns <= frozenset(names)))
    odd = [name for name in names if name not in of_keys and not _has_equality(rows.columns[name], (), semantics)]
    return NotProvable(f"it is not known whether values of {odd[0]} can be compared") if odd else None


def _has_equality(column: Column, reason: Reason, semantics: Semantics) -> bool:
    """Return whether a test can compare a column's values, as far as its type or a passed test among the reasons shows."""
    return semantics.groups_any_type or is_scalar(column) or any(step.premises for step in reason)


def _accepted(column: Column, wanted: AcceptedValues, semantics: Semantics) -> Reason | NotProvable:
    values = column.values
    if values is None:
        return NotProvable(f"the values of {wanted.column} are not known")
    if values.quoted != wanted.quoted and values.texts:
        return NotProvable(f"the values of {wanted.column} are known in another spelling")
    other = values.texts - wanted.values
    if other:
        return NotProvable(f"{wanted.column} could be {min(other)!r}")
    # A literal that does not fit the column's type is an error, not a pass.
    if values.texts != wanted.values and not _fits(column.type, wanted):
        return NotProvable(f"the type of {wanted.column} is not known to allow all values")
    if not _has_equality(column, values.reason, semantics):
        return NotProvable(f"it is not known whether values of {wanted.column} can be compared")
    return values.reason


def _fits(type_: str | None, wanted: AcceptedValues) -> bool:
    if wanted.quoted or type_ == TEXT:
        return wanted.quoted and type_ == TEXT
    is_boolean = wanted.values <= {"true", "false"}
    return type_ == BOOLEAN if is_boolean else type_ == INTEGER and all(text.isdigit() for text in wanted.values)


def _related(column: Column, wanted: Relationship, semantics: Semantics) -> Reason | NotProvable:
    name = fold_text(wanted.parent_column, semantics)
    reasons = [member.reason for member in column.members if (member.parent, member.column) == (wanted.parent, name)]
    if not reasons:
        return NotProvable(f"nothing says that the values of {wanted.column} are in the parent")
    reason = min(reasons, key=len)
    if not any(_has_equality(column, found, semantics) for found in reasons):
        return NotProvable(f"it is not known whether values of {wanted.column} can be compared")
    return reason or (Step(f"every value of {wanted.column} comes from its parent"),)
