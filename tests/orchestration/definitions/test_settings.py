"""Numbers of the settings that have no meaning are refused with a sentence."""

from __future__ import annotations

import math

import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from dagster_sao.cli import main
from dagster_sao.core.errors import InvalidPolicyError
from dagster_sao.orchestration.definitions.settings import StateAwareSettings
from dagster_sao.orchestration.runs.config import StateAwareRunConfig


@pytest.mark.parametrize("name", ["freshness_interval_seconds", "automation_interval_seconds", "tick_seconds"])
@pytest.mark.parametrize(
    "value", [0, -1, 10**20, 10**5000, math.nan, math.inf, True, "30"], ids=[str(i) for i in range(8)]
)
def test_seconds_without_a_meaning_are_refused(name, value):
    with pytest.raises(InvalidPolicyError, match=f"`{name}` is .*: use a number of seconds from"):
        StateAwareSettings(**{name: value}).check()


@pytest.mark.parametrize(
    ("name", "value"),
    [("retries", 10**20), ("retry_delay_seconds", math.inf), ("retry_delay_seconds", math.nan), ("threads", 10**20)],
)
def test_a_run_is_not_told_a_number_without_a_meaning(name, value):
    with pytest.raises(ValidationError):
        StateAwareRunConfig(**{name: value})


@pytest.mark.parametrize(
    "option",
    [("--retries", "1" + "0" * 20), ("--retry-delay", "nan"), ("--retry-delay", "inf"), ("--threads", "99999")],
)
def test_the_command_line_refuses_a_number_without_a_meaning(option):
    done = CliRunner().invoke(main, ["build", *option])
    assert done.exit_code == 2
    assert f"Invalid value for '{option[0]}'" in done.output
