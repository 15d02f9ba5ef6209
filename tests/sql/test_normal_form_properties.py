"""Random SQL: re-formatting keeps the form."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dagster_sao.sql.dialects import lexicon_of
from dagster_sao.sql.normal_form import normal_form

TOKEN = re.compile(r"'[^']*'|\"[^\"]*\"|<>|<=|>=|\|\||\w+|\S")
RELAXED = [HealthCheck.too_slow]

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


def reformat(query, source, dialect):
    """Return `query` in another spelling that means the same."""
    lexicon = lexicon_of(dialect)
    text = source.choice(["", "-- why\n", "/* why */ "])
    for token in TOKEN.findall(query):
        may_fold = token[0] not in "'\"" and (lexicon.folds_names or token in lexicon.keywords)
        spellings = [token, token.upper(), token.capitalize()] if may_fold else [token]
        text += source.choice(spellings) + source.choice(
            [" ", "  ", "\n", "\t", " -- it's why\n", " /* ; */ ", "{# why #} "]
        )
    return text + source.choice(["", ";", " ;\n"])


@pytest.mark.parametrize("dialect", ["duckdb", "postgres", "redshift"])
@settings(max_examples=40, deadline=None, suppress_health_check=RELAXED)
@given(query=queries, seed=st.integers(0, 2**20))
def test_formatting_never_changes_the_form(dialect, query, seed):
    assert normal_form(reformat(query, random.Random(seed), dialect), dialect) == normal_form(query, dialect)
