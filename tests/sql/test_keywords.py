"""The words that are no column without quotes are those that the databases themselves name so."""

from __future__ import annotations

import duckdb
import pytest

from dagster_sao.sql import lexicon

# These are functions, unless a column has their name.
MAY_BE_COLUMNS = {"columns", "generated", "map", "struct", "try_cast", "tuple", "grant"}


def test_the_keywords_of_postgres(postgres_server):
    connection = postgres_server.connect()
    cursor = connection.cursor()
    cursor.execute("select word from pg_get_keywords() where catcode in ('R', 'T')")
    assert {word for (word,) in cursor.fetchall()} <= lexicon.POSTGRES_KEYWORDS
    connection.close()


def test_the_keywords_of_duckdb():
    found = duckdb.execute(
        "select keyword_name from duckdb_keywords() where keyword_category in ('reserved', 'type_function')"
    ).fetchall()
    assert {word for (word,) in found} <= lexicon.DUCKDB_KEYWORDS | MAY_BE_COLUMNS


@pytest.mark.parametrize("word", sorted(lexicon.POSTGRES_KEYWORDS - lexicon.DUCKDB_KEYWORDS))
def test_duckdb_takes_a_function_for_a_column_where_there_is_one(word):
    with duckdb.connect() as database:
        database.execute(f'create table a ("{word}" varchar); insert into a values (null)')
        assert database.execute(f"select {word} from a").fetchall() == [(None,)]
