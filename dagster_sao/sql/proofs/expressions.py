"""What is known of the value of an expression. An expression that no rule here knows has no facts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from sqlglot import exp

from dagster_sao.sql.proofs import predicates
from dagster_sao.sql.proofs.alternatives import one_of
from dagster_sao.sql.proofs.column_types import (
    BOOLEAN,
    DATE,
    DECIMAL,
    INTEGER,
    NULL,
    TEXT,
    TIMESTAMP,
    family_of,
    is_null_without_value,
    is_number,
    is_scalar,
    is_scalar_type,
    keeps_distinct,
)
from dagster_sao.sql.proofs.facts import Column, Id, Reason, Values, joined
from dagster_sao.sql.proofs.scope import NODE, Scope, classes, has_only

Assumed = frozenset[Id]
"""Columns that are not NULL where an expression is computed, because of a CASE around it."""
_Rule = Callable[["exp.Expr", Scope, Assumed], Column]
_MOST_DIGITS = 18
# Any other argument of a node changes its meaning.
_ARGUMENTS = (
    "this", "expression", "expressions", "ifs", "default", "true", "false", "to", "start", "length", "unit", "low", "high", "symmetric",
    "decimals", "replacement", "is_string", "position", "safe", "coalesce", "typed", "is_nvl", "ignore_nulls", "negate", "table",
    "casts_non_integer_decimals", "input_type_preserved", "zero_start", "negative_length_returns_empty",
)  # fmt: skip
_TEXTS, _INTEGERS, _TIMES = frozenset({TEXT}), frozenset({INTEGER}), frozenset({DATE, TIMESTAMP})


def describe(node: exp.Expr, scope: Scope, assumed: Assumed = frozenset()) -> Column:
    """Return what is known of an expression's value in each row."""
    while isinstance(node, exp.Paren):
        node = node.this
    found = scope.identify(node)
    if found is not None:
        column = scope.rows.columns[found]
        is_assumed = found in assumed and column.not_null is None
        return replace(column, not_null=()) if is_assumed else column
    if scope.has_totals:
        return _unknown(node, scope)
    if (alias := scope.alias_of(node)) is not None:
        return describe(alias, scope, assumed)
    rule = _RULES.get(type(node)) if has_only(node, *_ARGUMENTS) else None
    return rule(node, scope, assumed) if rule is not None else _unknown(node, scope)


def carried(node: exp.Expr, scope: Scope) -> Id | None:
    """Return the column whose values an expression tells apart as well as the column itself does, NULLs included."""
    while isinstance(node, exp.Paren):
        node = node.this
    found = scope.identify(node)
    if found is not None:
        return found
    if type(node) is exp.Cast and has_only(node, "this", "to") and scope.environment.semantics.fails_loudly:
        inner = carried(node.this, scope)
        source = describe(node.this, scope).type
        return inner if inner is not None and keeps_distinct(source, _type_text(node)) else None
    if isinstance(node, exp.Neg):
        return _carried_number(node.this, scope)
    if isinstance(node, exp.Add | exp.Sub):
        for one, other in ((node.this, node.expression), (node.expression, node.this)):
            if _is_integer(other):
                return _carried_number(one, scope)
    return None


def _carried_number(node: exp.Expr, scope: Scope) -> Id | None:
    return (
        carried(node, scope)
        if scope.environment.semantics.fails_loudly and describe(node, scope).type == INTEGER
        else None
    )


def _is_integer(node: exp.Expr) -> bool:
    return (
        isinstance(node, exp.Literal) and not node.is_string and node.name.isdigit() and len(node.name) <= _MOST_DIGITS
    )


def _unknown(node: exp.Expr, scope: Scope) -> Column:
    return Column(nullable_because=f"it is not known whether {shown(node, scope)} can be NULL", is_stable=False)


def shown(node: exp.Expr, scope: Scope) -> str:
    """Return an expression as a reader sees it, cut short."""
    text = node.sql(dialect=scope.environment.dialect, comments=False)
    most = 60
    return text if len(text) <= most else f"{text[:most]}…"


def _column(node: exp.Expr, scope: Scope, assumed: Assumed) -> Column:
    del assumed
    return Column(nullable_because=f"it is not certain which column {shown(node, scope)} is", is_stable=False)


def _literal(node: exp.Expr, scope: Scope, assumed: Assumed) -> Column:
    del scope, assumed
    if node.is_string:
        return Column(type=TEXT, not_null=(), values=Values(frozenset({node.name}), quoted=True), constant=())
    # Their size depends on the database.
    type_ = INTEGER if _is_integer(node) else DECIMAL if "." in node.name else None
    values = Values(frozenset({node.name}), quoted=False)
    return Column(type=type_, has_scalar_type=True, not_null=(), values=values, constant=())


def _boolean(node: exp.Expr, scope: Scope, assumed: Assumed) -> Column:
    del scope, assumed
    values = Values(frozenset({str(node.this).lower()}), quoted=False)
    return Column(type=BOOLEAN, not_null=(), values=values, constant=())


def _null(node: exp.Expr, scope: Scope, assumed: Assumed) -> Column:
    del node, scope, assumed
    return Column(type=NULL, nullable_because="it is NULL", constant=())


def _same_if_not_null(type_: str | None = None) -> _Rule:
    """Return the rule for expressions that give NULL only for NULL."""

    def rule(node: exp.Expr, scope: Scope, assumed: Assumed) -> Column:
        parts = [describe(part, scope, assumed) for part in _parts(node)]
        reason = _all_not_null(parts) if scope.environment.semantics.fails_loudly else None
        return Column(
            type=type_,
            has_scalar_type=all(map(is_scalar, parts)),
            not_null=reason,
            nullable_because=_first_doubt(parts) or f"it is not known whether {shown(node, scope)} can be NULL",
            is_stable=all(part.is_stable for part in parts),
        )

    return rule


def _parts(node: exp.Expr) -> Iterator[exp.Expr]:
    for value in node.args.values():
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, NODE) and not isinstance(part, exp.Var | exp.DataType | exp.Identifier):
                yield part


def _all_not_null(columns: Iterable[Column]) -> Reason | None:
    """Return why none of the columns is ever NULL."""
    reasons = [column.not_null for column in columns]
    return None if any(reason is None for reason in reasons) else joined(*(reason or () for reason in reasons))


def _first_doubt(columns: Iterable[Column]) -> str:
    return next((column.nullable_because for column in columns if column.not_null is None), "")


def _in_list(node: exp.Expr, scope: Scope, assumed: Assumed) -> Column:
    if not has_only(node, "this", "expressions"):
        return _unknown(node, scope)
    return _same_if_not_null(BOOLEAN)(node, scope, assumed)


def _never_null(node: exp.Expr, scope: Scope, assumed: Assumed) -> Column:
    parts = [describe(part, scope, assumed) for part in _parts(node)]
    return Column(type=BOOLEAN, not_null=(), is_stable=all(part.is_stable for part in parts))


def _is(node: exp.Expr, scope: Scope, assumed: Assumed) -> Column:
    """Return the facts of IS: it may stand for another test too, such as `IS NORMALIZED`, which gives NULL for a NULL."""
    if isinstance(node.args["expression"], exp.Null | exp.Boolean):
        return _never_null(node, scope, assumed)
    return _unknown(node, scope)


def _now(node: exp.Expr, scope: Scope, assumed: Assumed) -> Column:
    del assumed
    name = "current_date" if isinstance(node, exp.CurrentDate) else "current_timestamp"
    return _unknown(node, scope) if scope.may_have(name) else Column(has_scalar_type=True, not_null=(), is_stable=False)


def _arithmetic(node: exp.Expr, scope: Scope, assumed: Assumed) -> Column:
    parts = [describe(part, scope, assumed) for part in _parts(node)]
    if not all(is_number(part.type) for part in parts):
        return replace(_unknown(node, scope), is_stable=all(part.is_stable for part in parts))
    is_whole = all(part.type == INTEGER for part in parts) and isinstance(node, exp.Add | exp.Sub | exp.Mul | exp.Neg)
    return _same_if_not_null(INTEGER if is_whole else None)(node, scope, assumed)


def _division(node: exp.Expr, scope: Scope, assumed: Assumed) -> Column:
    if not scope.environment.semantics.fails_on_division_by_zero and not _is_positive(node.args["expression"]):
        return replace(_unknown(node, scope), nullable_because=f"{shown(node, scope)} is NULL where it divides by zero")
    return _arithmetic(node, scope, assumed)


def _is_positive(node: exp.Expr) -> bool:
    return _is_integer(node) and int(node.name) > 0


def _for_types(first: frozenset[str], others: frozenset[str], result: str | None) -> _Rule:
    """Return the rule for functions that mean something else, with NULLs, for other types, such as `lower` of a range."""

    def rule(node: exp.Expr, scope: Scope, assumed: Assumed) -> Column:
        parts = [describe(part, scope, assumed) for part in _parts(node)]
        if parts and parts[0].type in first and all(part.type in others for part in parts[1:]):
            return _same_if_not_null(result)(node, scope, assumed)
        return replace(_unknown(node, scope), is_stable=all(part.is_stable for part in parts))

    return rule


def _concatenation(node: exp.Expr, scope: Scope, assumed: Assumed) -> Column:
    """Return the facts of a concatenation, which makes texts, or lists of lists."""
    types = {describe(part, scope, assumed).type for part in _parts(node)}
    return _same_if_not_null(TEXT if TEXT in types and None not in types else None)(node, scope, assumed)


def _cast(node: exp.Expr, scope: Scope, assumed: Assumed) -> Column:
    inner = describe(node.this, scope, assumed)
    text = _type_text(node)
    family = family_of(text)
    if not has_only(node, "this", "to"):
        return _unknown(node, scope)
    facts = Column(
        # A text that is cast to text keeps its collation.
        type=None if family == TEXT and inner.type is None else family,
        has_scalar_type=is_scalar_type(text),
        nullable_because=f"the type in {shown(node, scope)} is not known, so that the cast could give NULL",
        # Words such as 'now' become the time of the cast.
        is_stable=inner.is_stable and not isinstance(node.this, exp.Literal),
    )
    if family is None or inner.type is None or not scope.environment.semantics.fails_loudly:
        return facts
    if inner.type == NULL:
        return replace(facts, nullable_because="it is NULL", constant=(), is_stable=True)
    facts = replace(facts, not_null=inner.not_null, nullable_because=inner.nullable_because)
    return _cast_of_same(inner, facts) if inner.type == family and keeps_distinct(family, text) else facts


def _cast_of_same(inner: Column, facts: Column) -> Column:
    """Return the facts of a cast that changes no value."""
    return replace(facts, values=inner.values, constant=inner.constant, is_stable=inner.is_stable)


def _type_text(node: exp.Expr) -> str:
    to = node.args.get("to")
    return to.sql().lower() if isinstance(to, exp.DataType) else ""


def _try_cast(node: exp.Expr, scope: Scope, assumed: Assumed) -> Column:
    inner = describe(node.this, scope, assumed)
    because = f"{shown(node, scope)} is NULL where the cast fails"
    return Column(
        type=None if inner.type is None else family_of(_type_text(node)),
        has_scalar_type=is_scalar_type(_type_text(node)),
        nullable_because=because,
        is_stable=inner.is_stable,
    )


def _coalesce(node: exp.Expr, scope: Scope, assumed: Assumed) -> Column:
    parts = [describe(part, scope, assumed) for part in (node.this, *node.expressions)]
    # Of rows of NULLs, the first is taken.
    is_first_value = all(is_null_without_value(part, scope.environment.semantics) for part in parts)
    return replace(
        one_of(parts),
        not_null=coalesce_not_null(parts) if is_first_value else None,
        nullable_because=f"each argument of {shown(node, scope)} may be NULL",
    )


def coalesce_not_null(parts: list[Column]) -> Reason | None:
    """Return why the first value that is not NULL exists."""
    return min((part.not_null for part in parts if part.not_null is not None), key=len, default=None)


def _case(node: exp.Expr, scope: Scope, assumed: Assumed) -> Column:
    branches: list[Column] = []
    before = assumed
    operand = node.args.get("this") if isinstance(node, exp.Case) else None
    conditions = node.args.get("ifs") if isinstance(node, exp.Case) else [node]
    for condition in conditions or ():
        then = condition.args["true"]
        known = frozenset() if operand is not None else predicates.implied(condition.this, scope).not_null
        branches.append(describe(then, scope, before | known))
        if operand is None and _tests_for_null(condition.this):
            tested = scope.identify(condition.this.this)
            if tested is not None and scope.rows.columns[tested].is_stable:
                before |= {tested}
    default = node.args.get("default" if isinstance(node, exp.Case) else "false")
    branches.append(describe(default, scope, before) if default is not None else _null(node, scope, assumed))
    tests = [describe(part, scope, assumed) for part in ([operand] if operand is not None else [])]
    conditions_are_stable = all(_is_stable(condition.this, scope) for condition in conditions or ())
    facts = one_of(branches, case_not_null(branches))
    because = _first_doubt(branches) if default is not None else f"{shown(node, scope)} is NULL without an ELSE"
    is_stable = facts.is_stable and conditions_are_stable and all(test.is_stable for test in tests)
    return replace(facts, nullable_because=because, is_stable=is_stable)


def _tests_for_null(node: exp.Expr) -> bool:
    return isinstance(node, exp.Is) and isinstance(node.expression, exp.Null) and has_only(node, "this", "expression")


def _is_stable(node: exp.Expr, scope: Scope) -> bool:
    return describe(node, scope).is_stable


def case_not_null(branches: list[Column]) -> Reason | None:
    """Return why no branch, ELSE included, gives NULL."""
    return _all_not_null(branches)


def _nullif(node: exp.Expr, scope: Scope, assumed: Assumed) -> Column:
    first = describe(node.this, scope, assumed)
    other = describe(node.expression, scope, assumed)
    return Column(
        type=first.type if first.type == other.type else None,
        has_scalar_type=is_scalar(first),
        nullable_because=f"{shown(node, scope)} is NULL where both are equal",
        values=first.values if first.type == other.type == TEXT else None,
        is_stable=first.is_stable and other.is_stable,
    )


_RULES: dict[type[exp.Expr], _Rule] = {
    exp.Column: _column,
    exp.Literal: _literal,
    exp.Boolean: _boolean,
    exp.Null: _null,
    exp.Cast: _cast,
    exp.TryCast: _try_cast,
    exp.Coalesce: _coalesce,
    exp.Case: _case,
    exp.If: _case,
    exp.Nullif: _nullif,
    **dict.fromkeys(classes("Add", "Sub", "Mul", "Neg"), _arithmetic),
    **dict.fromkeys(classes("Div", "IntDiv", "Mod"), _division),
    **dict.fromkeys(
        classes("EQ", "NEQ", "GT", "GTE", "LT", "LTE", "And", "Or", "Not", "Like", "ILike", "Between"),
        _same_if_not_null(BOOLEAN),
    ),
    **dict.fromkeys(classes("NullSafeEQ", "NullSafeNEQ"), _never_null),
    exp.Is: _is,
    exp.In: _in_list,
    **dict.fromkeys(classes("Lower", "Upper", "Replace", "MD5"), _for_types(_TEXTS, _TEXTS, TEXT)),
    **dict.fromkeys(classes("Substring", "Left", "Right", "Trim"), _for_types(_TEXTS, _INTEGERS, TEXT)),
    **dict.fromkeys(classes("Length"), _for_types(_TEXTS, frozenset(), INTEGER)),
    **dict.fromkeys(classes("TimestampTrunc", "DateTrunc"), _for_types(_TIMES, _TEXTS, None)),
    **dict.fromkeys(classes("Abs", "Round", "Floor", "Ceil", "Greatest", "Least"), _arithmetic),
    **dict.fromkeys(classes("Concat", "DPipe"), _concatenation),
    **dict.fromkeys(classes("CurrentDate", "CurrentTimestamp"), _now),
}
