"""Manifests as small dictionaries, where dbt does not write them here: of other versions, of other projects, broken ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def model(name: str, *parents: str, **changes: Any) -> dict[str, Any]:
    """Return a model's entry that reads `parents` (unique ids, or names of models)."""
    package = changes.pop("package_name", "shop")
    config = {"materialized": "table", "enabled": True, **changes.pop("config", {})}
    return {
        "unique_id": f"model.{package}.{name}",
        "name": name,
        "resource_type": "model",
        "package_name": package,
        "original_file_path": f"models/{name}.sql",
        "path": f"{name}.sql",
        "fqn": [package, name],
        "alias": name,
        "database": "db",
        "schema": "main",
        "relation_name": f'"db"."main"."{name}"',
        "language": "sql",
        "raw_code": "select " + ", ".join(f"{{{{ ref('{p}') }}}}.id" for p in parents),
        "checksum": {"name": "sha256", "checksum": name},
        "config": config,
        "columns": {},
        "tags": [],
        "meta": {},
        "depends_on": {"nodes": [p if "." in p else f"model.{package}.{p}" for p in parents], "macros": []},
        **changes,
    }


def source(name: str, table: str, **changes: Any) -> dict[str, Any]:
    """Return a source table's entry."""
    return {
        "unique_id": f"source.shop.{name}.{table}",
        "name": table,
        "source_name": name,
        "resource_type": "source",
        "package_name": "shop",
        "original_file_path": "models/sources.yml",
        "fqn": ["shop", name, table],
        "identifier": table,
        "database": "db",
        "schema": name,
        "relation_name": f'"db"."{name}"."{table}"',
        "config": {"enabled": True},
        "columns": {},
        "tags": [],
        "meta": {},
        "source_meta": {},
        **changes,
    }


def seed(name: str, **changes: Any) -> dict[str, Any]:
    """Return a seed's entry."""
    entry = model(name, **{"config": {"materialized": "seed"}, "raw_code": "", **changes})
    return {
        **entry,
        "unique_id": f"seed.shop.{name}",
        "resource_type": "seed",
        "original_file_path": f"seeds/{name}.csv",
    }


def data_test(name: str, *parents: str, **changes: Any) -> dict[str, Any]:
    """Return a generic data test's entry that reads `parents` (unique ids, or names of models)."""
    config = {"enabled": True, "severity": "ERROR", "materialized": "test", **changes.pop("config", {})}
    return {
        "unique_id": f"test.shop.{name}.1",
        "name": name,
        "resource_type": "test",
        "package_name": "shop",
        "original_file_path": "models/checks.yml",
        "path": f"{name}.sql",
        "fqn": ["shop", name],
        "alias": name,
        "database": "db",
        "schema": "checks",
        "relation_name": None,
        "language": "sql",
        "raw_code": "{{ test_not_null(**_dbt_generic_test_kwargs) }}",
        "checksum": {"name": "none", "checksum": ""},
        "config": config,
        "columns": {},
        "tags": [],
        "meta": {},
        "depends_on": {"nodes": [p if "." in p else f"model.shop.{p}" for p in parents], "macros": []},
        "test_metadata": {"name": "not_null", "kwargs": {"column_name": "id"}, "namespace": None},
        **changes,
    }


def function(name: str, *depends_on: str, **changes: Any) -> dict[str, Any]:
    """Return a function's entry that calls or reads what it depends on (unique ids, or names of functions)."""
    config = {"enabled": True, "materialized": "function", "type": "scalar", "volatility": None}
    return {
        "unique_id": f"function.shop.{name}",
        "name": name,
        "resource_type": "function",
        "package_name": "shop",
        "original_file_path": f"functions/{name}.sql",
        "path": f"{name}.sql",
        "fqn": ["shop", name],
        "alias": name,
        "database": "db",
        "schema": "main",
        "relation_name": None,
        "language": "sql",
        "raw_code": "select x",
        "config": {**config, **changes.pop("config", {})},
        "arguments": [{"name": "x", "data_type": "integer", "description": None, "default_value": None}],
        "returns": {"data_type": "integer", "description": None},
        "depends_on": {
            "nodes": [uid if "." in uid else f"function.shop.{uid}" for uid in depends_on],
            "macros": changes.pop("macros", []),
        },
        **changes,
    }


def with_functions(*functions: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a manifest that holds functions, for `manifest(…, **with_functions(…))`."""
    return {"functions": {entry["unique_id"]: entry for entry in functions}}


def manifest(
    nodes: Iterable[Mapping[str, Any]],
    sources: Iterable[Mapping[str, Any]] = (),
    *,
    version: int = 12,
    adapter: str = "duckdb",
    **more: Any,
) -> dict[str, Any]:
    """Return a manifest of `nodes` and `sources`."""
    return {
        "metadata": {
            "dbt_schema_version": f"https://schemas.getdbt.com/dbt/manifest/v{version}.json",
            "dbt_version": "1.11.16",
            "project_name": "shop",
            "adapter_type": adapter,
        },
        "nodes": {n["unique_id"]: n for n in nodes},
        "sources": {s["unique_id"]: s for s in sources},
        "macros": {},
        "disabled": {},
        "unit_tests": {},
        "exposures": {},
        "groups": {},
        "group_map": {},
        "metrics": {},
        "semantic_models": {},
        "saved_queries": {},
        "docs": {},
        "selectors": {},
        "parent_map": {n["unique_id"]: list(n["depends_on"]["nodes"]) for n in nodes},
        "child_map": {},
        **more,
    }


def macro(name: str, sql: str, *calls: str, package: str = "shop") -> dict[str, Any]:
    """Return a macro's entry."""
    return {
        "unique_id": f"macro.{package}.{name}",
        "name": name,
        "package_name": package,
        "macro_sql": sql,
        "depends_on": {"macros": [c if "." in c else f"macro.{package}.{c}" for c in calls]},
    }
