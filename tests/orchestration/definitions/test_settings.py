"""Numbers of the settings that have no meaning are refused with a sentence."""

from __future__ import annotations

import math

import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from dagster_sao.api.request import make_request
from dagster_sao.cli import main
from dagster_sao.cli.commands import commands
from dagster_sao.core.errors import InvalidPolicyError
from dagster_sao.core.manifest.policy import EfficientTesting
from dagster_sao.orchestration.definitions.settings import StateAwareSettings
from dagster_sao.orchestration.runs.config import StateAwareRunConfig


@pytest.mark.parametrize("name", ["freshness_interval_seconds", "automation_interval_seconds", "tick_seconds"])
@pytest.mark.parametrize(
    "value", [0, -1, 10**20, 10**5000, math.nan, math.inf, True, "30"], ids=[str(i) for i in range(8)]
)
def test_seconds_without_a_meaning_are_refused(name, value):
    with pytest.raises(InvalidPolicyError, match=f"`{name}` is .*: use a (whole )?number of seconds from"):
        StateAwareSettings(**{name: value}).check()


@pytest.mark.parametrize("name", ["freshness_interval_seconds", "automation_interval_seconds"])
def test_a_part_of_a_second_is_refused_where_dagster_takes_none(name):
    with pytest.raises(InvalidPolicyError, match=rf"^`{name}` is 1\.5: use a whole number"):
        StateAwareSettings(**{name: 1.5}).check()
    StateAwareSettings(tick_seconds=1.5).check()


@pytest.mark.parametrize("kept", [None, "20", [20], 1.5, True], ids=str)
def test_a_number_of_folders_without_a_meaning_is_refused(kept):
    with pytest.raises(InvalidPolicyError, match=r"^`kept_dbt_folders` is .*: use a number from 0 to"):
        StateAwareSettings(kept_dbt_folders=kept).check()


@pytest.mark.parametrize("share", [-0.01, 1.01, 2, math.nan, math.inf, True, "0.1", None], ids=str)
def test_a_share_of_proofs_without_a_meaning_is_refused(share):
    with pytest.raises(InvalidPolicyError, match=r"^`verify_proofs` is .*: use a share from 0 to 1\.$"):
        StateAwareSettings(verify_proofs=share).check()


@pytest.mark.parametrize("way", ["some", "OFF", True, None, 3], ids=str)
def test_a_way_to_answer_tests_that_does_not_exist_is_refused(way):
    with pytest.raises(
        InvalidPolicyError, match=r"^`efficient_testing` is .*: use one of off, reuse, aggregate, all\.$"
    ):
        StateAwareSettings(efficient_testing=way).check()


@pytest.mark.parametrize("share", [0, 0.02, 1])
@pytest.mark.parametrize("way", [False, *EfficientTesting, *(way.value for way in EfficientTesting)])
def test_settings_tell_how_tests_are_answered(way, share):
    settings = StateAwareSettings(efficient_testing=way, verify_proofs=share)
    settings.check()
    found = settings.test_settings
    assert (found.efficient_testing, found.verified_share) == (EfficientTesting(way), share)
    assert isinstance(found.efficient_testing, EfficientTesting)


@pytest.mark.parametrize(
    ("option", "expected"),
    [(None, EfficientTesting.REUSE), ("off", EfficientTesting.OFF), (EfficientTesting.ALL, EfficientTesting.ALL)],
)
def test_a_runs_way_takes_precedence_over_the_projects(option, expected):
    of_project = StateAwareSettings(efficient_testing=EfficientTesting.REUSE, verify_proofs=0.5).test_settings
    found = of_project.of_run(StateAwareRunConfig(efficient_testing=option).efficient_testing)
    assert (found.efficient_testing, found.verified_share) == (expected, 0.5)


def test_the_command_line_takes_the_ways_that_exist():
    refused = CliRunner().invoke(main, ["build", "--efficient-testing", "some"])
    assert refused.exit_code == 2
    assert "'some' is not one of 'off', 'reuse', 'aggregate', 'all'" in refused.output
    made = commands.commands["build"].make_context("build", ["--efficient-testing", "reuse"])
    assert make_request(efficient_testing=made.params["efficient_testing"]).options.efficient_testing is (
        EfficientTesting.REUSE
    )


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
