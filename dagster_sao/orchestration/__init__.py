"""Dagster: reads state, calls the core, writes events. Holds no rule of its own."""
