"""The `dagster-sao` command: plan, build, explain, state, reset, tests, sources, notify and doctor.

It uses `dagster_sao.api` alone: Python can do whatever the command line can.
"""

from dagster_sao.cli.main import main

__all__ = ["main"]
