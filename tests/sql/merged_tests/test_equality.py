"""A column of a merged query is 0 exactly if its test alone returns no row: on a real DuckDB and a real PostgreSQL."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from dagster_sao.sql import merged_tests
from dagster_sao.sql.merged_tests import conditions, scan, shapes
from dagster_sao.sql.merged_tests.pieces import Piece, text_of
from tests.sql.merged_tests.random_macros import SHAPES
from tests.sql.merged_tests.random_tests import DuckDB, Postgres, RandomTests

DATABASES = DuckDB, Postgres
FEW, MANY = 1000, int(os.environ.get("DAGSTER_SAO_FUZZ_PAIRS", "20000"))


def check(database, seed, groups):
    report = RandomTests(database, seed).run(groups)
    print(f"{database.adapter}, seed {seed}: {report}")
    assert report.counterexample is None, report.counterexample
    return report


def test_a_column_is_0_exactly_if_its_test_finds_nothing(database):
    check(database, 1, FEW // 2)


def test_the_group_by_of_a_test_serves_as_well(database, monkeypatch):
    monkeypatch.setattr(merged_tests, "distinct_counts", lambda _: None)
    assert check(database, 4, FEW // 2).shapes["unique"]


@pytest.mark.slow
def test_many_columns_are_0_exactly_if_their_tests_find_nothing(database):
    check(database, 2, MANY)


def test_nearly_all_tests_of_known_shapes_are_merged(on_duckdb):
    report = check(on_duckdb, 3, 200)
    assert report.merged > 0.65 * report.tests
    assert 0.2 * report.merged < report.passed < 0.8 * report.merged
    assert report.shapes.keys() == SHAPES.keys() - {"odd", "collapsed"}


# Each is a rule that is forgotten. None may survive the few groups.


def evaluate_for_all_rows(patch):
    patch.setattr(scan, "_scopes", lambda _: [])
    patch.setattr(scan._Test, "guards", property(lambda test: list(test.rows.guards[-1:])))


def count_nulls(patch):
    def guards(test):
        return [guard for guard in test.rows.guards if not text_of(guard).endswith("is not null")]

    patch.setattr(scan, "_scopes", lambda _: [])
    patch.setattr(scan._Test, "guards", property(guards))


def read_the_scope_of_one_test(patch):
    patch.setattr(
        scan, "_scopes", lambda shapes: [text_of(scope) for scope in [scan.rows_of(shapes[0]).scope] if scope]
    )


def lose_rows_without_a_match(patch):
    join = scan._Test.join
    patch.setattr(scan._Test, "join", lambda test: (line.replace("left join", "join", 1) for line in join(test)))


def substitute_without_brackets(patch):
    patch.setattr(conditions, "_in_brackets", lambda expression, _: (Piece("", " ", "", 0), *expression))


def mix_up_names(patch):
    patch.setattr(shapes, "mentions", lambda *_: False)


def take_any_function(patch):
    patch.setattr(shapes, "is_of_one_row", bool)


def count_what_is_collapsed(patch):
    projected = shapes._projected
    patch.setattr(shapes, "_projected", lambda source, chosen: projected(replace(source, is_collapsed=False), chosen))


def leave_out_what_is_not_read(patch):
    patch.setattr(scan._Test, "_unread", lambda _: [])


def compare_the_last_operand(patch):
    patch.setattr(scan, "binds_tighter", lambda _: True)


RULES = [
    evaluate_for_all_rows, count_nulls, read_the_scope_of_one_test, lose_rows_without_a_match, substitute_without_brackets,
    mix_up_names, take_any_function, count_what_is_collapsed, leave_out_what_is_not_read, compare_the_last_operand,
]  # fmt: skip


@pytest.mark.parametrize("forget", RULES)
def test_a_rule_that_is_forgotten_is_found(on_duckdb, monkeypatch, forget):
    forget(monkeypatch)
    report = RandomTests(on_duckdb, 1).run(FEW)
    assert report.counterexample, report
    print(f"found in group {report.groups}")
