"""What holds of each row for which a predicate is TRUE, under three-valued logic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from sqlglot import exp

from dagster_sao.sql.dialects import Semantics
from dagster_sao.sql.proofs.column_types import (
    BOOLEAN,
    INTEGER,
    TEXT,
    are_comparable,
    is_decimal,
    is_null_without_value,
)
from dagster_sao.sql.proofs.facts import Column, Id, Key, Member, Reason, Rows, Step, Values, changed, joined, with_keys
from dagster_sao.sql.proofs.scope import Environment, Scope, argument, has_only, source_name

_COMPARISONS = (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Like, exp.ILike)
# Databases disagree about the precedence of these, and some are not NULL for a NULL.
_NOT_OPERANDS = (
    *_COMPARISONS,
    exp.Is,
    exp.In,
    exp.Between,
    exp.Not,
    exp.And,
    exp.Or,
    exp.Any,
    exp.All,
    exp.Tuple,
    exp.Exists,
)
_STRICT_IN_ALL = (exp.Add, exp.Sub, exp.Mul, exp.Div, exp.IntDiv, exp.Mod, exp.Neg)
_STRICT_IN_FIRST = (exp.Cast, exp.TryCast, exp.Lower, exp.Upper, exp.Length, exp.Abs, exp.Trim, exp.TimestampTrunc)
_ARGUMENTS = ("this", "expression", "expressions", "query", "low", "high", "symmetric", "table", "negate")
_NONE: frozenset[Id] = frozenset()


@dataclass(frozen=True, slots=True)
class Implied:
    """The facts that one conjunct adds."""

    not_null: frozenset[Id] = _NONE
    values: Mapping[Id, Values] = field(default_factory=dict)
    excluded: Mapping[Id, Values] = field(default_factory=dict)
    pinned: frozenset[Id] = _NONE
    """Columns that have one value in all rows."""
    equal: tuple[tuple[Id, Id], ...] = ()
    members: Mapping[Id, tuple[Member, ...]] = field(default_factory=dict)


def conjuncts(node: exp.Expr | None) -> Iterator[exp.Expr]:
    """Yield the parts of a predicate that are all TRUE where it is TRUE."""
    while isinstance(node, exp.Paren):
        node = node.this
    if isinstance(node, exp.And):
        yield from conjuncts(node.this)
        yield from conjuncts(node.expression)
    elif node is not None:
        yield node


def implied(node: exp.Expr, scope: Scope) -> Implied:
    """Return what a conjunct implies of the rows for which it is TRUE."""
    if isinstance(node, exp.Exists):
        return _exists(node, scope)
    is_query = isinstance(node, exp.In) and has_only(node, "this", "query")
    members = _members_of_query(node.this, node.args["query"], scope) if is_query else {}
    return Implied(
        not_null_if(node, scope, is_true=True),
        _values_if_true(node, scope),
        _excluded(node, scope),
        _pinned(node, scope),
        _equal(node, scope),
        members,
    )


def not_null_if(node: exp.Expr, scope: Scope, *, is_true: bool) -> frozenset[Id]:
    """Return the columns that are not NULL where a predicate is TRUE, or where it is FALSE."""
    if not has_only(node, *_ARGUMENTS):
        return _NONE
    if isinstance(node, exp.Paren):
        return not_null_if(node.this, scope, is_true=is_true)
    if isinstance(node, exp.Not):
        return not_null_if(node.this, scope, is_true=not is_true)
    if isinstance(node, exp.And | exp.Or):
        one, other = (not_null_if(part, scope, is_true=is_true) for part in (node.this, node.expression))
        return one | other if both_hold(node, is_true=is_true) else one & other
    if isinstance(node, _COMPARISONS):
        is_plain = not any(isinstance(part, _NOT_OPERANDS) for part in (node.this, node.expression))
        return _strict(node.this, scope) | _strict(node.expression, scope) if is_plain else _NONE
    if isinstance(node, exp.Is):
        is_true ^= bool(node.args.get("negate"))
        if not _is_rejects_null(node, is_true=is_true):
            return _NONE
        return _itself(node.this, scope) or _strict(node.this, scope)
    if isinstance(node, exp.In):
        return _strict(node.this, scope) if _in_rejects_null(node, is_true=is_true) else _NONE
    if isinstance(node, exp.Between) and not node.args.get("symmetric"):
        limits = (node.args["low"], node.args["high"]) if is_true else ()
        return _strict(node.this, scope).union(*(_strict(limit, scope) for limit in limits))
    return _itself(node, scope) if isinstance(node, exp.Column) else _NONE


def both_hold(node: exp.And | exp.Or, *, is_true: bool) -> bool:
    """Return whether both parts of AND are TRUE, or both parts of OR are FALSE."""
    return isinstance(node, exp.And) == is_true


def _is_rejects_null(node: exp.Is, *, is_true: bool) -> bool:
    return (isinstance(node.expression, exp.Null) and not is_true) or (
        isinstance(node.expression, exp.Boolean) and is_true
    )


def _in_rejects_null(node: exp.In, *, is_true: bool) -> bool:
    """Return whether IN says that its operand is not NULL: NOT IN over a query without rows does not."""
    if node.args.get("query"):
        return is_true and has_only(node, "this", "query")
    return bool(node.expressions) and has_only(node, "this", "expressions")


def _itself(node: exp.Expr, scope: Scope) -> frozenset[Id]:
    """Return the column that an expression is, if it has the same value wherever it is read."""
    found = scope.identify(node)
    return frozenset({found}) if found is not None and scope.rows.columns[found].is_stable else _NONE


def _strict(node: exp.Expr, scope: Scope) -> frozenset[Id]:
    """Return the columns whose NULL makes an expression NULL."""
    found = scope.identify(node)
    if found is not None:
        is_certain = is_null_without_value(scope.rows.columns[found], scope.environment.semantics)
        return _itself(node, scope) if is_certain else _NONE
    if isinstance(node, exp.Paren | exp.Neg):
        return _strict(node.this, scope)
    if isinstance(node, _STRICT_IN_ALL):
        return _strict(node.this, scope) | _strict(node.expression, scope)
    return _strict(node.this, scope) if isinstance(node, _STRICT_IN_FIRST) else _NONE


def literal(node: exp.Expr) -> tuple[str, bool] | None:
    """Return the text of a literal and whether it is quoted.

    >>> literal(exp.Literal.string("a")), literal(exp.Literal.number(1)), literal(exp.Null())
    (('a', True), ('1', False), None)
    """
    if isinstance(node, exp.Literal):
        return node.name, bool(node.is_string)
    return (str(node.this).lower(), False) if isinstance(node, exp.Boolean) else None


def _values_if_true(node: exp.Expr, scope: Scope) -> dict[Id, Values]:
    """Return the literals that columns equal where a predicate is TRUE."""
    if isinstance(node, exp.Paren):
        return _values_if_true(node.this, scope)
    if isinstance(node, exp.And | exp.Or):
        one, other = _values_if_true(node.this, scope), _values_if_true(node.expression, scope)
        if both_hold(node, is_true=True):
            return {**one, **other}
        return {
            column: Values(one[column].texts | other[column].texts, one[column].quoted)
            for column in one.keys() & other.keys()
            if one[column].quoted == other[column].quoted
        }
    found = _compared(node, exp.EQ, scope)
    return {found[0]: found[1]} if found else {}


def _compared(node: exp.Expr, kind: type[exp.Expr], scope: Scope) -> tuple[Id, Values] | None:
    """Return the column and the literals that `=`, `<>` or IN compares."""
    if isinstance(node, kind):
        pairs = [(node.this, [node.args["expression"]]), (node.args["expression"], [node.this])]
    elif kind is exp.EQ and isinstance(node, exp.In) and node.expressions and has_only(node, "this", "expressions"):
        pairs = [(node.this, node.expressions)]
    else:
        return None
    for operand, others in pairs:
        column = scope.identify(operand)
        texts = [literal(other) for other in others]
        if column is None or any(text is None for text in texts) or not scope.rows.columns[column].is_stable:
            continue
        if len({text[1] for text in texts if text is not None}) == 1:
            known = [text for text in texts if text is not None]
            return column, Values(frozenset(text for text, _ in known), known[0][1])
    return None


def _excluded(node: exp.Expr, scope: Scope) -> dict[Id, Values]:
    found = _compared(node, exp.NEQ, scope)
    if isinstance(node, exp.Not):
        inner = node.this.unnest() if isinstance(node.this, exp.Paren) else node.this
        found = _compared(inner, exp.EQ, scope)
    return {found[0]: found[1]} if found else {}


def _pinned(node: exp.Expr, scope: Scope) -> frozenset[Id]:
    """Return the column that has one value, perhaps NULL, where a conjunct is TRUE."""
    inner = node.this if isinstance(node, exp.Not) else node
    if isinstance(node, exp.Is) and isinstance(node.expression, exp.Null) and has_only(node, "this", "expression"):
        column = scope.identify(node.this)
        # A row of NULLs is another value than NULL, though IS NULL is TRUE for it. Values of known types are never rows.
        is_one = (
            column is not None and scope.rows.columns[column].is_stable and scope.rows.columns[column].type is not None
        )
        return frozenset({column}) if is_one and column is not None else _NONE
    if isinstance(inner, exp.Column):
        column = scope.identify(inner)
        is_one = (
            column is not None and scope.rows.columns[column].type == BOOLEAN and scope.rows.columns[column].is_stable
        )
        return frozenset({column}) if is_one and column is not None else _NONE
    found = _compared(node, exp.EQ, scope) if isinstance(node, exp.EQ) else None
    if found is None:
        return _NONE
    column, values = found
    is_boolean = values.texts <= {"true", "false"}
    return (
        frozenset({column})
        if _names_one_value(scope.rows.columns[column], values, scope, is_boolean=is_boolean)
        else _NONE
    )


def _names_one_value(column: Column, values: Values, scope: Scope, *, is_boolean: bool) -> bool:
    """Return whether only one value of a column can equal a literal: not so if values are converted first."""
    if values.quoted:
        return column.type == TEXT or scope.environment.semantics.types_literals_by_column
    return column.type == BOOLEAN if is_boolean else (column.type == INTEGER or is_decimal(column.type))


def _equal(node: exp.Expr, scope: Scope) -> tuple[tuple[Id, Id], ...]:
    if not isinstance(node, exp.EQ):
        return ()
    one, other = scope.identify(node.this), scope.identify(node.expression)
    if one is None or other is None or one == other:
        return ()
    return ((one, other),) if all(scope.rows.columns[column].is_stable for column in (one, other)) else ()


def _members_of_query(operand: exp.Expr, query: exp.Expr, scope: Scope) -> dict[Id, tuple[Member, ...]]:
    column = scope.identify(operand)
    if column is None or not scope.rows.columns[column].is_stable:
        return {}
    rows = scope.environment.derive(query, scope.environment.inner())
    if rows.is_open or len(rows.columns) != 1:
        return {}
    (inner,) = rows.columns.values()
    return {column: members_by_equality(scope.rows.columns[column], inner, scope.environment.semantics)}


def members_by_equality(column: Column, other: Column, semantics: Semantics) -> tuple[Member, ...]:
    """Return the parents' columns that hold a column's values, as `=` finds each of them in another column."""
    # The test reads all rows of the parent, and one that the query does not read may fail to be converted.
    is_converted = column.type is None or column.type != other.type
    direct = (Member(*other.origin),) if other.origin is not None and semantics.keeps_types and not is_converted else ()
    return (*direct, *(other.members if are_comparable(column, other, semantics) else ()))


def _exists(node: exp.Exists, scope: Scope) -> Implied:
    """Return what `exists (select … from b where b.k = a.k)` says of `a.k`."""
    select = node.this
    if (
        not has_only(node, "this")
        or not isinstance(select, exp.Select)
        or not has_only(select, "expressions", "from", "joins", "where")
    ):
        return Implied()
    if not _gives_its_rows(select) or argument(select, "from") is None:
        return Implied()
    sources = [argument(select, "from").this, *(join.this for join in select.args.get("joins") or ())]
    if not all(isinstance(source, exp.Table) for source in sources):
        return Implied()
    inner_names = {source_name(source, scope.environment) for source in sources}
    not_null: set[Id] = set()
    members: dict[Id, tuple[Member, ...]] = {}
    where = select.args.get("where")
    for conjunct in conjuncts(where.this if where is not None else None):
        if not isinstance(conjunct, exp.EQ):
            continue
        for outer, inner in ((conjunct.this, conjunct.expression), (conjunct.expression, conjunct.this)):
            if _is_of_outer(outer, inner_names, scope.environment) and scope.identify(outer) is not None:
                query = select.copy()
                query.set("expressions", [inner.copy()])
                members.update(_members_of_query(outer, query, scope))
                not_null |= _strict(outer, scope)
    return Implied(frozenset(not_null), members=members)


def _gives_its_rows(select: exp.Select) -> bool:
    """Return whether a SELECT has a row for each row of its FROM: an aggregate makes one even of none."""
    return all(isinstance(item, exp.Star | exp.Literal | exp.Column) for item in select.expressions)


def _is_of_outer(node: exp.Expr, inner_names: set[str | None], environment: Environment) -> bool:
    qualifier = node.args.get("table") if isinstance(node, exp.Column) else None
    return qualifier is not None and environment.fold(qualifier) not in inner_names


def filtered(scope: Scope, predicate: exp.Expr | None, word: str) -> Rows:
    """Return the rows of a scope for which a predicate is TRUE."""
    rows = scope.rows
    for conjunct in conjuncts(predicate):
        text = conjunct.sql(dialect=scope.environment.dialect, comments=False)
        rows = _with_facts(rows, implied(conjunct, scope), (Step(f"{word} {text}"),), scope.environment.semantics)
    return rows


def _with_facts(rows: Rows, facts: Implied, reason: Reason, semantics: Semantics) -> Rows:
    columns = dict(rows.columns)
    for column in facts.not_null:
        if columns[column].not_null is None:
            columns[column] = replace(columns[column], not_null=reason)
    for column, values in facts.values.items():
        columns[column] = replace(
            columns[column], values=_narrowed(columns[column].values, replace(values, reason=reason))
        )
    for column, values in facts.excluded.items():
        columns[column] = replace(columns[column], values=_without(columns[column].values, values, reason))
    for column in facts.pinned:
        columns[column] = replace(columns[column], constant=columns[column].constant or reason)
    for column, members in facts.members.items():
        added = tuple(replace(member, reason=joined(reason, member.reason)) for member in members)
        columns[column] = replace(columns[column], members=(*columns[column].members, *added))
    rows = changed(rows, columns)
    for one, other in facts.equal:
        rows = equated(rows, one, other, reason, semantics)
    return rows


def _narrowed(known: Values | None, new: Values) -> Values:
    """Return the shorter list. Lists are not intersected, since two literals can be one value."""
    return new if known is None or len(new.texts) <= len(known.texts) else known


def _without(known: Values | None, excluded: Values, reason: Reason) -> Values | None:
    if known is None or known.quoted != excluded.quoted:
        return known
    return Values(known.texts - excluded.texts, known.quoted, joined(known.reason, reason))


def equated(rows: Rows, one: Id, other: Id, reason: Reason, semantics: Semantics) -> Rows:
    """Return rows in which two columns are equal, and neither is NULL: each has the other's facts."""
    first, second = rows.columns[one], rows.columns[other]
    columns = {
        this: replace(
            facts,
            not_null=reason if facts.not_null is None and is_null_without_value(facts, semantics) else facts.not_null,
            members=(
                *facts.members,
                *(
                    replace(member, reason=joined(reason, member.reason))
                    for member in members_by_equality(facts, opposite, semantics)
                ),
            ),
        )
        for this, facts, opposite in ((one, first, second), (other, second, first))
    }
    rows = changed(rows, columns)
    if not are_comparable(first, second, semantics):
        return rows
    swapped = [
        Key(key.columns - {this} | {that}, key.is_strict, joined(key.reason, reason))
        for key in rows.keys
        for this, that in ((one, other), (other, one))
        if this in key.columns
    ]
    return with_keys(rows, [*rows.keys, *swapped])


def followed(rows: Rows, column: Id, follower: Id, reason: Reason, semantics: Semantics) -> Rows:
    """Return rows in which a column of the optional side is NULL or equals another: lax keys and parents pass to it."""
    facts = rows.columns[follower]
    members = members_by_equality(facts, rows.columns[column], semantics)
    added = tuple(replace(member, reason=joined(reason, member.reason)) for member in members)
    rows = changed(rows, {follower: replace(facts, members=(*facts.members, *added))})
    keys = [
        Key(key.columns - {column} | {follower}, is_strict=False, reason=joined(key.reason, reason))
        for key in rows.keys
        if column in key.columns
    ]
    return with_keys(rows, [*rows.keys, *keys])
