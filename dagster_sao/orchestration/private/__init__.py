"""Every import from the internals of Dagster and dagster-dbt, and of dbt's classes for selection."""
