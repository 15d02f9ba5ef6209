"""The decision table and its notes, as cases that read like the contract (`cases/*.txt`)."""

from __future__ import annotations

from pathlib import Path

import pytest

from dagster_sao.core.decision.decide import Action, Reason
from dagster_sao.core.decision.decide_tests import TestAction, TestReason
from tests.core.scenarios import Play, read_scenarios

SCENARIOS = list(read_scenarios(Path(__file__).parent / "cases"))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: f"{s.file}: {s.name}")
def test_case(scenario):
    Play(scenario).run()


def test_every_reason_and_action_has_a_case():
    expected = [text for s in SCENARIOS for _, text in s.steps if text.startswith("expect ")]
    assert all(any(f" {reason.value}:" in text for text in expected) for reason in Reason)
    assert all(any(f" {action.value} " in text for text in expected) for action in Action)
    of_tests = [text for text in expected if " test " in text]
    assert all(any(f" {reason.value}:" in text for text in of_tests) for reason in TestReason)
    assert all(any(f" {action.value} " in text for text in of_tests) for action in TestAction)


def test_no_two_cases_have_one_name():
    names = [(s.file, s.name) for s in SCENARIOS]
    assert len(names) == len(set(names))
