"""Living a history, and living random ones whose failures shrink and are printed."""

from __future__ import annotations

import os
import random
from contextlib import AbstractContextManager
from typing import Protocol

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

from tests.histories.station import Station
from tests.histories.steps import History, without_pauses

SEED_VARIABLE = "DAGSTER_SAO_HISTORIES_SEED"
_SETTINGS = settings(
    deadline=None, database=None, print_blob=False, suppress_health_check=list(HealthCheck), report_multiple_bugs=False
)


class Beginning(Protocol):
    """Where every history begins."""

    def world(self) -> AbstractContextManager[Station]:
        """Return a world in its first state."""


def live(beginning: Beginning, history: History) -> None:
    """Live one history; print it when it breaks a promise."""
    try:
        with beginning.world() as world:
            world.live(history)
    except Exception:
        print(f"\nThis history breaks a promise:\n{without_pauses(history)!r}\n")
        raise


def live_random_histories(
    beginning: Beginning, histories: SearchStrategy[History], count: int, *, shard: int = 0
) -> None:
    """Live `count` random histories."""
    # CI pins the seed, so that a change is judged by the same histories as the one before it.
    chosen = int(os.environ.get(SEED_VARIABLE) or random.SystemRandom().randrange(2**32))
    print(f"{SEED_VARIABLE}={chosen}")

    @seed(chosen + shard)
    @settings(_SETTINGS, max_examples=count, phases=(Phase.generate, Phase.shrink))
    @given(histories)
    def property_test(history: History) -> None:
        live(beginning, history)

    property_test()
