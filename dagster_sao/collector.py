"""Python's garbage collector, while thousands of objects are made that stay."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

# Young objects are still collected, a hundred thousand at a time: what the analysis of SQL leaves behind would otherwise double the
# memory of a process that has no normal forms cached. Old ones are not.
_YOUNG_ONLY = (100_000, 50, 1_000_000)


@contextmanager
def paused_collector() -> Iterator[None]:
    """Collect only young garbage within the block.

    A manifest becomes millions of objects that stay. Each full collection in between visits all of them and frees nothing:
    a fifth of the time that it takes to load a large project.
    """
    before = gc.get_threshold()
    # The user's choice, or a block around this one, perhaps in another thread.
    if not gc.isenabled() or before == _YOUNG_ONLY:
        yield
        return
    gc.set_threshold(*_YOUNG_ONLY)
    try:
        yield
    finally:
        if not gc.get_freeze_count():
            # Both together move all objects to the oldest generation, without a look at them. Otherwise each of the three would
            # soon be collected with all of them in it.
            gc.freeze()
            gc.unfreeze()
        gc.set_threshold(*before)
