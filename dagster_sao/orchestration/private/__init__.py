"""Everything that is imported from the internals of Dagster, dagster-dbt and dbt, and nothing else is."""
