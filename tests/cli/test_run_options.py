"""The options of a run are the same everywhere: launchpad, jobs, Python and command line."""

from __future__ import annotations

import dataclasses
import inspect
from enum import Enum

import click
import pytest

from dagster_sao import StateAwareJob, StateAwareProject, StateAwareRunConfig
from dagster_sao.api import ConflictingOptionsError
from dagster_sao.api.request import make_request
from dagster_sao.cli.commands import commands
from dagster_sao.orchestration.runs.config import RUN_OPTIONS

OF_THE_PROJECT = {"vars", "target"}
"""In Python arguments of the project: the manifest is parsed with them."""
OF_JOBS = {
    "name",
    "schedule",
    "timezone",
    "schedule_enabled",
    "start_run_when_idle",
    "in_process",
    "tags",
    "description",
}
NOTHING = (None, "", (), [], {})


def plain(value):
    value = value.value if isinstance(value, Enum) else value
    return None if value in NOTHING and not isinstance(value, (bool, int, float)) else value


DEFAULTS = {option.name: plain(option.default) for option in RUN_OPTIONS.values()}
DESCRIPTIONS = {option.name: option.description for option in RUN_OPTIONS.values()}


def test_the_launchpad_has_the_options_of_a_run():
    fields = StateAwareRunConfig.model_fields
    defaults = {name: plain(field.get_default(call_default_factory=True)) for name, field in fields.items()}
    # None: by who starts the run.
    assert defaults == {**DEFAULTS, "state_aware": None}
    for name, field in fields.items():
        assert field.description.startswith(DESCRIPTIONS[name])
        assert name == "state_aware" or field.description == DESCRIPTIONS[name]


def test_a_job_has_the_options_of_a_run():
    job = StateAwareJob("nightly")
    assert {one.name for one in dataclasses.fields(StateAwareJob)} == DEFAULTS.keys() | OF_JOBS
    assert {name: plain(getattr(job, name)) for name in DEFAULTS} == DEFAULTS
    fields = StateAwareJob.model().model_fields
    assert {name: fields[name].description for name in DESCRIPTIONS} == DESCRIPTIONS


@pytest.mark.parametrize("method", [StateAwareProject.build, StateAwareProject.plan])
def test_python_has_the_options_of_a_run(method):
    parameters = inspect.signature(method).parameters
    own = {"self", "state_mode", "raise_on_failure"}
    defaults = {name: plain(one.default) for name, one in parameters.items() if name not in own}
    assert defaults == {name: default for name, default in DEFAULTS.items() if name not in OF_THE_PROJECT}
    assert inspect.signature(StateAwareProject).parameters.keys() > {"variables", "target"}


def test_the_help_of_build_describes_each_option():
    described = inspect.getdoc(StateAwareProject.build)
    for name in DESCRIPTIONS.keys() - OF_THE_PROJECT:
        assert f"    {name}: {DESCRIPTIONS[name]}\n" in described


@pytest.mark.parametrize("command", ["build", "plan"])
def test_the_command_line_has_the_options_of_a_run(command):
    params = {one.name: one for one in commands.commands[command].params if isinstance(one, click.Option)}
    params["vars"] = params.pop("variables")
    found = {name: params[name] for name in DEFAULTS}
    values = commands.commands[command].make_context(command, []).params
    assert {name: plain(values[one.name]) for name, one in found.items()} == DEFAULTS
    assert {name: one.help.removesuffix(" Repeatable.") for name, one in found.items()} == DESCRIPTIONS


def test_what_python_takes_reaches_the_run():
    request = make_request("orders", force=["a b", "c"], test_strategy="deferred", retries=2, state="prod", defer=True)
    config = request.options
    assert (config.force, config.test_strategy.value, config.retries, config.defer) == (
        ["a", "b", "c"],
        "deferred",
        2,
        True,
    )
    assert config.state_aware is True


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"defer": True}, "`defer` needs `state`: a folder with another environment's manifest, for `state:` selection and `defer`."),
        ({"favor_state": True, "state": "prod"}, "`favor_state` needs `defer`: read parents that are not built here from the environment of `state`."),
        ({"retries": -1}, "`retries` is -1. Input should be greater than or equal to 0."),
        ({"threads": 0}, "`threads` is 0. Input should be greater than or equal to 1."),
        ({"test_strategy": "later"}, "`test_strategy` is one of immediate, deferred, skip, not 'later'."),
    ],
)  # fmt: skip
def test_options_without_meaning_are_refused(options, sentence):
    with pytest.raises(ConflictingOptionsError) as error:
        make_request(**options)
    assert str(error.value) == sentence


def test_an_option_that_does_not_exist_is_a_type_error():
    with pytest.raises(TypeError, match="`thread`"):
        make_request(thread=2)
