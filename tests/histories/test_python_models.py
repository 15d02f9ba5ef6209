"""Python models whose libraries may read what nobody sees."""

from __future__ import annotations

import pytest

from tests.histories.lab import TABLE, built, lab

pytestmark = pytest.mark.slow

MODEL = """import {library}

def model(dbt, session):
    dbt.config(materialized="table"{config})
    return dbt.ref("a")
"""
TRUSTED = ", meta={'dagster_sao': {'trusted_imports': ['idna']}}"


def python_model(library, config=""):
    return {"models/p.py": MODEL.format(library=library, config=config)}


@pytest.mark.parametrize(("library", "again"), [("idna", {"p"}), ("json", set())])
def test_a_library_that_may_read_anything_is_new_data_for_every_job(tmp_path, library, again):
    with lab(tmp_path, {"models/a.sql": TABLE + "select 1 as id", **python_model(library)}, []) as case:
        case.settle()
        assert built(case.job("a", "p")) == again


def test_a_library_that_is_trusted_is_none(tmp_path):
    with lab(tmp_path, {"models/a.sql": TABLE + "select 1 as id", **python_model("idna")}, []) as case:
        case.settle()
        case.edit(python_model("idna", TRUSTED))
        case.settle()
        assert built(case.told[-1]) == {"p"}
        assert built(case.job("a", "p")) == set()
