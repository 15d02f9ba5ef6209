"""FROM: the rows of sources and of their joins.

The rules about keys rest on one question: to how many rows of the other side can a row be joined? NULLs match nothing under `=`,
so a lax key of the other side is enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import product

from sqlglot import exp

from dagster_sao.sql.dialects import Semantics
from dagster_sao.sql.proofs import predicates
from dagster_sao.sql.proofs.alternatives import one_of
from dagster_sao.sql.proofs.clauses import matches
from dagster_sao.sql.proofs.column_types import are_comparable, is_null_without_value
from dagster_sao.sql.proofs.facts import (
    NOTHING,
    Column,
    Id,
    Key,
    Reason,
    Rows,
    Step,
    as_lax,
    changed,
    cited,
    joined,
    optional,
    with_keys,
)
from dagster_sao.sql.proofs.scope import (
    Environment,
    Scope,
    aliases_of,
    argument,
    has_only,
    renamed,
    source_name,
    table_rows,
)

_KINDS = {
    *product(("LEFT", "RIGHT", "FULL"), ("", "OUTER")),
    *product(("", "LEFT"), ("SEMI", "ANTI")),
    ("", ""), ("", "INNER"), ("", "CROSS"),
}  # fmt: skip
_JOIN_ARGUMENTS = ("this", "side", "kind", "on", "using")
_MOST_PAIRS = 4


@dataclass(frozen=True, slots=True)
class _Join:
    """One join and its condition."""

    kind: str
    """inner, left, right, full, cross, semi or anti."""
    name: str
    """The source on the right, as readers see it."""
    on: exp.Expr | None
    equal: tuple[tuple[Id, Id], ...]
    """Columns of the left and of the right that are equal where rows match."""
    using: tuple[tuple[Id, Id], ...] = ()
    """The pairs among them that USING names."""


def from_clause(select: exp.Select, environment: Environment) -> Scope:
    """Return the sources of a SELECT and the rows that they make together, before WHERE."""
    scope = Scope(environment, aliases=aliases_of(select, environment))
    clause = argument(select, "from")
    joins: list[exp.Join] = select.args.get("joins") or []
    if clause is None:
        # One row without a column.
        scope.rows = NOTHING if joins else Rows(keys=(Key(frozenset(), is_strict=True),))
        return scope
    if not _is_understood(joins) or _add_source(scope, clause.this) is None:
        return Scope(environment, {"": NOTHING}, NOTHING)
    scope.rows = _qualified(next(iter(scope.sources)), scope)
    where = matches.usable_where(select, joins)
    for join in joins:
        before = scope.rows
        name = _add_source(scope, join.this)
        if name is None:
            return Scope(environment, {"": NOTHING}, NOTHING)
        _join(scope, before, name, join, where)
    return scope


def _is_understood(joins: Iterable[exp.Join]) -> bool:
    joins = list(joins)
    if any(
        not has_only(join, *_JOIN_ARGUMENTS) or (join.side.upper(), join.kind.upper()) not in _KINDS for join in joins
    ):
        return False
    # A comma binds less than JOIN, which does not matter to joins that keep all rows of the left.
    has_comma = any(has_only(join, "this") for join in joins)
    return not (has_comma and any(join.side.upper() in {"RIGHT", "FULL"} for join in joins))


def _add_source(scope: Scope, source: exp.Expr) -> str | None:
    """Add a source under its name; return None where two could have one name."""
    environment = scope.environment
    name = source_name(source, environment) or f"#{len(scope.sources)}"
    if name in scope.sources:
        return None
    scope.sources[name] = renamed(_source_rows(scope, source), source.args.get("alias"), environment)
    return name


def _source_rows(scope: Scope, source: exp.Expr) -> Rows:
    environment = scope.environment
    if isinstance(source, exp.Table):
        return table_rows(source, environment)
    if (
        isinstance(source, exp.Subquery)
        and has_only(source, "this", "alias", "with")
        and isinstance(source.this, exp.Query)
    ):
        if scope.sources and environment.semantics.sees_sources_to_the_left:
            environment = replace(environment, is_inner=True, is_lateral=True)
        return environment.derive(source, environment)
    return NOTHING


def _qualified(name: str, scope: Scope) -> Rows:
    """Return a source's rows with its name in front of each column name."""
    rows = scope.sources[name]
    return replace(
        rows,
        columns={
            (name, str(column)): facts if facts.shown else replace(facts, shown=f"{name}.{column}")
            for column, facts in rows.columns.items()
        },
        keys=tuple(replace(key, columns=frozenset((name, str(column)) for column in key.columns)) for key in rows.keys),
    )


def _join(scope: Scope, left: Rows, name: str, join: exp.Join, where: list[exp.Expr]) -> None:
    """Join a source that was added to what is on its left."""
    right = _qualified(name, scope)
    kind = _kind(join)
    on = join.args.get("on")
    equalities = matches.equalities(where)
    if kind in {"inner", "cross"} and equalities:
        on = exp.and_(*([on] if on is not None else []), *equalities, copy=True)
        kind = "inner"
    scope.rows = replace(left, columns={**left.columns, **right.columns})
    pairs = _using_pairs(scope, join, name)
    equal = [
        pair for node in predicates.conjuncts(on) for pair in _sides(predicates.implied(node, scope).equal, left, right)
    ]
    using = tuple(pairs.values())
    facts = _Join(kind, name, on, tuple(dict.fromkeys([*using, *equal])), using)
    scope.rows = _joined_rows(scope, left, right, facts, _why_matched(scope, left, right, facts, where))
    if kind in {"semi", "anti"}:
        del scope.sources[name]
        return
    _merge(scope, left, right, pairs, facts)


def _kind(join: exp.Join) -> str:
    kind, side = join.kind.upper(), join.side.upper()
    if kind in {"SEMI", "ANTI", "CROSS"}:
        return kind.lower()
    if side:
        return side.lower()
    return "inner" if join.args.get("on") is not None or join.args.get("using") else "cross"


def _sides(pairs: Iterable[tuple[Id, Id]], left: Rows, right: Rows) -> list[tuple[Id, Id]]:
    """Return the pairs that compare a column of the left with one of the right, in this order."""
    both = [pair for one, other in pairs for pair in ((one, other), (other, one))]
    return [(one, other) for one, other in both if one in left.columns and other in right.columns]


def _using_pairs(scope: Scope, join: exp.Join, name: str) -> dict[str, tuple[Id, Id]]:
    found: dict[str, tuple[Id, Id]] = {}
    sources = dict(scope.sources)
    right = scope.sources.pop(name)
    for column in join.args.get("using") or ():
        identifier = column.this if isinstance(column, exp.Column) else column
        one = scope.resolve(exp.Column(this=identifier.copy()))
        text = scope.environment.fold(identifier)
        # The name stands for no column until it is known for which.
        scope.merged[text] = ("using", f"{name}.{text}")
        owners = {alias for alias, rows in scope.sources.items() if text in rows.columns}
        scope.using.setdefault(text, {one[0]} & owners if one is not None else owners).add(name)
        if one is not None and text in right.columns:
            found[text] = (one, (name, text))
    scope.sources = sources
    return found


def _merge(scope: Scope, left: Rows, right: Rows, pairs: Mapping[str, tuple[Id, Id]], join: _Join) -> None:
    """Name the columns that USING merged."""
    semantics = scope.environment.semantics
    for text, (one, other) in pairs.items():
        is_same = are_comparable(left.columns[one], right.columns[other], semantics)
        if is_same and join.kind in {"inner", "left"}:
            scope.merged[text] = one
        elif is_same and join.kind == "right":
            scope.merged[text] = other
        else:
            merged = ("using", f"{join.name}.{text}")
            before = [left.columns[one], right.columns[other]]
            scope.rows = replace(scope.rows, columns={**scope.rows.columns, merged: _merged(before, text, semantics)})
            scope.merged[text] = merged
            if join.kind == "full" and is_same:
                scope.rows = with_keys(scope.rows, [*scope.rows.keys, *_key_of_merged(left, right, pairs, merged)])


def _merged(sides: list[Column], text: str, semantics: Semantics) -> Column:
    facts = one_of(sides)
    reasons = [side.not_null for side in sides]
    is_not_null = semantics.fails_loudly and all(reason is not None for reason in reasons)
    not_null = joined(*(reason or () for reason in reasons)) if is_not_null else None
    return replace(facts, shown=text, not_null=not_null, nullable_because=f"one side of the join may have no {text}")


def _key_of_merged(left: Rows, right: Rows, pairs: Mapping[str, tuple[Id, Id]], merged: Id) -> list[Key]:
    """Return the one column of a full join's USING as a key, where each side has each of its values once."""
    if len(pairs) != 1:
        return []
    ((one, other),) = pairs.values()
    first, second = (_once(rows, [column]) for rows, column in ((left, one), (right, other)))
    if first is None or second is None:
        return []
    reason = tuple(replace(step, text=f"full join of {step.text}") for step in (first, second))
    return [Key(frozenset({merged}), is_strict=False, reason=reason)]


def _why_matched(scope: Scope, left: Rows, right: Rows, join: _Join, where: list[exp.Expr]) -> Reason | None:
    """Return why each row that a left join gives, or that WHERE keeps of it, has a match."""
    if join.kind != "left":
        return None
    why = matches.why_rejected(where, scope, right)
    conditions = len(list(predicates.conjuncts(join.on))) + len(join.using)
    if why is not None or conditions != 1 or len(join.equal) != 1:
        return why
    return matches.why_child_matches(left, right, *join.equal[0])


def _joined_rows(scope: Scope, left: Rows, right: Rows, join: _Join, why_matched: Reason | None) -> Rows:
    """Return the rows of a join. `scope.rows` has the columns of both sides.

    `why_matched` tells why each row of a left join has a match, None where that is not known.
    """
    comparable = [
        (one, other)
        for one, other in join.equal
        if are_comparable(left.columns[one], right.columns[other], scope.environment.semantics)
    ]
    left_matches, right_matches = (_matching(scope, rows, join) for rows in (left, right))
    right_once = _once(right_matches, [other for _, other in comparable])
    left_once = _once(left_matches, [one for one, _ in comparable])
    if join.kind in {"semi", "anti"}:
        return _filtered_by(scope, left, join)
    if join.kind == "left":
        right = right_matches
    keys = [
        *(_after(keys_of_left(join.kind, left), right_once, join)),
        *(_after(keys_of_left(_mirrored(join.kind), right), left_once, join)),
        *pair_keys(join.kind, left, right),
    ]
    columns = {
        **_side_columns(left, join, is_optional=is_left_optional(join.kind)),
        **_side_columns(right, join, is_optional=is_right_optional(join.kind) and why_matched is None),
    }
    if why_matched is not None:
        columns |= {column: matches.with_match(facts, why_matched) for column, facts in right.columns.items()}
    loss = _loss(left, right, join, comparable) if right_once is None and join.kind != "right" else ()
    rows = with_keys(
        Rows(columns, is_open=left.is_open or right.is_open, losses=(*left.losses, *right.losses, *loss)), keys
    )
    return _with_condition(scope, rows, join, comparable)


def keys_of_left(kind: str, left: Rows) -> list[Key]:
    """Return the left side's keys that remain if each of its rows matches at most one of the right.

    Rows that a join adds for the right have NULLs in all columns of the left, so that lax keys remain, but not that there is
    at most one row.
    """
    if kind in {"inner", "cross", "left"}:
        return list(left.keys)
    return [as_lax(key) for key in left.keys if key.columns]


def pair_keys(kind: str, left: Rows, right: Rows) -> list[Key]:
    """Return keys of pairs: a key of the left and a key of the right together."""
    found = [
        Key(one.columns | other.columns, one.is_strict and other.is_strict, joined(one.reason, other.reason))
        for one in left.keys[:_MOST_PAIRS]
        for other in right.keys[:_MOST_PAIRS]
    ]
    # Both sides add rows, whose NULLs could agree.
    return [as_lax(key) for key in found if key.columns] if kind == "full" else found


def is_left_optional(kind: str) -> bool:
    """Return whether a join adds rows of NULLs for the left."""
    return kind in {"right", "full"}


def is_right_optional(kind: str) -> bool:
    """Return whether a join adds rows of NULLs for the right."""
    return kind in {"left", "full"}


def _mirrored(kind: str) -> str:
    return {"left": "right", "right": "left"}.get(kind, kind)


def _matching(scope: Scope, rows: Rows, join: _Join) -> Rows:
    """Return what is known of the rows of one side that match."""
    if join.on is None:
        return rows
    alone = replace(scope, rows=rows)
    return predicates.filtered(alone, join.on, f"{join.kind} join on")


def _once(rows: Rows, columns: Iterable[Id]) -> Step | None:
    """Return why no two rows of a side agree on the columns, NULL aside."""
    wanted = frozenset(columns)
    keys = [key for key in rows.keys if key.columns <= wanted]
    if not keys:
        return None
    key = min(keys, key=lambda found: (len(found.reason), len(found.columns)))
    names = [rows.columns[column].shown or str(column[-1]) for column in sorted(key.columns, key=str)]
    if not names:
        why = f"at most one row ({cited(key.reason)})" if key.reason else "at most one row"
    else:
        verb = "which is" if len(names) == 1 else "which are together"
        why = f"{' and '.join(names)}, {verb} unique" + (f" ({cited(key.reason)})" if key.reason else "")
    return Step(why, frozenset().union(*(step.premises for step in key.reason)))


def _after(keys: Iterable[Key], once: Step | None, join: _Join) -> list[Key]:
    """Return keys that remain because of `once`, and say so."""
    if once is None:
        return []
    step = replace(once, text=f"{join.kind} join on {once.text}")
    return [replace(key, reason=joined(key.reason, (step,))) for key in keys]


def _side_columns(rows: Rows, join: _Join, *, is_optional: bool) -> dict[Id, Column]:
    if not is_optional:
        return dict(rows.columns)
    return {
        column: optional(facts, f"{facts.shown or column[-1]} is on the optional side of a {join.kind} join")
        for column, facts in rows.columns.items()
    }


def _filtered_by(scope: Scope, left: Rows, join: _Join) -> Rows:
    """Return the rows of the left that a semi or anti join keeps."""
    if join.kind == "anti":
        return left
    reason = (Step(f"semi join with {join.name}"),)
    columns: dict[Id, Column] = {}
    for one, other in join.equal:
        facts = columns.get(one, left.columns[one])
        added = predicates.members_by_equality(facts, scope.rows.columns[other], scope.environment.semantics)
        members = (*facts.members, *(replace(member, reason=joined(reason, member.reason)) for member in added))
        is_certain = is_null_without_value(facts, scope.environment.semantics)
        not_null = reason if facts.not_null is None and is_certain else facts.not_null
        columns[one] = replace(facts, not_null=not_null, members=members)
    return changed(left, columns)


def _with_condition(scope: Scope, rows: Rows, join: _Join, comparable: list[tuple[Id, Id]]) -> Rows:
    """Return rows with what the condition says of all of them."""
    semantics = scope.environment.semantics
    if join.kind == "inner":
        rows = predicates.filtered(replace(scope, rows=rows), join.on, "inner join on")
        for one, other in join.using:
            names = f"{rows.columns[one].shown} = {rows.columns[other].shown}"
            rows = predicates.equated(rows, one, other, (Step(f"inner join on {names}"),), semantics)
    for one, other in comparable if join.kind in {"left", "right"} else ():
        before, follower = (one, other) if join.kind == "left" else (other, one)
        rows = predicates.followed(rows, before, follower, (Step(f"{join.kind} join with {join.name}"),), semantics)
    return rows


def _loss(left: Rows, right: Rows, join: _Join, comparable: list[tuple[Id, Id]]) -> tuple[str, ...]:
    what = f"the {join.kind} join with {join.name} may repeat rows"
    if join.kind == "cross":
        return (what,)
    if not join.equal:
        return (f"{what}: its condition has no plain equality",)
    if not comparable:
        one, other = join.equal[0]
        return (
            f"{what}: the types of {left.columns[one].shown} and {right.columns[other].shown} are not known to be the same",
        )
    names = " and ".join(dict.fromkeys(right.columns[other].shown for _, other in comparable))
    return (f"{what}: nothing says that {names} is unique",)
