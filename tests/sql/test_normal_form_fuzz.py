"""Texts of one normal form give the same rows on a real DuckDB and a real PostgreSQL, and a rule that leaves out more is found."""

from __future__ import annotations

import os
import re

import pytest

from dagster_sao.sql import dialects, lexer, lexicon, normal_form, spelling
from tests.sql.fuzz import DuckDB, Fuzz, Postgres

DATABASES = DuckDB, Postgres
FEW, MANY = 400, int(os.environ.get("DAGSTER_SAO_FUZZ_PAIRS", "100000"))


def check(database, seed, pairs):
    report = Fuzz(database, seed).run(pairs)
    print(f"{database.dialect}: {report.pairs} equal pairs and {report.errors} of errors among {report.tried} mutants")
    assert report.counterexample is None


def test_texts_of_one_form_give_the_same_rows(database):
    check(database, 1, FEW)


@pytest.mark.slow
def test_many_texts_of_one_form_give_the_same_rows(database):
    check(database, 2, MANY)


# Each is a rule that leaves out more than it may. Not one may survive the few pairs.


def without_parentheses(text, dialect):
    return normal_form.normal_form(re.sub(r"[()]", " ", text), dialect)


def without_line_breaks(text, dialect):
    return normal_form.normal_form(text.replace("\n", " "), dialect)


def without_case(text, dialect):
    return normal_form.normal_form(text.lower(), dialect)


def without_quotes(text, dialect):
    return normal_form.normal_form(text.replace('"', ""), dialect)


@pytest.mark.parametrize("form", [without_parentheses, without_line_breaks, without_case, without_quotes])
def test_a_form_that_leaves_out_more_is_found(on_duckdb, form):
    assert Fuzz(on_duckdb, 1, form).run(FEW).counterexample


def fold_all_names(patch):
    folding = lexicon.Lexicon(has_dollar_quotes=True, folds_names=True)
    patch.setitem(dialects._SQL, "duckdb", dialects._Sql(dialects.DUCKDB, folding))


def lex_line_by_line(patch):
    patch.setattr(normal_form, "_with_opaque_lines", lambda tokens, _: list(tokens))


def trust_backslashes(patch):
    patch.setattr(lexer, "_NOT_UNDERSTOOD", re.compile(r"\x00"))


def join_strings(patch):
    patch.setattr(spelling, "_MAY_END_IN_STRINGS", frozenset())


def leave_out_all_comments(patch):
    patch.setattr(lexer, "_is_left_out", lambda kind, _: kind in {"gap", "line", "block"})


def drop_space_around_operators(patch):
    patch.setattr(spelling, "_is_free", lambda *_: True)


@pytest.mark.parametrize(
    ("rule", "title"),
    [
        (fold_all_names, "labels"),
        (lex_line_by_line, "a tag that ends in a comment"),
        (trust_backslashes, "more escapes"),
        (join_strings, "adjacent strings"),
        (leave_out_all_comments, "a tag that ends its comment"),
        (drop_space_around_operators, "prefixes"),
    ],
)
def test_a_rule_that_leaves_out_more_is_found(on_duckdb, monkeypatch, rule, title):
    rule(monkeypatch)
    dialects.lexicon_of.cache_clear()
    try:
        assert Fuzz(on_duckdb, 1, titles={title}).run(FEW).counterexample
    finally:
        monkeypatch.undo()
        dialects.lexicon_of.cache_clear()
