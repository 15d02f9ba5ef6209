"""A tick answers in time, also while a query of it does not."""

from __future__ import annotations

import threading
from contextvars import ContextVar

import pytest

from dagster_sao.orchestration.automation.time_limit import TimeLimit, TooLateError

LONG = 60


def test_a_decision_in_time_is_passed_on_with_its_errors():
    limit, here = TimeLimit(LONG), ContextVar("here", default="")
    here.set("seen")
    assert limit.decide(here.get) == "seen"
    with pytest.raises(ZeroDivisionError):
        limit.decide(lambda: 1 / 0)
    assert limit.decide(lambda: 2) == 2


def test_a_decision_that_is_late_is_not_waited_for_and_no_other_is_made_beside_it():
    limit, answers, ended = TimeLimit(0.01), threading.Event(), threading.Event()

    def late():
        answers.wait(LONG)
        ended.set()

    with pytest.raises(TooLateError, match=r"there was no decision within 0\.01 seconds"):
        limit.decide(late)
    with pytest.raises(TooLateError, match="an earlier tick is still deciding"):
        limit.decide(lambda: 1)
    answers.set()
    assert ended.wait(LONG)
