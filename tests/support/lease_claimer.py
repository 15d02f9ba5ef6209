"""A process whose threads claim overlapping relations, and prove with a lock file each that nobody else has them."""

from __future__ import annotations

import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg

from dagster_sao.orchestration.leases.leases import Leases

RELATIONS = [f"relation {number}" for number in range(12)]
THREADS = 3
CLAIMS = 10


def claim_often(instance: dg.DagsterInstance, locks: Path, seed: str) -> int:
    """Claim and release random relations; return how many were granted. Raises FileExistsError when one has two owners."""
    chance = random.Random(seed)
    leases = Leases(instance, seed)
    granted = 0
    for _ in range(CLAIMS):
        claim = leases.claim(chance.sample(RELATIONS, 4))
        granted += len(claim.granted)
        for relation in claim.granted:
            os.close(os.open(locks / relation, os.O_CREAT | os.O_EXCL))
        for relation in claim.granted:
            (locks / relation).unlink()
            if chance.random() < 0.5:
                leases.release([relation])
        leases.release()
    return granted


def claim_in_threads(home: Path, locks: Path, seed: int) -> None:
    """Claim in several threads; the body of a process, which ends with 0 when no two met."""
    with dg.DagsterInstance.from_config(str(home)) as instance, ThreadPoolExecutor(THREADS) as pool:
        counts = list(pool.map(lambda thread: claim_often(instance, locks, f"{seed}.{thread}"), range(THREADS)))
    assert sum(counts) > 0
