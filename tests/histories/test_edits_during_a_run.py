"""Files beside dbt's manifest that somebody writes while dbt runs: nobody knows which of the two contents dbt has read."""

from __future__ import annotations

import pytest

from tests.histories.inprocess_dbt import InProcessDbt
from tests.histories.lab import TABLE, built, lab

pytestmark = pytest.mark.slow

PROJECT = """
name: shop
profile: shop
flags: {{send_anonymous_usage_stats: false, {flag}}}
vars: {{zone: {zone}, {other}}}
dispatch: [{{macro_namespace: shop, search_order: [{first}, dbt]}}]
on-run-start: ["{{{{ start() }}}}"]
"""
PROFILE = """
shop:
  target: warehouse
  outputs:
    warehouse: {{type: duckdb, path: "FOLDER/warehouse.duckdb", threads: 1, settings: {{TimeZone: {zone}}}, module_paths: ["FOLDER/lib"]}}
"""
GIVEN = {"flag": "require_nested_cumulative_type_params: false", "zone": "UTC", "other": "x: 1", "first": "shop"}


def project(**changes):
    return PROJECT.format(**{**GIVEN, **changes})


PYTHON = "import rates\n\ndef model(dbt, session):\n    dbt.config(materialized='table')\n    return rates.of(dbt.ref('a'))\n"
RATES = "def of(rows):\n    return rows.project('id * {} as id')\n"
FILES = {
    "dbt_project.yml": project(),
    "profiles.yml": PROFILE.format(zone="UTC"),
    "macros/start.sql": "{% macro start() %}set variable zone = '{{ var('zone') }}'{% endmacro %}",
    "models/a.sql": TABLE + "select 1 as id",
    "models/p.py": PYTHON,
    "lib/rates.py": RATES.format(1),
}


@pytest.mark.parametrize(
    ("file", "text", "again"),
    [
        ("dbt_project.yml", project(zone="Europe/Oslo"), {"a", "p"}),
        ("dbt_project.yml", project(first="dbt"), {"a", "p"}),
        ("dbt_project.yml", project(flag=f"{GIVEN['flag']}, use_colors: false"), set()),
        ("dbt_project.yml", project(flag="require_batched_execution_for_custom_microbatch_strategy: true"), {"a", "p"}),
        ("profiles.yml", PROFILE.format(zone="Europe/Oslo"), {"a", "p"}),
        ("lib/rates.py", RATES.format(2), {"p"}),
        ("dbt_project.yml", project(other="x: 1, y: 2"), set()),
    ],
    ids=["variable of on-run-start", "dispatch", "inert flag", "flag", "profile", "imported module", "new variable"],
)
def test_what_was_built_while_a_setting_was_written_is_built_again_where_it_may_count(tmp_path, file, text, again):
    with lab(tmp_path, FILES, []) as case:

        def edit():
            (case.folder / file).write_text(text.replace("FOLDER", str(case.folder)))
            case.watch.learned(["a", "p"])

        InProcessDbt.stage.accident.before_events = edit
        case.settle()
        assert set().union(*map(built, case.told[1:])) == again
