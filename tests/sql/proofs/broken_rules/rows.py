"""Broken rules about keys, groups, windows and set operations."""

from __future__ import annotations

from dataclasses import replace

from sqlglot import exp

from dagster_sao.sql.proofs import facts, scope
from dagster_sao.sql.proofs.clauses import grouping, set_operations
from dagster_sao.sql.proofs.facts import Key
from tests.sql.proofs.broken_rules.registry import always, mutation, replacing

replacing("a lax key is taken for a strict one", facts, "_as_strict", lambda _, key: key.reason)
replacing("a NULL constant leaves a lax key", facts, "can_be_dropped", always(True))

# Groups
replacing(
    "a part of the groups is a key",
    grouping,
    "group_keys",
    lambda _, columns, **__: [Key(frozenset({column}), is_strict=True) for column in columns],
)
replacing("the largest of any column is a key", grouping, "key_within", always(()))
replacing("rank numbers rows", grouping, "numbers_rows", grouping.is_numbering)
replacing("a partition is exact whatever its collation", grouping, "partitions_exactly", always(True))
replacing(
    "an aggregate of not null is not null",
    grouping,
    "aggregate_not_null",
    lambda _node, inner, _scope, **__: inner.not_null,
)
replacing(
    "any window holds the row itself",
    grouping,
    "window",
    lambda node, scope, **_: grouping.aggregate(node.this, scope, has_rows=True),
)
replacing(
    "one column is a key of DISTINCT",
    grouping,
    "distinct",
    lambda rows: facts.with_keys(rows, [Key(frozenset({column}), is_strict=True) for column in rows.columns]),
)


@mutation
def a_rollup_is_a_group(patch):
    before = grouping._rollup

    def strict(scope, group):
        keys, columns = before(scope, group)
        return [replace(key, is_strict=True) for key in keys], {
            column: scope.rows.columns[column] for column in columns
        }

    patch.setattr(grouping, "_rollup", strict)


@mutation
def an_aggregate_ignores_its_filter(patch):
    patch.setattr(grouping, "_with_filter", lambda node: node)
    before = scope.Scope.identify

    def identify(self, node):
        return before(self, node.this if isinstance(node, exp.Filter) else node)

    patch.setattr(scope.Scope, "identify", identify)


replacing(
    "a number in GROUP BY is a constant", grouping, "_group_item", lambda scope, _, item: scope.alias_of(item) or item
)
replacing("each aggregate is one of its values", grouping, "_EXTREMES", grouping._OF_SOME_ROW)
replacing("row_number numbers all rows", grouping, "_partition", always([]))
replacing("a total is no group", scope.Scope, "has_totals", property(always(False), always(None)))


@mutation
def each_column_of_distinct_on_is_a_key(patch):
    before = grouping.distinct_on

    def distinct_on(scope, select):
        rows = before(scope, select)
        added = [key for key in rows.keys if key not in scope.rows.keys]
        keys = [Key(frozenset({column}), is_strict=True) for key in added for column in key.columns]
        return facts.with_keys(rows, [*rows.keys, *keys])

    patch.setattr(grouping, "distinct_on", distinct_on)


# Set operations
replacing("UNION ALL keeps keys", set_operations, "keeps_keys_of_left", always(True))
replacing("EXCEPT keeps keys of the right", set_operations, "keeps_keys_of_right", always(True))
replacing(
    "one branch without NULL is enough",
    set_operations,
    "not_null_of_both",
    lambda one, other: one.not_null if one.not_null is not None else other.not_null,
)
replacing("branches need not be told apart", set_operations, "are_apart", always(True))


@mutation
def a_union_removes_repeated_rows(patch):
    before = set_operations.combined

    def combined(node, *others):
        node = node.copy()
        node.set("distinct", True)
        return before(node, *others)

    patch.setattr(set_operations, "combined", combined)


@mutation
def what_except_takes_away_is_not_null(patch):
    before = set_operations._combined_column

    def combined_column(node, *others):
        return before(exp.Intersect() if isinstance(node, exp.Except) else node, *others)

    patch.setattr(set_operations, "_combined_column", combined_column)


@mutation
def a_union_comes_from_its_first_branch(patch):
    before = set_operations._combined_column

    def combined_column(node, one, *others):
        return replace(before(node, one, *others), origin=one.origin)

    patch.setattr(set_operations, "_combined_column", combined_column)
