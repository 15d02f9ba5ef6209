"""Smaller queries and tables, tried while they still show a wrong claim."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import sqlglot
from sqlglot import exp

from tests.sql.proofs.hunting.worlds import World


def simpler_queries(sql: str, dialect: str) -> Iterator[str]:
    """Yield queries with one part less."""
    tree = sqlglot.parse_one(sql, dialect=dialect)
    for number, node in enumerate(list(tree.walk())):
        for change in _changes(node):
            copied = tree.copy()
            twin = list(copied.walk())[number]
            change(twin)
            text = copied.sql(dialect=dialect)
            if len(text) < len(sql):
                yield text


def _changes(node: exp.Expr) -> Iterator:
    for name in (
        "where",
        "having",
        "qualify",
        "order",
        "limit",
        "offset",
        "distinct",
        "group",
        "with_",
        "filter",
        "joins",
    ):
        if node.args.get(name):
            yield lambda twin, name=name: twin.set(name, None)
    for name in ("joins", "expressions"):
        values = node.args.get(name)
        for index in range(len(values) if isinstance(values, list) and (name == "joins" or len(values) > 1) else 0):
            yield lambda twin, name=name, index=index: twin.args[name].pop(index)
    if isinstance(node, exp.Connector | exp.SetOperation) and node.parent:
        yield lambda twin: twin.replace(twin.this)
        yield lambda twin: twin.replace(twin.expression)
    if (
        isinstance(node, exp.Case | exp.Coalesce | exp.Paren | exp.Cast | exp.Not)
        and node.parent
        and isinstance(node.this, exp.Expr)
    ):
        yield lambda twin: twin.replace(twin.this)


def simpler_worlds(world: World) -> Iterator[World]:
    """Yield worlds of one filling, and with fewer rows. A known property still holds, but for parents' rows, which stay."""
    parents = {column.parent[0] for columns in world.tables.values() for column in columns if column.parent}
    for filling in world.fillings:
        yield replace(world, fillings=[filling])
    for filling in world.fillings:
        for table, rows in filling.items():
            for index in range(len(rows) if table not in parents else 0):
                yield replace(world, fillings=[{**filling, table: rows[:index] + rows[index + 1 :]}])
