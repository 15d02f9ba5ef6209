"""The share of true properties that is proven, in a sample labelled by hand: a lost proof shows, and so does a new one."""

from __future__ import annotations

from collections import Counter

import pytest

from dagster_sao.sql.proofs import Proof, QueryProofs
from tests.sql.proofs.case_files import read_cases

CASES = read_cases("sample.txt")
LABELS = Counter(label for case in CASES for label, _ in case.answers)
LEAST_SHARE = 0.8


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_each_test_of_the_sample_is_proven_if_its_label_says_so(case):
    proofs = QueryProofs(case.sql, "duckdb", case.relations)
    found = {wanted: isinstance(proofs.prove(wanted), Proof) for _, wanted in case.answers}
    assert found == {wanted: label == "proven" for label, wanted in case.answers}, {
        wanted: proofs.prove(wanted) for wanted in found
    }


def test_most_of_what_follows_is_proven():
    assert sum(LABELS.values()) >= 40
    assert LABELS["proven"] / (LABELS["proven"] + LABELS["missed"]) >= LEAST_SHARE
