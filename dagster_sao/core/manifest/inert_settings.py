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
OF_FLAGS = frozenset(
    {
        "cache_selected_only", "debug", "event_time_end", "event_time_start", "fail_fast", "indirect_selection", "introspect",
        "latest_version_pointer_enabled_by_default", "log_cache_events", "log_format", "log_format_file", "log_level",
        "log_level_file", "log_path", "partial_parse", "populate_cache", "print", "printer_width", "quiet",
        "send_anonymous_usage_stats", "show_all_deprecations", "static_parser", "store_failures", "target_path", "upload_to_artifacts_ingest_api",
        "use_colors", "use_colors_file", "use_experimental_parser", "use_fast_test_edges", "version_check", "warn_error",
        "warn_error_options", "write_json",
    }
)  # fmt: skip
"""The flags of a project that change nothing that is built, or that show in what dbt makes of the project."""
OF_ANSWERS = ("warn_error", "warn_error_options")
"""Those of them that change what dbt makes of a test's answer: it may take a warning for a failure."""
