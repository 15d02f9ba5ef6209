"""A dbt project on disk: parsed, read, and its nodes selected."""
