"""Families of column types. Types of one family compare exactly with each other, so a proof may take one for another.

No proof relies on the values of other types (padded text, JSON, intervals, user-defined types).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from dagster_sao.sql.dialects import Semantics
from dagster_sao.sql.proofs.facts import Column, Rows

INTEGER, DECIMAL, FLOAT, TEXT = "integer", "decimal", "float", "text"
BOOLEAN, DATE, TIMESTAMP, UUID = "boolean", "date", "timestamp", "uuid"
NULL = "null"
"""The type of a bare NULL, which takes the type that it meets."""
_FAMILY = {
    **dict.fromkeys(("tinyint", "smallint", "int", "integer", "bigint", "int2", "int4", "int8", "int64"), INTEGER),
    **dict.fromkeys(("decimal", "numeric", "number"), DECIMAL),
    **dict.fromkeys(("real", "float", "float4", "float8", "float64", "double", "double precision"), FLOAT),
    **dict.fromkeys(("text", "varchar", "string", "character varying"), TEXT),
    **dict.fromkeys(("bool", "boolean"), BOOLEAN),
    "date": DATE,
    **dict.fromkeys(("timestamp", "timestamp without time zone"), TIMESTAMP),
    "uuid": UUID,
}
COLLATED = "collated"
"""Stands for the type of a column behind which a collation may hide."""
_OTHER_SCALARS = frozenset(
    {
        COLLATED, "bit", "bit varying", "bpchar", "bytea", "char", "character", "cidr", "datetime", "inet", "interval", "jsonb", "macaddr",
        "money", "name", "oid", "time", "time with time zone", "time without time zone", "timestamp with time zone", "timestamp_ltz",
        "timestamp_ntz", "timestamp_tz", "timestamptz", "timetz", "varbit",
    }
)  # fmt: skip
"""Types of no family with an equality by which GROUP BY groups too. They have no NULLs within."""
_TYPE = re.compile(r"([a-z][a-z0-9]*(?: [a-z]+)*) ?(\([\d, ]*\))?", re.ASCII)
_PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}", re.ASCII | re.IGNORECASE)
"""A name that each database keeps as it is, but for its case."""
_CAN_HAVE_A_SIZE = {TEXT, FLOAT}
_COMPARABLE = {INTEGER, BOOLEAN, DATE, UUID, TIMESTAMP}


def family_of(type_name: str) -> str | None:
    """Return the family of a type, None where it belongs to none.

    Decimals of two sizes are two families: some databases convert both to a third size to compare them.

    >>> family_of("BIGINT"), family_of("character varying(20)"), family_of("char(3)"), family_of("int[]")
    ('integer', 'text', None, None)
    >>> family_of("numeric(10, 2)"), family_of("numeric")
    ('decimal(10,2)', 'decimal')
    """
    found = _TYPE.fullmatch(type_name.strip().lower())
    family = _FAMILY.get(found[1]) if found else None
    if found is None or not found[2]:
        return family
    if family == DECIMAL:
        return f"{DECIMAL}{found[2].replace(' ', '')}"
    return family if family in _CAN_HAVE_A_SIZE else None


def is_scalar_type(type_name: str) -> bool:
    """Return whether all values of a type are single ones, which `=` and GROUP BY tell apart.

    >>> (
    ...     is_scalar_type("char(3)"),
    ...     is_scalar_type("timestamp with time zone"),
    ...     is_scalar_type("json"),
    ...     is_scalar_type("user-defined"),
    ... )
    (True, True, False, False)
    """
    found = _TYPE.fullmatch(type_name.strip().lower())
    return found is not None and (found[1] in _FAMILY or found[1] in _OTHER_SCALARS)


def families_of(rows: Rows) -> Mapping[str, str] | None:
    """Return the families of all columns of a query's result, in order; None unless all names and types are certain."""
    if rows.is_open or rows.hides_names or not rows.is_ordered:
        return None
    found: dict[str, str] = {}
    for name, column in rows.columns.items():
        # A bare NULL gets some type in a table, and a decimal some size.
        if column.type is None or column.type == NULL or is_decimal(column.type):
            return None
        if not _PLAIN_NAME.fullmatch(str(name)):
            return None
        found[str(name)] = column.type
    return found or None


def is_scalar(column: Column) -> bool:
    """Return whether all values of a column are known to be single ones."""
    return column.type is not None or column.has_scalar_type


def is_null_without_value(column: Column, semantics: Semantics) -> bool:
    """Return whether IS NULL is TRUE where a column has no value only: a row of NULLs is a value, which equals others."""
    return is_scalar(column) or not semantics.has_composites


def is_decimal(type_: str | None) -> bool:
    """Return whether a family is one of decimals."""
    return type_ is not None and type_.startswith(DECIMAL)


def is_number(type_: str | None) -> bool:
    """Return whether a family is one of numbers."""
    return type_ in {INTEGER, FLOAT} or is_decimal(type_)


def may_have_collation(type_name: str) -> bool:
    """Return whether a column of this type may have a collation, which says which of its values are equal.

    >>> may_have_collation("varchar(3)"), may_have_collation("char(3)"), may_have_collation("integer")
    (True, True, False)
    """
    return family_of(type_name) in {TEXT, None}


def _has_size(type_name: str) -> bool:
    """Return whether a type restricts its values further, such as `varchar(3)`."""
    return "(" in type_name


def common(types: list[str | None]) -> str | None:
    """Return the family that all of these have; a NULL takes any.

    >>> common(["text", "null"]), common(["text", "integer"]), common(["null"])
    ('text', None, 'null')
    """
    found = {name for name in types if name != NULL}
    return NULL if not found else found.pop() if len(found) == 1 else None


def are_comparable(one: Column, other: Column, semantics: Semantics) -> bool:
    """Return whether `=` on two columns is the equality by which each of them is unique.

    Not so where one is converted for the comparison: `'1'` and `'01'` are two texts, and one integer. Floating-point numbers
    have an equality of their own on some databases, and a collation can hide behind the name of a text type.
    """
    if one.origin is not None and one.origin == other.origin and semantics.groups_as_it_compares:
        return True
    if one.type is None or one.type != other.type:
        return False
    if one.type in _COMPARABLE or (is_decimal(one.type) and _has_size(one.type)):
        return semantics.compares_exactly
    return one.type == TEXT and semantics.compares_text_exactly


def keeps_distinct(source: str | None, target: str) -> bool:
    """Return whether a cast gives different values for different values, and none for a NULL only.

    >>> keeps_distinct("integer", "bigint"), keeps_distinct("integer", "varchar"), keeps_distinct("text", "varchar(3)")
    (True, True, False)
    >>> (
    ...     keeps_distinct("text", "integer"),
    ...     keeps_distinct("timestamp", "date"),
    ...     keeps_distinct("integer", "numeric(3,-2)"),
    ... )
    (False, False, False)
    """
    family = family_of(target)
    if family is None or _has_size(target):
        return False
    return (source, family) in {
        (INTEGER, INTEGER),
        (INTEGER, TEXT),
        (TEXT, TEXT),
        (UUID, UUID),
        (UUID, TEXT),
        (DATE, DATE),
        (DATE, TIMESTAMP),
    }
