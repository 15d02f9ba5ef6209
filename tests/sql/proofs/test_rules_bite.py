"""The hunt finds each rule that is broken on purpose, within 2,000 queries: a rule that no query could refute would not be tested."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlglot import exp

from dagster_sao.sql.proofs import alternatives, expressions, facts, predicates, query, scope
from dagster_sao.sql.proofs.clauses import grouping, joins, matches, set_operations
from dagster_sao.sql.proofs.facts import Key, Step
from tests.sql.proofs.hunt import Hunt
from tests.sql.proofs.worlds import DuckDB

QUERIES = 2000
MUTATIONS = {}


def mutation(function):
    MUTATIONS[function.__name__] = function
    return function


def replacing(name, module, attribute, value):
    MUTATIONS[name] = lambda patch: patch.setattr(module, attribute, value)


def always(answer):
    return lambda *_, **__: answer


# Keys
replacing("a lax key is taken for a strict one", facts, "_as_strict", lambda _, key: key.reason)
replacing("a NULL constant leaves a lax key", facts, "can_be_dropped", always(True))

# Joins
replacing("a join's other side needs no key", joins, "_once", lambda *_: Step("broken"))
replacing("types need not be the same", joins, "are_comparable", always(True))
replacing("a left join keeps what is not null on the right", joins, "is_right_optional", lambda kind: kind == "full")
replacing("a right join keeps what is not null on the left", joins, "is_left_optional", lambda kind: kind == "full")
replacing("a full join keeps what is not null on the left", joins, "is_left_optional", lambda kind: kind == "right")
replacing("a full join keeps what is not null on the right", joins, "is_right_optional", lambda kind: kind == "left")
replacing("an outer join keeps strict keys", joins, "keys_of_left", lambda _, left: list(left.keys))
replacing(
    "an equality holds in a left join",
    predicates,
    "followed",
    predicates.equated,
)


@mutation
def an_anti_join_is_a_semi_join(patch):
    before = joins._filtered_by
    patch.setattr(joins, "_filtered_by", lambda scope, left, join: before(scope, left, replace(join, kind="semi")))


@mutation
def a_key_of_the_left_is_one_of_pairs(patch):
    patch.setattr(joins, "pair_keys", lambda _, left, right: [*left.keys, *right.keys])


@mutation
def a_column_of_using_is_the_left_one(patch):
    before = joins._merge
    patch.setattr(joins, "_merge", lambda *arguments: before(*arguments[:-1], replace(arguments[-1], kind="left")))


@mutation
def a_condition_of_a_full_join_is_one_of_an_inner_join(patch):
    before = joins._with_condition
    patch.setattr(
        joins,
        "_with_condition",
        lambda *arguments: before(arguments[0], arguments[1], replace(arguments[2], kind="inner"), arguments[3]),
    )


replacing("a query in FROM never reads its neighbours", query, "_reads_only_itself", always(True))
replacing("no function makes several rows of one", grouping, "may_multiply_rows", always(""))

# Predicates
replacing("OR is AND", predicates, "both_hold", always(True))
replacing("NOT IN of a query without rows rejects NULL", predicates, "_in_rejects_null", always(True))
replacing("IS rejects NULL whatever it tests", predicates, "_is_rejects_null", always(True))
replacing("all comparisons are plain", predicates, "_NOT_OPERANDS", ())
replacing(
    "values are what a filter excludes",
    predicates,
    "_without",
    lambda known, excluded, _: known and replace(known, texts=excluded.texts),
)
replacing("a value in a query is in each of its columns' parents", predicates, "are_comparable", always(True))


replacing("EXISTS over an aggregate needs a match", predicates, "_gives_its_rows", always(True))


# Expressions
replacing("CASE without ELSE is not null", expressions, "case_not_null", always(()))
replacing("COALESCE is not null", expressions, "coalesce_not_null", always(()))
replacing("the same for each NULL", expressions, "_all_not_null", always(()))
replacing("a cast keeps values apart", expressions, "keeps_distinct", always(True))
replacing(
    "values of some branches are all",
    alternatives,
    "any_values",
    lambda parts: next((part.values for part in parts if part.values), None),
)
replacing(
    "parents of one branch are those of all",
    alternatives,
    "shared_members",
    lambda parts: parts[0].members if parts else (),
)


@mutation
def coalesce_keeps_values_apart(patch):
    before = expressions.carried
    patch.setattr(
        expressions,
        "carried",
        lambda node, scope: before(node.this if isinstance(node, exp.Coalesce | exp.Nullif) else node, scope),
    )


@mutation
def arithmetic_keeps_values_apart(patch):
    before = expressions.carried
    patch.setattr(
        expressions,
        "carried",
        lambda node, scope: before(node.this if isinstance(node, exp.Mod | exp.Abs | exp.Lower) else node, scope),
    )


@mutation
def try_cast_is_cast(patch):
    patch.setitem(expressions._RULES, exp.TryCast, expressions._cast)


@mutation
def division_by_zero_is_an_error(patch):
    patch.setattr(expressions, "_is_positive", always(True))


@mutation
def nullif_is_its_first_argument(patch):
    patch.setitem(
        expressions._RULES, exp.Nullif, lambda node, scope, assumed: expressions.describe(node.this, scope, assumed)
    )


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
replacing("GROUP BY ALL groups by columns in aggregates' expressions", grouping, "_mixes", always(False))


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

# Joins in which each row has a match
replacing(
    "any WHERE needs a match",
    matches,
    "why_rejected",
    lambda where, _scope, _right: (Step("broken"),) if where else None,
)
replacing("a part of a parent is all of it", matches, "holds_all", always(True))


@mutation
def a_child_may_be_null(patch):
    before = matches.why_child_matches

    def why(left, right, one, other):
        columns = {**left.columns, one: replace(left.columns[one], not_null=())}
        return before(replace(left, columns=columns), right, one, other)

    patch.setattr(matches, "why_child_matches", why)


@mutation
def any_column_is_a_child(patch):
    patch.setattr(
        matches,
        "why_child_matches",
        lambda left, right, one, _: () if left.columns[one].not_null is not None and right.holds_all_of else None,
    )


# Models in between
replacing("no column of a parent's query is NULL", scope, "with_own", lambda column, *_: replace(column, not_null=()))


@pytest.mark.slow
@pytest.mark.rare
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_broken_rule_is_found(monkeypatch, name):
    database = DuckDB()
    MUTATIONS[name](monkeypatch)
    report = Hunt(database, 1, shrinks=False).run(QUERIES)
    database.close()
    print(f"{name}: {report.queries} queries")
    assert report.counterexample is not None
