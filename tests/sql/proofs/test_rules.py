"""Each rule proves what follows, and nothing that does not: the cases are in `cases/rules.txt`."""

from __future__ import annotations

import pytest

from dagster_sao.sql.proofs import NotProvable, Proof, QueryProofs
from tests.sql.proofs.case_files import read_cases

CASES = read_cases("rules.txt")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_what_follows_is_proven_and_nothing_else(case):
    proofs = QueryProofs(case.sql, case.adapter or "duckdb", case.relations)
    for label, wanted in case.answers:
        answer = proofs.prove(wanted)
        assert isinstance(answer, Proof if label == "yes" else NotProvable), f"{wanted!r}: {answer}"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_what_does_not_follow_is_not_proven_of_another_dialect_either(case):
    proofs = QueryProofs(case.sql, case.adapter or "postgres", case.relations)
    for label, wanted in case.answers:
        assert label == "yes" or isinstance(proofs.prove(wanted), NotProvable), f"{wanted!r}: {proofs.prove(wanted)}"


def test_titles_are_told_apart():
    assert len({case.title for case in CASES}) == len(CASES)
