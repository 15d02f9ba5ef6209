"""The garbage collector rests while a project is loaded, and is as it was afterwards."""

from __future__ import annotations

import gc

import pytest

from dagster_sao.collector import paused_collector


@pytest.fixture(autouse=True)
def _as_before():
    was_enabled = gc.isenabled()
    yield
    gc.unfreeze()
    (gc.enable if was_enabled else gc.disable)()


def _fail():
    raise ValueError


def test_it_rests_within_the_block_and_works_after_it_whatever_happens():
    gc.enable()
    with paused_collector():
        with paused_collector():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ValueError), paused_collector():  # noqa: PT011 (our own)
        _fail()
    assert gc.isenabled()


def test_who_switched_it_off_finds_it_off():
    gc.disable()
    with paused_collector():
        pass
    assert not gc.isenabled()


def test_what_somebody_froze_stays_frozen():
    gc.enable()
    gc.freeze()
    frozen = gc.get_freeze_count()
    with paused_collector():
        pass
    assert gc.get_freeze_count() == frozen > 0
    gc.unfreeze()
    with paused_collector():
        pass
    assert gc.get_freeze_count() == 0
