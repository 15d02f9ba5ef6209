"""What differs between databases stands in one value for each: nothing else knows an adapter by its name."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import dagster_sao
from dagster_sao.sql.dialects import ADAPTERS
from dagster_sao.warehouse import adapters
from dagster_sao.warehouse.adapters import AdapterTraits, Catalog, traits_of

PACKAGE = Path(dagster_sao.__file__).parent
OTHERS = {
    "dremio", "exasol", "firebolt", "hive", "materialize", "maxcompute", "mysql", "oracle", "presto", "postgresql", "risingwave",
    "singlestore", "starrocks", "tsql",
}  # fmt: skip
NAMES = ADAPTERS | adapters._TRAITS.keys() | OTHERS

TABLES = {"warehouse/adapters.py", "sql/dialects.py"}
OF_ONE_DATABASE = {
    "warehouse/probes/duckdb_content.py",
    "warehouse/probes/files.py",
    "warehouse/probes/postgres_token.py",
}
# SQLAlchemy's names of the database in which the Dagster instance keeps its runs: not adapters of dbt.
OF_THE_INSTANCE = {
    "orchestration/leases/tables.py",
    "orchestration/private/dagster_internals.py",
    "orchestration/state/verdicts.py",
}


def literals(source: str):
    """Yield the line of each string that is an adapter's name, and of each pattern that matches one."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.lower() in NAMES:
            yield node.lineno, node.value


@pytest.mark.parametrize(
    "code",
    [
        'is_embedded = graph.adapter_type == "duckdb"',
        '_FOLDS_UP = frozenset({"snowflake", "oracle"})',
        "match adapter:\n    case 'bigquery': ...",
        "traits = {'Redshift': 1}",
    ],
)
def test_the_rule_sees_a_name(code):
    assert list(literals(code))


def test_the_rule_leaves_words_alone():
    assert not list(literals('"the time that dbt reads from redshift"; f"duckdb content"'))


def test_no_module_knows_an_adapter_by_its_name():
    found = [
        f"{path}:{line}: {name!r}: put what differs into AdapterTraits (warehouse/adapters.py)"
        for file in sorted(PACKAGE.rglob("*.py"))
        if (path := file.relative_to(PACKAGE).as_posix()) not in TABLES | OF_ONE_DATABASE | OF_THE_INSTANCE
        for line, name in literals(file.read_text())
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", sorted(TABLES | OF_ONE_DATABASE | OF_THE_INSTANCE))
def test_every_exception_is_needed(path):
    assert list(literals((PACKAGE / path).read_text()))


def test_an_unknown_adapter_has_the_traits_that_miss_nothing():
    unknown = traits_of("unheard_of")
    assert unknown == AdapterTraits()
    assert unknown.relations.binds_views
    assert not unknown.relations.gets_new_sql
    assert not unknown.times.are_sound
    assert not unknown.has_counters
    assert unknown.catalog is Catalog.DBT
    assert not unknown.lists_columns
    assert unknown.sizes_seed_columns
