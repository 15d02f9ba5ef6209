"""Dagster: reads state, calls the core, writes events. It has no rules of its own."""
