"""A constraint that proves a test is one that dbt created and the database enforces: tried with rows that break it."""

from __future__ import annotations

import json

import pytest

from dbt_dagster_sao.data_tests.handover import How
from tests.trace.answers import dbt, everything, write
from tests.trace.test_equal_answers import on_duckdb, on_postgres

# By what each adapter certainly enforces as its GROUP BY compares.
PROVEN = {
    "duckdb": {"not_null_built_id"},
    "postgres": {"not_null_built_id", "unique_built_id", "unique_built_code", "not_null_built_day"},
}
COLUMNS = [
    {"name": "id", "data_type": "integer", "constraints": [{"type": "not_null"}, {"type": "unique"}], "data_tests": ["not_null", "unique"]},
    {"name": "code", "data_type": "integer", "constraints": [{"type": "unique"}], "data_tests": ["not_null", "unique"]},
    {"name": "day", "data_type": "date", "data_tests": ["not_null", "unique"]},
]  # fmt: skip
MODEL = {
    "name": "built",
    "config": {"materialized": "table", "contract": {"enforced": True}},
    "constraints": [{"type": "primary_key", "columns": ["day", "id"]}],
    "columns": COLUMNS,
}
ROWS = "select 1 as id, cast(null as integer) as code, cast('2026-01-01' as date) as day"
BROKEN = {
    "not_null_built_id": "select cast(null as integer) as id, 1 as code, cast('2026-01-01' as date) as day",
    "unique_built_id": f"{ROWS} union all select 1, 2, cast('2026-01-02' as date)",
    "unique_built_code": "select 1 as id, 3 as code, cast('2026-01-01' as date) as day union all select 2, 3, cast('2026-01-01' as date)",
    "not_null_built_day": "select 1 as id, 1 as code, cast(null as date) as day",
}


@pytest.mark.parametrize("adapter", PROVEN)
def test_what_a_constraint_proves_the_database_enforces(adapter, tmp_path, request):
    folder = tmp_path.resolve()
    world = on_duckdb if adapter == "duckdb" else on_postgres(request.getfixturevalue("postgres_server"))
    with world("constraints", folder) as database:
        files = {
            "dbt_project.yml": "{name: shop, profile: shop, flags: {send_anonymous_usage_stats: false}}",
            "profiles.yml": database.profile,
            "models/built.sql": ROWS,
            "models/models.yml": json.dumps({"models": [MODEL]}),
        }
        write(folder, files)
        assert dbt(folder, database, "build").statuses() == {"success": 1, "pass": 5, "fail": 1}
        answered = dbt(folder, database, "build", request=everything(folder, proves=True, verified_share=0).to_json())
        proven = {uid.split(".")[2] for uid, answer in answered.how.items() if answer.how is How.PROVEN}
        assert proven == PROVEN[adapter]
        for test in proven:
            write(folder, {"models/built.sql": BROKEN[test]})
            assert dbt(folder, database, "build").statuses()["error"] == 1, test
