"""What is known of a value that is one of several: of CASE, COALESCE, a union or a merged column."""

from __future__ import annotations

from dataclasses import replace

from dagster_sao.sql.proofs.column_types import BOOLEAN, INTEGER, NULL, TEXT, common, is_scalar
from dagster_sao.sql.proofs.facts import Column, Member, Reason, Values, joined


def one_of(parts: list[Column], not_null: Reason | None = None) -> Column:
    """Return the facts of a value that is one of several, converted to a common type."""
    type_ = common([part.type for part in parts])
    real = [part for part in parts if part.type != NULL]
    if len(real) == 1:
        return replace(real[0], not_null=not_null, constant=None, is_whole=False, shown="")
    return Column(
        type=type_,
        has_scalar_type=all(map(is_scalar, real)),
        not_null=not_null,
        values=any_values(real) if type_ in {TEXT, INTEGER, BOOLEAN} else None,
        members=shared_members(real) if type_ in {INTEGER, TEXT} else (),
        constant=() if not real else None,
        is_stable=all(part.is_stable for part in parts),
    )


def any_values(parts: list[Column]) -> Values | None:
    """Return the literals of all parts, where each part has some and they are written alike."""
    found = [part.values for part in parts]
    if not found or any(values is None for values in found):
        return None
    known = [values for values in found if values is not None]
    if len({values.quoted for values in known}) > 1 or any(
        values.quoted != (part.type == TEXT) for part, values in zip(parts, known, strict=True)
    ):
        return None
    return Values(
        frozenset().union(*(values.texts for values in known)),
        known[0].quoted,
        joined(*(values.reason for values in known)),
    )


def shared_members(parts: list[Column]) -> tuple[Member, ...]:
    """Return the parents' columns that contain the values of every part."""
    if not parts:
        return ()
    shared = []
    for member in parts[0].members:
        reasons = [
            next(
                (
                    other.reason
                    for other in part.members
                    if (other.parent, other.column) == (member.parent, member.column)
                ),
                None,
            )
            for part in parts
        ]
        if all(reason is not None for reason in reasons):
            shared.append(replace(member, reason=joined(*(reason or () for reason in reasons))))
    return tuple(shared)
