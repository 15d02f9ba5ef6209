"""The decisions. Pure: no Dagster, no dbt, no clock, no I/O."""
