"""Every private part of dbt that `dbt_private` uses. A failure here names what an upgrade has moved."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import fields

import pytest

NAMES = [
    "dbt.adapters.base.impl:BaseAdapter.calculate_freshness_from_metadata",
    "dbt.adapters.base.impl:BaseAdapter.calculate_freshness_from_metadata_batch",
    "dbt.adapters.base.impl:BaseAdapter.list_relations_without_caching",
    "dbt.adapters.base.impl:BaseAdapter.set_macro_context_generator",
    "dbt.adapters.base.impl:BaseAdapter.set_macro_resolver",
    "dbt.adapters.base.impl:BaseAdapter.supports",
    "dbt.adapters.base.relation:BaseRelation.create",
    "dbt.adapters.base.relation:BaseRelation.create_from",
    "dbt.adapters.base.relation:BaseRelation.without_identifier",
    "dbt.adapters.capability:Capability.TableLastModifiedMetadata",
    "dbt.adapters.capability:Capability.TableLastModifiedMetadataBatch",
    "dbt.adapters.factory:get_adapter_class_by_name",
    "dbt.adapters.factory:get_adapter_package_names",
    "dbt.adapters.factory:load_plugin",
    "dbt.adapters.sql.connections:SQLConnectionManager.add_query",
    "dbt.adapters.sql.connections:SQLConnectionManager.exception_handler",
    "dbt.adapters.sql.connections:SQLConnectionManager.clear_thread_connection",
    "dbt.adapters.sql.connections:SQLConnectionManager.close",
    "dbt.adapters.sql.connections:SQLConnectionManager.get_if_exists",
    "dbt.adapters.sql.connections:SQLConnectionManager.set_connection_name",
    "dbt.adapters.base.column:Column.translate_type",
    "dbt.adapters.contracts.connection:Connection.handle",
    "dbt.adapters.contracts.connection:Credentials._connection_keys",
    "dbt.artifacts.schemas.manifest:ManifestMetadata",
    "dbt.clients.jinja:get_rendered",
    "dbt.config.profile:Profile.from_raw_profiles",
    "dbt.config.profile:Profile.pick_profile_name",
    "dbt.config.profile:read_profile",
    "dbt.config.project:load_raw_project",
    "dbt.config.renderer:ProfileRenderer",
    "dbt.config.runtime:RuntimeConfig.from_parts",
    "dbt.config.runtime:load_project",
    "dbt.context.base:contextproperty",
    "dbt.context.manifest:ManifestContext",
    "dbt.context.providers:MacroContext",
    "dbt.context.providers:OperationProvider.DatabaseWrapper",
    "dbt.context.providers:RuntimeProvider.DatabaseWrapper",
    "dbt.context.providers:RuntimeDatabaseWrapper.__getattr__",
    "dbt.context.providers:SourceContext.this",
    "dbt.contracts.graph.manifest:Manifest",
    "dbt.contracts.graph.nodes:Macro.from_dict",
    "dbt.contracts.graph.nodes:SourceDefinition.from_dict",
    "dbt.flags:get_flags",
    "dbt.flags:set_from_args",
    "dbt.mp_context:get_mp_context",
    "dbt_common.context:set_invocation_context",
    "dbt_common.context:try_get_invocation_context",
]
DUCKDB_NAMES = [
    "dbt.adapters.duckdb.connections:DuckDBConnectionManager._ENV",
    "dbt.adapters.duckdb.connections:DuckDBConnectionManager._LOCK",
    "dbt.adapters.duckdb.connections:DuckDBConnectionManager.get_credentials",
    "dbt.adapters.duckdb.environments.local:LocalEnvironment.close",
    "dbt.adapters.duckdb.environments.local:LocalEnvironment.notify_closed",
    "dbt.adapters.duckdb.impl:DuckDBAdapter.ConnectionManager",
    "dbt.adapters.duckdb.credentials:DuckDBCredentials.is_motherduck",
    "dbt.adapters.duckdb.credentials:DuckDBCredentials.is_motherduck_database",
]


@pytest.mark.parametrize("name", [*NAMES, *DUCKDB_NAMES])
def test_dbt_still_has(name):
    module, _, path = name.partition(":")
    found = importlib.import_module(module)
    for part in path.split("."):
        assert hasattr(found, part), f"dbt moved {name}: adapt dagster_sao/warehouse/dbt_private"
        found = getattr(found, part)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        (
            "dbt.config.profile:Profile.from_raw_profiles",
            ["raw_profiles", "profile_name", "renderer", "target_override"],
        ),
        ("dbt.config.runtime:load_project", ["project_root", "version_check", "profile", "cli_vars"]),
        ("dbt.config.runtime:RuntimeConfig.from_parts", ["project", "profile", "args"]),
        (
            "dbt.adapters.base.impl:BaseAdapter.calculate_freshness_from_metadata_batch",
            ["sources", "macro_resolver"],
        ),
        ("dbt.adapters.base.impl:BaseAdapter.calculate_freshness_from_metadata", ["source", "macro_resolver"]),
        (
            "dbt.context.providers:MacroContext.__init__",
            ["model", "config", "manifest", "provider", "search_package"],
        ),
        ("dbt.context.manifest:ManifestContext.__init__", ["config", "manifest", "search_package"]),
        (
            "dbt.context.providers:ProviderContext.__init__",
            ["model", "config", "manifest", "provider", "context_config"],
        ),
        ("dbt.flags:set_from_args", ["args", "project_flags"]),
    ],
)
def test_dbt_still_calls_its_parameters(name, parameters):
    module, _, path = name.partition(":")
    found = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    names = [parameter for parameter in inspect.signature(found).parameters if parameter != "self"]
    assert names[: len(parameters)] == parameters, f"dbt changed {name}"


def test_a_provider_context_still_has_the_fields_that_ours_sets():
    from dbt.context.providers import ProviderContext

    source = inspect.getsource(ProviderContext.__init__)
    assigned = {
        line.split("=")[0].split(":")[0].strip() for line in source.splitlines() if "self." in line and "=" in line
    }
    ours = {"self.model", "self.sql_results", "self.context_config", "self.provider", "self.adapter", "self.db_wrapper"}
    assert assigned - {"self.config"} == ours


def test_a_macro_context_still_has_one_field_more():
    from dbt.context.providers import MacroContext

    assert "self._search_package = " in inspect.getsource(MacroContext.__init__)


def test_a_duckdb_environment_still_counts_its_handles():
    from dbt.adapters.duckdb.credentials import DuckDBCredentials
    from dbt.adapters.duckdb.environments.local import LocalEnvironment

    environment = LocalEnvironment(DuckDBCredentials())
    assert environment.handle_count == 0
    assert environment.lock is not None
    assert {"retries", "keep_open", "settings", "attach", "remote", "path", "config_options"} <= {
        field.name for field in fields(DuckDBCredentials)
    }


def test_a_profile_still_has_its_threads():
    from dbt.config.profile import Profile

    assert "threads" in {field.name for field in fields(Profile)}
