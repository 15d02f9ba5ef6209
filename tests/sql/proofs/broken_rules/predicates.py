"""Broken rules about predicates."""

from __future__ import annotations

from dataclasses import replace

from dagster_sao.sql.proofs import predicates
from tests.sql.proofs.broken_rules.registry import always, mutation, replacing

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

replacing("any literal names one value", predicates, "_names_one_value", always(True))
replacing(
    "an expression of a NULL is NULL",
    predicates,
    "_strict",
    lambda node, scope: frozenset(filter(None, map(scope.identify, node.walk()))),
)
replacing("EXISTS is about its own columns", predicates, "_is_of_outer", always(True))
replacing(
    "literals of two lists are in both",
    predicates,
    "_narrowed",
    lambda known, new: new if known is None else replace(new, texts=known.texts & new.texts),
)


@mutation
def not_changes_nothing(patch):
    before = predicates.not_null_if
    patch.setattr(
        predicates,
        "not_null_if",
        lambda node, scope, *, is_true: before(
            node.this if isinstance(node, predicates.exp.Not) else node, scope, is_true=is_true
        ),
    )
