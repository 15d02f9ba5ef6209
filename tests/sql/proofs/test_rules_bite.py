"""The hunt finds each rule that is broken on purpose, within 2,000 queries: a rule that no query could refute would not be tested."""

from __future__ import annotations

from contextlib import closing

import pytest

from tests.sql.proofs.broken_rules import expressions, joins, names, predicates, rows  # noqa: F401 (each registers its own)
from tests.sql.proofs.broken_rules.registry import MUTATIONS
from tests.sql.proofs.hunting.databases import DuckDB
from tests.sql.proofs.hunting.hunt import Hunt

QUERIES = 2000
# Where DuckDB answers infinity, as from version 2 on, no query can refute this rule.
DIVISION = "division by zero is an error"


@pytest.mark.slow
@pytest.mark.rare
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_broken_rule_is_found(monkeypatch, name):
    with closing(DuckDB()) as database:
        if name == DIVISION and database.run("select 1 / 0 is null") != [(True,)]:
            pytest.skip("this release of DuckDB divides by zero")
        MUTATIONS[name](monkeypatch)
        report = Hunt(database, 1, shrinks=False).run(QUERIES)
    print(f"{name}: {report.queries} queries")
    assert report.counterexample is not None
