"""The dbt commands of a run: what they are, how they run, and what their results mean."""
