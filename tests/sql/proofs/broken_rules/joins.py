"""Broken rules about joins."""

from __future__ import annotations

from dataclasses import replace

from dagster_sao.sql.proofs import predicates
from dagster_sao.sql.proofs.clauses import joins, matches
from dagster_sao.sql.proofs.facts import Step
from tests.sql.proofs.broken_rules.registry import always, mutation, replacing

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


@mutation
def a_condition_of_a_left_join_holds_of_all_rows(patch):
    before = joins._with_condition
    patch.setattr(
        joins,
        "_with_condition",
        lambda *arguments: (
            before(arguments[0], arguments[1], replace(arguments[2], kind="inner"), arguments[3])
            if arguments[2].kind == "left"
            else before(*arguments)
        ),
    )


@mutation
def a_merged_column_is_a_key_if_one_side_is(patch):
    before = joins._once

    def key(left, right, pairs, merged):
        either = [
            step
            for rows, side in ((left, 0), (right, 1))
            for pair in pairs.values()
            if (step := before(rows, [pair[side]]))
        ]
        return [joins.Key(frozenset({merged}), is_strict=False)] if either else []

    patch.setattr(joins, "_key_of_merged", key)


@mutation
def a_merged_column_is_not_null_if_one_side_is(patch):
    before = joins._merged

    def merged(sides, text, semantics):
        either = next((side.not_null for side in sides if side.not_null is not None), None)
        return replace(before(sides, text, semantics), not_null=either)

    patch.setattr(joins, "_merged", merged)


replacing("each kind of join is understood", joins, "_is_understood", always(True))


@mutation
def a_follower_is_as_strict(patch):
    before = predicates.followed

    def followed(rows, column, follower, *others):
        found = before(rows, column, follower, *others)
        strict = [key for key in rows.keys if column in key.columns and key.is_strict]
        keys = [replace(key, columns=key.columns - {column} | {follower}) for key in strict]
        return predicates.with_keys(found, [*found.keys, *keys])

    patch.setattr(predicates, "followed", followed)


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


@mutation
def a_masked_parent_key_is_whole(patch):
    before = matches.why_child_matches

    def why(left, right, one, other):
        columns = {**right.columns, other: replace(right.columns[other], is_whole=True)}
        return before(left, replace(right, columns=columns), one, other)

    patch.setattr(matches, "why_child_matches", why)


@mutation
def a_parent_is_found_whatever_else_is_asked(patch):
    before = joins._why_matched

    def why(scope, left, right, join, where):
        one = replace(join, on=None, using=join.equal[:1], equal=join.equal[:1])
        return before(scope, left, right, one if join.equal else join, where)

    patch.setattr(joins, "_why_matched", why)
