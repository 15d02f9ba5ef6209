"""An interrupt does not come between the start of a process and the moment from which it is ended with its run."""

from __future__ import annotations

import signal

import pytest
from dagster._utils.interrupts import raise_interrupts_as

from dagster_sao.orchestration.private.dbt_commands import interrupts_afterwards


class RunInterruptedError(Exception):
    """What Dagster raises in a run that is to end."""


def test_an_interrupt_waits_for_the_end_of_the_block():
    done = []
    with raise_interrupts_as(RunInterruptedError), pytest.raises(RunInterruptedError):  # noqa: PT012
        with interrupts_afterwards():
            signal.raise_signal(signal.SIGINT)
            done.append("in the block")
        done.append("after it")
    assert done == ["in the block"]


def test_an_error_in_the_block_is_told_beside_the_interrupt():
    with raise_interrupts_as(RunInterruptedError), pytest.raises(RunInterruptedError) as raised:
        _fail_while_interrupted()
    assert isinstance(raised.value.__context__, OSError)


def _fail_while_interrupted():
    with interrupts_afterwards():
        signal.raise_signal(signal.SIGINT)
        raise OSError


def test_without_an_interrupt_nothing_happens():
    before = signal.getsignal(signal.SIGINT)
    with interrupts_afterwards():
        pass
    assert signal.getsignal(signal.SIGINT) is before
