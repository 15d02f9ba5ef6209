"""Each rule proves what follows, and nothing that does not: the cases are in `cases/rules.txt`."""

from __future__ import annotations

import pytest

from dagster_sao.sql.proofs import NotProvable, Proof, QueryProofs
from tests.sql.proofs.case_files import read_cases

CASES = read_cases("rules.txt")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_what_follows_is_proven_and_nothing_else(case):
    proofs = QueryProofs(case.sql, case.adapter, case.relations)
    for follows, wanted in case.answers:
        answer = proofs.prove(wanted)
        assert isinstance(answer, Proof if follows else NotProvable), f"{wanted!r}: {answer}"


def test_titles_are_told_apart():
    assert len({case.title for case in CASES}) == len(CASES)
