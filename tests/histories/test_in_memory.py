"""A DuckDB database in memory keeps nothing after a run: external models are files, and all else is refused."""

from __future__ import annotations

import duckdb
import pytest

from dagster_sao.core.errors import InvalidProjectError
from tests.histories.lab import VIEW, lab

pytestmark = pytest.mark.slow

STG = "select * from {{ source('raw', 'orders') }}"
FILES = {
    "profiles.yml": "shop: {target: warehouse, outputs: {warehouse: {type: duckdb, path: ':memory:', threads: 1}}}",
    "models/sources.yml": """
sources:
  - name: raw
    config: {external_location: FOLDER/orders.csv}
    tables: [{name: orders}]
""",
    "models/stg.sql": "{{ config(materialized='ephemeral') }} " + STG,
    "models/m.sql": (
        "{{ config(materialized='external', location='FOLDER/m.parquet') }} select count(*) as n from {{ ref('stg') }}"
    ),
}


def test_external_models_over_files_are_built_for_new_data_and_reused(tmp_path):
    (tmp_path / "orders.csv").write_text("id\n1\n")
    with lab(tmp_path, FILES, []) as case:
        case.settle()
        assert case.cycle() == []
        (tmp_path / "orders.csv").write_text("id\n1\n2\n")
        case.settle()
        assert duckdb.sql(f"select n from '{tmp_path}/m.parquet'").fetchall() == [(2,)]


@pytest.mark.parametrize("database", [":memory:", "FOLDER/warehouse.duckdb"])
def test_an_external_model_whose_file_is_gone_is_built_again(tmp_path, database):
    (tmp_path / "orders.csv").write_text("id\n1\n")
    with lab(tmp_path, {**FILES, "profiles.yml": FILES["profiles.yml"].replace(":memory:", database)}, []) as case:
        case.settle()
        (tmp_path / "m.parquet").unlink()
        (run,) = case.cycle()
        assert run.nodes["m"][1].endswith("no longer exists")
        assert (tmp_path / "m.parquet").exists()
        assert case.cycle() == []


def test_what_does_not_survive_a_run_is_refused_with_its_remedy(tmp_path):
    (tmp_path / "orders.csv").write_text("id\n1\n")
    with (
        pytest.raises(InvalidProjectError) as refused,
        lab(tmp_path, {**FILES, "models/stg.sql": VIEW + STG}, []),
    ):
        pass
    assert "has its database in memory (`path: ':memory:'`), so stg (models/stg.sql) would be gone" in str(
        refused.value
    )
    assert "Give the target a file as `path`, or make these models ephemeral or external." in str(refused.value)
