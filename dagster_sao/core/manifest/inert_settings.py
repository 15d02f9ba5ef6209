"""The config of nodes, tests and functions that changes nothing that is built. All other config counts.

Settings of adapters and packages are not known in advance, so what is not listed here counts.
"""

from __future__ import annotations

OF_TESTS = frozenset(
    {
        "alias", "database", "description", "docs", "enabled", "group", "meta", "owner", "schema", "static_analysis", "tags",
    }
)  # fmt: skip
"""The settings of a data test that do not change its answer."""
_OF_WHAT_IS_CREATED = OF_TESTS | {"access", "concurrent_batches", "contract", "freshness", "persist_docs"}
OF_FUNCTIONS = _OF_WHAT_IS_CREATED | {"event_time"}
OF_NODES = _OF_WHAT_IS_CREATED | {
    "pre-hook", "post-hook", "severity", "state", "target_database", "target_schema", "on_error", "latest_version_pointer",
}  # fmt: skip
"""Hooks and contracts are in the fingerprint anyway, as parts of their own."""
