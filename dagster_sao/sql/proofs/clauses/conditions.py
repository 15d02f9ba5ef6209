"""Whether the `where` of a test certainly runs without an error: a proof says nothing about a query that fails."""

from __future__ import annotations

import re
from datetime import date

from sqlglot import exp

from dagster_sao.sql.dialects import parsed
from dagster_sao.sql.proofs.column_types import BOOLEAN, DATE, FLOAT, INTEGER, TEXT, TIMESTAMP
from dagster_sao.sql.proofs.facts import Column, Rows
from dagster_sao.sql.proofs.predicates import literal
from dagster_sao.sql.proofs.scope import NODE, Environment, has_only

_DAY = re.compile(r"[12]\d{3}-\d\d-\d\d", re.ASCII)
_NUMBER = re.compile(r"\d{1,18}", re.ASCII)
# dbt writes a bracket behind it.
_ENDS_QUERY = re.compile(r"--|/\*|#|;")
_COMPARISONS = (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE)
# A literal is read as a value of a column of one of these types.
_WORD, _DAY_WORD = "a text literal", "a text literal with a date"
_COMPARABLE = {
    *((kind, kind) for kind in (INTEGER, FLOAT, BOOLEAN, DATE, TIMESTAMP)),
    *((TEXT, word) for word in (_WORD, _DAY_WORD)),
    *((kind, _DAY_WORD) for kind in (DATE, TIMESTAMP)),
    (TIMESTAMP, DATE), (FLOAT, INTEGER),
}  # fmt: skip


def runs(where: str, rows: Rows, environment: Environment) -> bool:
    """Return whether a condition on the rows is understood: known columns, and comparisons that no value makes fail."""
    if _ENDS_QUERY.search(where) or not environment.semantics.keeps_types:
        return False
    trees = parsed(f"select 1 from t where {where}", environment.dialect)  # noqa: S608 (only parsed)
    tree = trees[0] if trees is not None and len(trees) == 1 else None
    if not isinstance(tree, exp.Select) or not has_only(tree, "expressions", "from", "where"):
        return False
    return _is_understood(tree.args["where"].this, rows, environment)


def _is_understood(node: exp.Expr, rows: Rows, environment: Environment) -> bool:
    parts = [part for part in node.args.values() if isinstance(part, NODE)]
    if isinstance(node, exp.And | exp.Or | exp.Not | exp.Paren):
        return all(_is_understood(part, rows, environment) for part in parts)
    if isinstance(node, exp.Is):
        is_boolean = isinstance(node.expression, exp.Boolean) and _kind(node.this, rows, environment) == BOOLEAN
        is_null = isinstance(node.expression, exp.Null) and _column(node.this, rows, environment) is not None
        return is_boolean or is_null
    if isinstance(node, exp.In) and has_only(node, "this", "expressions"):
        parts += node.expressions
    elif not isinstance(node, (*_COMPARISONS, exp.Between)) or node.args.get("symmetric"):
        return isinstance(node, exp.Column) and _kind(node, rows, environment) == BOOLEAN
    if isinstance(node, exp.EQ | exp.NEQ | exp.In) and _has_values(_column(parts[0], rows, environment), parts[1:]):
        return True
    first, *others = [_kind(part, rows, environment) for part in parts]
    return bool(others) and all((first, other) in _COMPARABLE or (other, first) in _COMPARABLE for other in others)


def _has_values(column: Column | None, literals: list[exp.Expr]) -> bool:
    """Return whether a column has been compared with all of these before, by a test or by the query, whatever its type is."""
    values = column.values if column is not None else None
    found = [literal(node) for node in literals]
    return values is not None and all(
        text is not None and text[0] in values.texts and text[1] == values.quoted for text in found
    )


def _column(node: exp.Expr, rows: Rows, environment: Environment) -> Column | None:
    is_name = environment.is_name(node) and not node.args.get("table")
    return rows.columns.get(environment.fold(node.this)) if is_name else None


def _kind(node: exp.Expr, rows: Rows, environment: Environment) -> str | None:
    """Return the type of an operand that cannot fail; None where it is not understood."""
    column = _column(node, rows, environment)
    if column is not None:
        return column.type
    if isinstance(node, exp.Cast) and has_only(node, "this", "to"):
        is_date = node.to.sql().lower() == DATE and isinstance(node.this, exp.Literal)
        return DATE if is_date and _kind(node.this, rows, environment) == _DAY_WORD else None
    if isinstance(node, exp.Literal) and node.is_string:
        return _DAY_WORD if _is_day(node.name) else _WORD
    if isinstance(node, exp.Literal):
        return INTEGER if _NUMBER.fullmatch(node.name) else None
    if isinstance(node, exp.Neg):
        return (
            INTEGER if isinstance(node.this, exp.Literal) and _kind(node.this, rows, environment) == INTEGER else None
        )
    return BOOLEAN if isinstance(node, exp.Boolean) else None


def _is_day(text: str) -> bool:
    """Return whether a text is a date in the one form that each setting of a database reads alike.

    >>> _is_day("2024-02-29"), _is_day("2023-02-29"), _is_day("29.2.2024")
    (True, False, False)
    """
    try:
        return _DAY.fullmatch(text) is not None and date.fromisoformat(text) is not None
    except ValueError:
        return False
