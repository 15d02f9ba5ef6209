"""Data tests that dbt answers with fewer queries: what a run requests, and how dbt's process does it."""
