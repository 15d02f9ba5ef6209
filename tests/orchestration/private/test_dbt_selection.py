"""Every private part of dbt that `orchestration.private.dbt_selection` uses. A failure here names what an upgrade has moved."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import pytest

from dagster_sao.orchestration.private import dbt_selection

# Module, name, and the parameters or attributes that we rely on.
RELIED_ON = [
    ("dbt.artifacts.schemas.manifest", "ManifestMetadata", ["adapter_type", "project_name"], []),
    ("dbt.config.selectors", "SelectorConfig", [], ["selectors_from_dict"]),
    (
        "dbt.contracts.graph",
        "nodes",
        [],
        ["ModelNode", "SeedNode", "SnapshotNode", "GenericTestNode", "SingularTestNode"],
    ),
    ("dbt.contracts.graph.manifest", "Manifest", ["nodes", "sources", "macros", "unit_tests", "metadata"], []),
    ("dbt.contracts.state", "PreviousState", ["state_path", "target_path", "project_root"], []),
    ("dbt.graph.graph", "Graph", ["graph"], []),
    (
        "dbt.graph.selector",
        "NodeSelector",
        ["graph", "manifest", "previous_state"],
        ["select_nodes", "select_included", "expand_selection", "SELECTOR_METHODS"],
    ),
    ("dbt.graph.cli", "parse_union", ["components", "expect_exists"], []),
    ("dbt.graph.selector_methods", "MethodName", [], ["State"]),
    ("dbt.graph.selector_methods", "StateSelectorMethod", ["kwargs"], ["search"]),
    (
        "dbt.graph.selector_methods",
        "QualifiedNameSelectorMethod",
        [],
        ["search", "node_is_match", "non_source_nodes"],
    ),
    ("dbt.node_types", "VERSIONED_NODE_TYPES", [], []),
    ("dbt.graph.selector_spec", "SelectionDifference", ["components"], []),
    ("dbt_common.clients.agate_helper", "from_csv", ["text_columns", "delimiter"], []),
    ("dbt_common.events.contextvars", "task_contextvars", ["kwargs"], []),
    ("dbt_common.exceptions", "DbtBaseException", [], []),
]


@pytest.mark.parametrize(
    ("module", "name", "parameters", "attributes"), RELIED_ON, ids=lambda v: v if isinstance(v, str) else ""
)
def test_it_is_where_it_was_and_takes_what_we_give(module, name, parameters, attributes):
    found = getattr(importlib.import_module(module), name)
    if parameters:
        assert set(parameters) <= set(inspect.signature(found).parameters)
    assert set(attributes) <= set(dir(found))


def test_every_import_of_dbt_is_named_here():
    tree = ast.parse(Path(dbt_selection.__file__).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    ours = {
        (n.module, a.name) for n in imports for a in n.names if (n.module or "").split(".")[0] in {"dbt", "dbt_common"}
    }
    assert ours == {(module, name) for module, name, *_ in RELIED_ON}
