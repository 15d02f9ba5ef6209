"""Processes of their own that start in an instant: what they need is imported once, in the server that forks them."""

from __future__ import annotations

import multiprocessing

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [
        "tests.support.lease_claimer",
        "tests.support.run_worker",
        "dbt.cli.main",
        "dagster_sao.warehouse.dbt_private.warm_up",
    ]
)
