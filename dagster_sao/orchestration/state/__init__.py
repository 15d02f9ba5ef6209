"""The state of a project, read from the Dagster instance."""
