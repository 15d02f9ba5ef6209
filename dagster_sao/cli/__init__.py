"""The `dagster-sao` command: plan, build, explain, state, reset, tests, sources, notify and doctor.

Made of `dagster_sao.api` alone: what the command line can do, Python can.
"""

from dagster_sao.cli.main import main

__all__ = ["main"]
