"""No proof is wrong on a real DuckDB and a real PostgreSQL: each claim about a random query is tested as dbt tests it."""

from __future__ import annotations

import os

import pytest

from tests.sql.proofs.hunting.databases import DuckDB, Postgres
from tests.sql.proofs.hunting.hunt import WORDS, Hunt

DATABASES = DuckDB, Postgres
ENOUGH = 20_000
FEW, MANY = 500, int(os.environ.get("DAGSTER_SAO_HUNT_QUERIES", ENOUGH))
ONLY_DUCKDB = {"qualify", "semi join with"}


def hunt(database, seed, queries):
    report = Hunt(database, seed).run(queries)
    print(
        f"seed {seed} on {database.dialect}: {report.claims} claims about {report.provable_queries} of {report.queries} queries "
        f"({report.errors} could not run); {dict(report.kinds)}"
    )
    assert report.counterexample is None, report.counterexample
    return report


def test_no_proof_is_wrong(database):
    report = hunt(database, 1, FEW)
    used = {word for word in WORDS if report.kinds[word]} | (set() if database.is_duckdb else ONLY_DUCKDB)
    assert set(WORDS) - used <= RARE, "these rules were used by no claim"


@pytest.mark.slow
def test_no_proof_is_wrong_of_many(database):
    report = hunt(database, 2, MANY)
    used = {word for word in WORDS if report.kinds[word]} | (set() if database.is_duckdb else ONLY_DUCKDB)
    assert set(WORDS) - used <= (RARE if MANY < ENOUGH else set()), "these rules were used by no claim"


# In a few queries, chance may leave these out.
RARE = {
    "full join of",
    "having",
    "rollup",
    "left join with",
    "at most one row",
    "exists",
    "right join on",
    "tells the branches apart",
    "(in m)",
}
