"""GROUP BY, aggregates, windows and DISTINCT: what combines rows, and what numbers them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from sqlglot import exp

from dagster_sao.sql.proofs.column_types import INTEGER, is_scalar
from dagster_sao.sql.proofs.expressions import describe, shown
from dagster_sao.sql.proofs.facts import Column, Id, Key, Reason, Rows, Step, key_within, with_keys
from dagster_sao.sql.proofs.scope import NODE, Scope, classes, has_only

_EXTREMES = (exp.Min, exp.Max)
_OF_SOME_ROW = (*_EXTREMES, exp.Sum, exp.Avg, exp.AnyValue)
# Among the aggregates of sqlglot, these certainly make one row of many.
_CERTAIN: tuple[type, ...] = (
    *_OF_SOME_ROW,
    *classes("Count", "ArrayAgg", "GroupConcat", "Stddev", "Variance", "LogicalAnd", "LogicalOr", "Median"),
)
_NUMBERING = classes("RowNumber", "Rank", "DenseRank")
_SCALAR = frozenset({
    "Abs", "Add", "Adjacent", "And", "Between", "Boolean", "Case", "Cast", "Ceil", "Coalesce", "Concat", "ConcatWs",
    "CurrentDate", "CurrentTimestamp", "DPipe", "DateAdd", "DateDiff", "DateStrToDate", "DateSub", "DateToDateStr",
    "DateTrunc", "Day", "DayOfMonth", "DayOfWeek", "DayOfYear", "Div", "EQ", "Exp", "Extract", "Floor", "GT", "GTE",
    "Greatest", "ILike", "If", "In", "Initcap", "IntDiv", "Is", "JSONExtract", "JSONExtractScalar", "LT", "LTE",
    "Least", "Left", "Length", "Like", "Ln", "Log", "Lower", "MD5", "Mod", "Month", "Mul", "NEQ", "Neg", "Not",
    "NullSafeEQ", "NullSafeNEQ", "Nullif", "Or", "ParseJSON", "Pad", "Pow", "Quarter", "RegexpExtract",
    "RegexpLike", "RegexpReplace", "Replace", "Right", "Round", "SHA", "SHA2", "Sign", "Sqrt", "StrPosition",
    "StrToDate", "StrToTime", "Sub", "Substring", "TimeToStr", "TimestampAdd", "TimestampDiff", "TimestampSub",
    "TimestampTrunc", "ToChar", "Translate", "Trim", "TryCast", "TsOrDsToDate", "TsOrDsToTimestamp", "Upper",
    "Week", "Xor", "Year",
})  # fmt: skip


def may_multiply_rows(select: exp.Select) -> str:
    """Return the function in a SELECT that could make several rows of one, such as `unnest`; empty where there is none.

    A function that is not known could be such a function, and an ORDER BY can hold one too.
    """
    for node in _nodes_of(select, "expressions", "group", "order", "distinct", "qualify", "windows"):
        is_of_window = isinstance(node.parent, exp.Window) and node.parent.this is node
        is_known = type(node).__name__ in _SCALAR or isinstance(node, exp.AggFunc) or is_of_window
        if isinstance(node, exp.Func | exp.UDTF | exp.Anonymous) and not is_known:
            return f"{node.name or type(node).__name__}(…)".lower()
    return ""


def in_this_query(node: exp.Expr) -> Iterator[exp.Expr]:
    """Yield a node and all below it, without queries inside."""
    yield node
    for child in node.iter_expressions():
        if not isinstance(child, exp.Query):
            yield from in_this_query(child)


def _nodes_of(select: exp.Select, *names: str) -> Iterator[exp.Expr]:
    """Yield the nodes of some clauses of a SELECT, without queries inside."""
    for name in names:
        value = select.args.get(name)
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, NODE):
                yield from in_this_query(part)


def aggregates(select: exp.Select) -> list[exp.Expr]:
    """Return the aggregate functions that make one row of many; a window's function does not, but its arguments may."""
    nodes = _nodes_of(select, "expressions", "having", "qualify", "order")
    return [node for node in nodes if isinstance(node, exp.AggFunc) and not _is_of_window(node)]


def _is_of_window(node: exp.Expr) -> bool:
    parent = node.parent
    while isinstance(parent, exp.Filter | exp.IgnoreNulls | exp.RespectNulls) and parent.this is node:
        node, parent = parent, parent.parent
    return isinstance(parent, exp.Window) and parent.this is node


def grouped(scope: Scope, select: exp.Select, found: list[exp.Expr], *, multiplies: bool) -> Rows:
    """Return the rows of GROUP BY, with a column for each aggregate."""
    group = select.args.get("group")
    scope.rivals = frozenset(name for name, item in scope.aliases.items() if not _has_aggregate(item))
    items = _group_items(scope, select, group)
    before = scope.rows
    keys: list[Key] = []
    columns: dict[Id, Column] = {}
    texts: dict[str, Id] = {}
    is_plain = items is not None and (group is not None or any(isinstance(node, _CERTAIN) for node in found))
    if is_plain:
        columns, texts = _grouped_columns(scope, items or [])
        keys = group_keys(before, columns, has_group=group is not None, multiplies=multiplies)
    elif group is not None:
        keys, columns = _rollup(scope, group)
        scope.has_totals = True
    # Without a column to group by, there may be a group of no rows.
    has_rows = any(_has_column(item) for item in items or ())
    selected = {id(node) for node in _nodes_of(select, "expressions")}
    for number, node in enumerate(found):
        name = ("aggregate", str(number))
        scope.rivals = frozenset() if id(node) in selected else frozenset(scope.aliases)
        columns[name] = aggregate(node, scope, has_rows=has_rows)
        scope.computed[id(_with_filter(node))] = name
        if is_plain and (key := _key_of_extreme(node, scope, name)) is not None and not multiplies:
            keys.append(key)
    scope.groups = texts
    return with_keys(Rows(columns, losses=before.losses), keys)


def _grouped_columns(scope: Scope, items: list[exp.Expr]) -> tuple[dict[Id, Column], dict[str, Id]]:
    """Return the columns that items are grouped by, and the texts of those that are expressions."""
    columns: dict[Id, Column] = {}
    texts: dict[str, Id] = {}
    for number, item in enumerate(items):
        identity = scope.identify(item)
        facts = scope.rows.columns[identity] if identity is not None else describe(item, scope)
        text = scope.text_of(item) if identity is None and facts.is_stable else None
        identity = identity or ("group", str(number))
        columns[identity] = facts if facts.shown else replace(facts, shown=shown(item, scope))
        if text is not None:
            texts[text] = identity
    return columns, texts


def group_keys(before: Rows, columns: Mapping[Id, Column], *, has_group: bool, multiplies: bool) -> list[Key]:
    """Return the keys of grouped rows: the grouped columns, and the keys among them that rows had before."""
    if not has_group:
        return [Key(frozenset(), is_strict=True, reason=(Step("one row of aggregates"),))]
    names = ", ".join(facts.shown for facts in columns.values())
    own = Key(frozenset(columns), is_strict=True, reason=(Step(f"group by {names}"),))
    return [own, *([] if multiplies else [key for key in before.keys if key.columns <= columns.keys()])]


def _group_items(scope: Scope, select: exp.Select, group: exp.Expr | None) -> list[exp.Expr] | None:
    """Return the grouped expressions; None where there are several groupings, or one is not certain."""
    if group is None:
        return []
    if group.args.get("all"):
        return _items_of_all(scope, select) if has_only(group, "all") else None
    several = (exp.Rollup, exp.Cube, exp.GroupingSets, exp.Tuple)
    if not has_only(group, "expressions") or any(isinstance(item, several) for item in group.expressions):
        return None
    return [_group_item(scope, select, item) for item in group.expressions]


def _items_of_all(scope: Scope, select: exp.Select) -> list[exp.Expr] | None:
    """Return what GROUP BY ALL groups by; None where a column stands beside an aggregate in one expression.

    Constants are no groups: a query with nothing else is not grouped at all.
    """
    items = [_unaliased(item) for item in select.expressions]
    with_aggregates = [item for item in items if _has_aggregate(item)]
    if _has_star(items) or any(_mixes(item) for item in with_aggregates):
        return None
    groups = [item for item in items if not any(item is other for other in with_aggregates) and _has_column(item)]
    return groups if groups and all(partitions_exactly(describe(item, scope), scope) for item in groups) else None


def _has_aggregate(item: exp.Expr) -> bool:
    return any(isinstance(node, exp.AggFunc) for node in in_this_query(item))


def _has_column(item: exp.Expr) -> bool:
    return any(isinstance(node, exp.Column) for node in item.walk())


def _mixes(item: exp.Expr) -> bool:
    if isinstance(item, exp.AggFunc):
        return False
    if isinstance(item, exp.Column | exp.Window | exp.Query):
        return True
    return any(_mixes(child) for child in item.iter_expressions())


def _group_item(scope: Scope, select: exp.Select, item: exp.Expr) -> exp.Expr:
    if isinstance(item, exp.Literal) and not item.is_string and scope.environment.semantics.groups_by_position:
        before = select.expressions[: int(item.name)] if item.name.isdigit() else []
        return (
            _unaliased(before[-1])
            if before and len(before) == int(item.name) and not _has_star(before)
            else exp.Placeholder()
        )
    return scope.alias_of(item) or item


def _has_star(items: list[exp.Expr]) -> bool:
    return any(item.is_star or isinstance(item, exp.Columns) for item in items)


def _unaliased(item: exp.Expr) -> exp.Expr:
    return item.this if isinstance(item, exp.Alias) else item


def _rollup(scope: Scope, group: exp.Expr) -> tuple[list[Key], dict[Id, Column]]:
    """Return the lax key of a rollup of one column: the total's row has a NULL in it. More columns have no key."""
    # Older releases of sqlglot keep a rollup apart.
    sets = [*group.expressions, *(group.args.get("rollup") or ())]
    only = sets[0] if len(sets) == 1 and has_only(group, "expressions", "rollup") else None
    items = only.expressions if isinstance(only, exp.Rollup) else []
    column = scope.identify(items[0]) if len(items) == 1 else None
    if column is None:
        return [], {}
    facts = replace(
        scope.rows.columns[column],
        not_null=None,
        constant=None,
        nullable_because="the total of a rollup has a NULL in it",
    )
    return [Key(frozenset({column}), is_strict=False, reason=(Step(f"group by rollup({facts.shown})"),))], {
        column: facts
    }


def _with_filter(node: exp.Expr) -> exp.Expr:
    """Return the node that a query's expression holds: an aggregate, or its FILTER around it."""
    return node.parent if isinstance(node.parent, exp.Filter) and node.parent.this is node else node


def aggregate(node: exp.Expr, scope: Scope, *, has_rows: bool) -> Column:
    """Return the facts of an aggregate. `has_rows` says whether each group surely has a row."""
    because = (
        f"{shown(node, scope)} is NULL where there are no rows" if not has_rows else f"{shown(node, scope)} may be NULL"
    )
    if isinstance(node, exp.Count):
        return Column(type=INTEGER, not_null=())
    if not isinstance(node, _OF_SOME_ROW) or not has_only(node, "this"):
        return Column(nullable_because=because, is_stable=False)
    inner = describe(node.this, scope)
    return Column(
        type=inner.type if isinstance(node, _EXTREMES) else None,
        has_scalar_type=is_scalar(inner),
        not_null=aggregate_not_null(node, inner, scope, has_rows=has_rows),
        nullable_because=inner.nullable_because if has_rows and inner.not_null is None else because,
        values=inner.values if isinstance(node, _EXTREMES) else None,
        members=inner.members if isinstance(node, _EXTREMES) else (),
        is_stable=inner.is_stable,
    )


def aggregate_not_null(node: exp.Expr, inner: Column, scope: Scope, *, has_rows: bool) -> Reason | None:
    """Return why an aggregate of some row's value is never NULL: each group has rows, all with a value."""
    is_certain = isinstance(node, _EXTREMES) or scope.environment.semantics.fails_loudly
    is_filtered = isinstance(_with_filter(node), exp.Filter)
    return inner.not_null if has_rows and is_certain and not is_filtered else None


def _key_of_extreme(node: exp.Expr, scope: Scope, name: Id) -> Key | None:
    """Return the key that the smallest or largest value of a unique column is: no two groups share a row."""
    column = scope.identify(node.this) if isinstance(node, _EXTREMES) and has_only(node, "this") else None
    reason = key_within(scope.rows, [column], is_strict=False) if column is not None else None
    return None if reason is None else Key(frozenset({name}), is_strict=False, reason=reason)


def windowed(scope: Scope, select: exp.Select) -> Rows:
    """Return rows with a column for each window function."""
    columns = dict(scope.rows.columns)
    keys: list[Key] = []
    selected = {id(node) for node in _nodes_of(select, "expressions")}
    windows = [node for node in _nodes_of(select, "expressions", "qualify") if isinstance(node, exp.Window)]
    for number, node in enumerate(windows):
        scope.rivals = frozenset() if id(node) in selected else frozenset(scope.aliases)
        name = ("window", str(number))
        partition = _partition(node, select)
        scope.computed[id(node)] = name
        columns[name] = window(node, scope, is_whole=partition is not None)
        if numbers_rows(node.this) and partition is not None:
            keys.extend(_numbered(scope, partition, name, shown(node, scope)))
    scope.rivals = frozenset(scope.aliases)
    return with_keys(replace(scope.rows, columns=columns), [*scope.rows.keys, *keys])


def _partition(node: exp.Window, select: exp.Select) -> list[exp.Expr] | None:
    """Return the partition of a window, None where the window is not understood."""
    if not has_only(node, "this", "partition_by", "order", "over", "alias", "spec"):
        return None
    if node.args.get("alias") is None:
        return list(node.args.get("partition_by") or ())
    named = [window for window in select.args.get("windows") or () if window.name == node.args["alias"].name]
    if (
        len(named) != 1
        or not has_only(named[0], "this", "partition_by", "order")
        or not has_only(node, "this", "over", "alias")
    ):
        return None
    return list(named[0].args.get("partition_by") or ())


def window(node: exp.Window, scope: Scope, *, is_whole: bool) -> Column:
    """Return the facts of a window function; `is_whole` says whether its window is understood."""
    function = node.this
    if is_whole and is_numbering(function):
        return Column(type=INTEGER, not_null=())
    because = f"{shown(function, scope)} over a window may be NULL"
    if not is_whole or isinstance(function, exp.Filter) or not isinstance(function, exp.AggFunc):
        return Column(nullable_because=because, is_stable=False)
    # Without a frame of its own, a window holds the row itself.
    facts = aggregate(function, scope, has_rows=not node.args.get("spec") and not node.args.get("alias"))
    return replace(facts, nullable_because=facts.nullable_because or because)


def is_numbering(function: exp.Expr) -> bool:
    """Return whether a window function gives each row a number."""
    # Older releases of sqlglot know some of them by name only.
    is_by_name = isinstance(function, exp.Anonymous) and function.name.lower() in {"rank", "dense_rank"}
    return is_by_name or isinstance(function, _NUMBERING)


def numbers_rows(function: exp.Expr) -> bool:
    """Return whether a window function gives each row of a partition another number: `rank` gives ties one."""
    return isinstance(function, exp.RowNumber)


def _numbered(scope: Scope, partition: list[exp.Expr], name: Id, text: str) -> list[Key]:
    """Return the key that row_number() makes: its number, within the columns of its partition."""
    columns = [scope.identify(part) for part in partition]
    if any(column is None or not scope.rows.columns[column].is_stable for column in columns):
        return []
    if any(not partitions_exactly(scope.rows.columns[column], scope) for column in columns if column is not None):
        return []
    return [
        Key(
            frozenset([name, *(column for column in columns if column is not None)]),
            is_strict=True,
            reason=(Step(text),),
        )
    ]


def partitions_exactly(column: Column, scope: Scope) -> bool:
    """Return whether PARTITION BY and GROUP BY ALL tell a column's values apart as GROUP BY does."""
    return column.type is not None or scope.environment.semantics.partitions_as_it_groups


def distinct_on(scope: Scope, select: exp.Select) -> Rows:
    """Return the rows that DISTINCT ON keeps: one for each combination of its expressions."""
    distinct = select.args.get("distinct")
    on = distinct.args.get("on") if distinct is not None else None
    if on is None:
        return scope.rows
    items = on.expressions if isinstance(on, exp.Tuple) else [on.this if isinstance(on, exp.Paren) else on]
    columns = [scope.identify(_group_item(scope, select, item)) for item in items]
    if any(column is None or not scope.rows.columns[column].is_stable for column in columns):
        return scope.rows
    names = ", ".join(shown(item, scope) for item in items)
    key = Key(
        frozenset(column for column in columns if column is not None),
        is_strict=True,
        reason=(Step(f"distinct on {names}"),),
    )
    return with_keys(scope.rows, [*scope.rows.keys, key])


def distinct(rows: Rows) -> Rows:
    """Return rows without repetition: all columns together are a key."""
    if rows.is_open:
        return rows
    return with_keys(
        rows, [*rows.keys, Key(frozenset(rows.columns), is_strict=True, reason=(Step("select distinct"),))]
    )
