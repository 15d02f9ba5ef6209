"""LEFT JOINs that leave no row without a match, so that the facts about the columns on their right stay true."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from sqlglot import exp

from dagster_sao.sql.proofs import predicates
from dagster_sao.sql.proofs.facts import Column, Id, Reason, Rows, Step, joined
from dagster_sao.sql.proofs.scope import Scope


def usable_where(select: exp.Select, joins: Iterable[exp.Join]) -> list[exp.Expr]:
    """Return the conjuncts of WHERE that may as well be tested right after the joins that they are about.

    That is so if no join after those adds rows to the left. A name without its source could be one of a source that comes later.
    """
    where = select.args.get("where")
    if where is None or any(join.side.upper() in {"RIGHT", "FULL"} for join in joins):
        return []
    return [node for node in predicates.conjuncts(where.this) if node.find(exp.Query) is None and _is_qualified(node)]


def _is_qualified(node: exp.Expr) -> bool:
    return all(column.args.get("table") is not None for column in node.find_all(exp.Column))


def equalities(where: Iterable[exp.Expr]) -> list[exp.Expr]:
    """Return the conditions that say that two columns are equal."""
    pairs = [(node, (node.this, node.expression)) for node in where if isinstance(node, exp.EQ)]
    return [node for node, sides in pairs if all(isinstance(side, exp.Column) for side in sides)]


def why_rejected(where: Iterable[exp.Expr], scope: Scope, right: Rows) -> Reason | None:
    """Return why rows without a match do not pass WHERE: it is not TRUE for their NULLs."""
    for node in where:
        if all(scope.resolve(column) is not None for column in node.find_all(exp.Column)):
            rejected = predicates.not_null_if(node, scope, is_true=True)
            if not rejected.isdisjoint(right.columns):
                return (Step(f"where {node.sql(dialect=scope.environment.dialect, comments=False)}"),)
    return None


def why_child_matches(left: Rows, right: Rows, one: Id, other: Id) -> Reason | None:
    """Return why each row of the left has a match by `one = other`: a value that a test has found in the whole parent.

    Without a test, a parent could be a view that gives other rows each time.
    """
    child, parent = left.columns[one], right.columns[other]
    origin = parent.origin
    if child.not_null is None or origin is None or not (parent.is_whole and holds_all(right, origin[0])):
        return None
    tested = [
        member.reason
        for member in child.members
        if (member.parent, member.column) == origin and any(step.premises for step in member.reason)
    ]
    return joined(child.not_null, min(tested, key=len)) if tested else None


def holds_all(rows: Rows, relation: str) -> bool:
    """Return whether rows are all of a relation's."""
    return rows.holds_all_of == relation


def with_match(column: Column, why: Reason) -> Column:
    """Return the facts of a column on the right of a join in which each row has a match, because of `why`."""
    return replace(
        column, not_null=joined(column.not_null, why) if column.not_null is not None else None, constant=None
    )
