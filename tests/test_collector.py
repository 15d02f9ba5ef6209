"""The garbage collector leaves old objects alone while a project is loaded, and is as it was afterwards."""

from __future__ import annotations

import gc
import weakref

import pytest

from dagster_sao.collector import paused_collector


class Circle:
    """Garbage that only the collector frees."""

    def __init__(self):
        self.itself = self


@pytest.fixture(autouse=True)
def thresholds():
    was_enabled, before, has_frozen = gc.isenabled(), gc.get_threshold(), gc.get_freeze_count() > 0
    gc.unfreeze()
    gc.enable()
    gc.set_threshold(700, 10, 10)
    yield 700, 10, 10
    (gc.freeze if has_frozen else gc.unfreeze)()
    gc.set_threshold(*before)
    (gc.enable if was_enabled else gc.disable)()


def _fail():
    raise ValueError


def test_it_is_as_it_was_after_the_block_whatever_happens(thresholds):
    with paused_collector():
        paused = gc.get_threshold()
        with paused_collector():
            pass
        assert gc.get_threshold() == paused != thresholds
    assert gc.get_threshold() == thresholds
    with pytest.raises(ValueError), paused_collector():  # noqa: PT011 (our own)
        _fail()
    assert gc.get_threshold() == thresholds


def test_full_collections_wait_and_young_garbage_does_not():
    with paused_collector():
        full = gc.get_stats()[2]["collections"]
        circle = weakref.ref(Circle())
        kept = [[] for _ in range(500_000)]
        assert circle() is None
        assert gc.get_stats()[2]["collections"] == full
    assert kept


def test_who_switched_it_off_finds_it_off(thresholds):
    gc.disable()
    with paused_collector():
        assert gc.get_threshold() == thresholds
    assert not gc.isenabled()


def test_what_somebody_froze_stays_frozen():
    gc.freeze()
    frozen = gc.get_freeze_count()
    with paused_collector():
        pass
    assert gc.get_freeze_count() == frozen > 0
    gc.unfreeze()
    with paused_collector():
        pass
    assert gc.get_freeze_count() == 0
