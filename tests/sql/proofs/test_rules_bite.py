"""The hunt finds each rule that is broken on purpose, within 2,000 queries: a rule that no query could refute would not be tested."""

from __future__ import annotations

from contextlib import closing

import pytest

from tests.sql.proofs.broken_rules import expressions, joins, names, predicates, rows  # noqa: F401 (each registers its own)
from tests.sql.proofs.broken_rules.registry import MUTATIONS
from tests.sql.proofs.hunting.databases import DuckDB, QueryError
from tests.sql.proofs.hunting.hunt import Hunt

QUERIES = 2000
# What DuckDB 2 answers otherwise or refuses, so that no query of it can refute these.
NEEDS = {
    "division by zero is an error": "select 1 / 0 is null",
    "GROUP BY ALL groups by columns in aggregates' expressions": "select count(*) + k = 2 from (select 1 as k) t group by all",
}


@pytest.mark.slow
@pytest.mark.rare
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_broken_rule_is_found(monkeypatch, name):
    with closing(DuckDB()) as database:
        if name in NEEDS and not is_true(database, NEEDS[name]):
            pytest.skip("this release of DuckDB cannot show it")
        MUTATIONS[name](monkeypatch)
        report = Hunt(database, 1, shrinks=False).run(QUERIES)
    print(f"{name}: {report.queries} queries")
    assert report.counterexample is not None


def is_true(database, query: str) -> bool:
    try:
        return database.run(query) == [(True,)]
    except QueryError:
        return False
