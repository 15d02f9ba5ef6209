"""When a source is probed again."""

from __future__ import annotations

from datetime import timedelta

import pytest

from dagster_sao.core.manifest.policy import SourcePolicy
from dagster_sao.orchestration.sources.schedule import ProbeSchedule
from tests.orchestration.shops import NOW

UID = "source.shop.raw.orders"
MINUTE = timedelta(minutes=1)
PLAIN = SourcePolicy()


def test_a_source_is_asked_at_every_tick_while_its_answer_is_wanted():
    schedule = ProbeSchedule()
    schedule.answered(UID, NOW)
    assert schedule.is_due(UID, PLAIN, NOW, is_wanted=True)
    assert not schedule.is_due(UID, PLAIN, NOW, is_wanted=False)


def test_what_was_never_asked_is_asked_once():
    assert ProbeSchedule().is_due(UID, PLAIN, NOW, is_wanted=False)


def test_probe_every_holds_questions_back():
    schedule, policy = ProbeSchedule(), SourcePolicy(probe_every=10 * MINUTE)
    schedule.answered(UID, NOW)
    assert not schedule.is_due(UID, policy, NOW + 9 * MINUTE, is_wanted=True)
    assert schedule.is_due(UID, policy, NOW + 10 * MINUTE, is_wanted=True)


def test_nothing_waits_for_a_clock_that_was_set_back():
    schedule, policy = ProbeSchedule(), SourcePolicy(probe_every=10 * MINUTE)
    schedule.answered(UID, NOW)
    assert schedule.is_due(UID, policy, NOW - 60 * MINUTE, is_wanted=True)
    schedule.failed(UID, "no such table", NOW)
    assert schedule.is_due(UID, PLAIN, NOW - 60 * MINUTE, is_wanted=True)


def test_a_source_that_is_about_to_be_stale_is_asked_though_nobody_waits_for_it():
    schedule = ProbeSchedule()
    schedule.answered(UID, NOW, NOW + MINUTE)
    assert not schedule.is_due(UID, PLAIN, NOW, is_wanted=False)
    assert schedule.is_due(UID, PLAIN, NOW + MINUTE, is_wanted=False)


def test_a_failing_source_is_asked_again_after_longer_and_longer_waits():
    schedule, now, waits = ProbeSchedule(), NOW, []
    for _ in range(7):
        schedule.failed(UID, "no such table", now)
        wait = timedelta(0)
        while not schedule.is_due(UID, PLAIN, now + wait, is_wanted=True):
            wait += timedelta(seconds=30)
        waits.append(wait)
        now += wait
    assert waits == [MINUTE / 2, MINUTE, 2 * MINUTE, 4 * MINUTE, 8 * MINUTE, 10 * MINUTE, 10 * MINUTE]


@pytest.mark.parametrize("is_wanted", [True, False])
def test_an_answer_ends_the_waits(is_wanted):
    schedule = ProbeSchedule()
    for _ in range(4):
        schedule.failed(UID, "no such table", NOW)
    assert schedule.failing([UID]) == {UID: "no such table"}
    schedule.answered(UID, NOW)
    assert schedule.failing([UID]) == {}
    assert schedule.is_due(UID, PLAIN, NOW, is_wanted=is_wanted) is is_wanted
