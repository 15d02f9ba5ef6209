"""The Dagster definitions of a state-aware dbt project, in Python and in YAML."""
