"""Broken rules about names, and about whole queries."""

from __future__ import annotations

from dataclasses import replace

from sqlglot import exp

from dagster_sao.sql.proofs import query, scope
from dagster_sao.sql.proofs.clauses import grouping
from tests.sql.proofs.broken_rules.registry import always, mutation, replacing

replacing("a query in FROM never reads its neighbours", query, "_reads_only_itself", always(True))
replacing("no function makes several rows of one", grouping, "may_multiply_rows", always(""))
replacing(
    "a filter leaves all rows",
    query,
    "_keeps_all_rows",
    lambda select: not select.args.get("joins") and scope.argument(select, "from") is not None,
)


@mutation
def a_table_is_never_a_query_above(patch):
    before = scope.table_rows

    def rows(table, environment):
        return before(table, replace(environment, queries={}) if environment.relations.get(table.name) else environment)

    for module in (scope, query.joins):
        patch.setattr(module, "table_rows", rows)


@mutation
def no_query_reads_itself(patch):
    before = query._with_queries

    def with_queries(node, environment):
        node = node.copy()
        clause = scope.argument(node, "with")
        if clause is not None:
            clause.set("recursive", None)
        return before(node, environment)

    patch.setattr(query, "_with_queries", with_queries)


@mutation
def a_star_with_parts_is_plain(patch):
    before = query._starred_sources

    def sources(node, scope):
        node = node.copy()
        star = node if isinstance(node, exp.Star) else node.this
        for part in ("replace", "rename", "except", "except_"):
            star.set(part, None)
        return before(node, scope)

    patch.setattr(query, "_starred_sources", sources)


@mutation
def what_follows_several_columns_has_its_place(patch):
    patch.setattr(query, "_may_be_several", always(False))
    patch.setattr(query, "_is_spread", always(False))


# Models in between
replacing("no column of a parent's query is NULL", scope, "with_own", lambda column, *_: replace(column, not_null=()))
