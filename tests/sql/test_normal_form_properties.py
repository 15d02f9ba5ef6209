"""Random SQL: what DuckDB makes of two texts of one form is the same, and re-formatting keeps the form."""

from __future__ import annotations

import random
import re

import duckdb
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dagster_sao.sql.normal_form import normal_form

TOKEN = re.compile(r"'[^']*'|\"[^\"]*\"|<>|<=|>=|\|\||\w+|\S")
RELAXED = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]

columns = st.sampled_from(["a", "b", '"A b"', "c"])
literals = st.sampled_from(["0", "1", "2", "7", "'x'", "'X'", "'x y'", "null"])
numbers = st.sampled_from(["a", "b", "1", "2", "7"])


def joined(separator, *parts):
    return st.tuples(*parts).map(separator.join)


arithmetic = st.recursive(
    numbers,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "%"]), inner).map(" ".join),
        inner.map(lambda e: f"( {e} )"),
        inner.map(lambda e: f"abs ( {e} )"),
        st.tuples(inner, inner).map(lambda p: f"coalesce ( {p[0]} , {p[1]} )"),
        inner.map(lambda e: f"- ( {e} )"),
    ),
    max_leaves=5,
)
comparison = st.one_of(
    st.tuples(arithmetic, st.sampled_from(["=", "<>", "<", ">="]), arithmetic).map(" ".join),
    st.tuples(columns, st.just("in"), st.just("( 1 , 2 , 7 )")).map(" ".join).filter(lambda s: s[0] in "ab"),
    st.sampled_from(["c = 'x'", "c = 'X'", '"A b" is null', "a between 1 and 2", "c like 'x%'"]),
)
condition = st.recursive(
    comparison,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(" ".join),
        inner.map(lambda e: f"( {e} )"),
        inner.map(lambda e: f"not {e}"),
    ),
    max_leaves=5,
)
simple = st.builds(
    lambda distinct, first, second, where: f"select {distinct} {first} , {second} from t {where}",
    st.sampled_from(["", "distinct"]),
    st.one_of(arithmetic, columns, literals),
    st.one_of(arithmetic, columns, literals, condition.map(lambda c: f"case when {c} then 1 else 2 end")),
    st.one_of(st.just(""), condition.map(lambda c: f"where {c}")),
)
queries = st.recursive(
    simple,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["union", "union all", "except", "intersect"]), simple).map(" ".join),
        inner.map(lambda q: f"( {q} )"),
    ),
    max_leaves=3,
)


@pytest.fixture(scope="module")
def databases():
    """Three small tables with nulls, duplicates and strings that differ in case."""
    found = []
    for seed in range(3):
        connection = duckdb.connect()
        connection.execute('create table t (a int, b int, "A b" int, c varchar)')
        source = random.Random(seed)
        for _ in range(8):
            numbers = [source.choice([None, 0, 1, 2, 7, -1]) for _ in range(3)]
            connection.execute("insert into t values (?, ?, ?, ?)", [*numbers, source.choice([None, "x", "X", "x y"])])
        found.append(connection)
    yield found
    for connection in found:
        connection.close()


def rows(connection, query):
    try:
        return sorted(map(repr, connection.execute(query).fetchall()))
    except duckdb.Error:
        return "no query"


def reformat(query, source):
    """Return `query` in another spelling that means the same."""
    text = source.choice(["", "-- why\n", "/* why */ "])
    for token in TOKEN.findall(query):
        spellings = [token] if token[0] in "'\"" else [token, token.upper(), token.capitalize()]
        text += source.choice(spellings) + source.choice(
            [" ", "  ", "\n", "\t", " -- it's why\n", "/* ; */", "{# why #} "]
        )
    return text + source.choice(["", ";", " ;\n"])


@settings(max_examples=60, deadline=None, suppress_health_check=RELAXED)
@given(query=queries, seed=st.integers(0, 2**20))
def test_formatting_never_changes_the_form(query, seed):
    assert normal_form(reformat(query, random.Random(seed)), "duckdb") == normal_form(query, "duckdb")


def mutate(query, source):
    """Return `query` with a token dropped, doubled, moved, respelled, or with other parentheses."""
    tokens = TOKEN.findall(query)
    for _ in range(source.randint(1, 2)):
        at, to = (source.randrange(len(tokens)) for _ in range(2))
        what = source.choice(["drop", "swap", "case", "wrap", "wrap", "unwrap", "unwrap", "replace"])
        if what == "drop" and len(tokens) > 1:
            del tokens[at]
        elif what == "swap":
            tokens[at], tokens[to] = tokens[to], tokens[at]
        elif what == "case":
            tokens[at] = tokens[at].swapcase()
        elif what == "replace":
            tokens[at] = source.choice(["a", "b", "+", "-", "*", "or", "and", "1", "'x'"])
        elif what == "wrap":
            at, to = min(at, to), max(at, to)
            tokens[at:to] = ["(", *tokens[at:to], ")"]
        elif pairs := parentheses(tokens):
            opening, closing = source.choice(pairs)
            del tokens[closing], tokens[opening]
    return " ".join(tokens)


def parentheses(tokens):
    stack, pairs = [], []
    for index, token in enumerate(tokens):
        if token == "(":
            stack.append(index)
        elif token == ")" and stack:
            pairs.append((stack.pop(), index))
    return pairs


def check_by_execution(databases, one, other):
    if normal_form(one, "duckdb") == normal_form(other, "duckdb"):
        assert all(rows(database, one) == rows(database, other) for database in databases)


@settings(max_examples=150, deadline=None, suppress_health_check=RELAXED)
@given(query=queries, seed=st.integers(0, 2**20))
@example(query="select a , ( a - ( b - 1 ) ) from t where not ( a = 1 and b = 2 )", seed=1)
def test_queries_of_one_form_give_the_same_rows(databases, query, seed):
    """The oracle is execution: whatever is done to a query, if the form is kept, so are its rows."""
    check_by_execution(databases, query, mutate(query, random.Random(seed)))


@pytest.mark.slow
@settings(max_examples=5000, deadline=None, suppress_health_check=RELAXED)
@given(query=queries, seed=st.integers(0, 2**20))
def test_many_queries_of_one_form_give_the_same_rows(databases, query, seed):
    check_by_execution(databases, query, mutate(query, random.Random(seed)))
