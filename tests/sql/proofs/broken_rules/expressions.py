"""Broken rules about expressions and their values."""

from __future__ import annotations

from dataclasses import replace

from sqlglot import exp

from dagster_sao.sql.proofs import alternatives, answers, expressions
from tests.sql.proofs.broken_rules.registry import always, mutation, replacing

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
    def cast(node, *others):
        return expressions._cast(exp.Cast(this=node.this.copy(), to=node.args["to"].copy()), *others)

    patch.setitem(expressions._RULES, exp.TryCast, cast)


@mutation
def division_by_zero_is_an_error(patch):
    patch.setattr(expressions, "_is_positive", always(True))


@mutation
def nullif_is_its_first_argument(patch):
    patch.setitem(
        expressions._RULES, exp.Nullif, lambda node, scope, assumed: expressions.describe(node.this, scope, assumed)
    )


replacing("what a WHEN tests is not null in ELSE", expressions, "_tests_for_null", always(True))
replacing("any literal can be compared with any column", answers, "_fits", always(True))


@mutation
def one_of_several_constants_is_constant(patch):
    before = alternatives.one_of
    patch.setattr(
        expressions,
        "one_of",
        lambda parts, *others: replace(before(parts, *others), constant=parts[0].constant),
    )
