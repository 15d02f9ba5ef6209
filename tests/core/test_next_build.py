"""When time alone makes something due again, and by which setting: a table over small projects."""

from __future__ import annotations

from datetime import timedelta

import pytest

from dagster_sao.core.code.evidence import Evidence
from dagster_sao.core.decision.plan import Mode
from dagster_sao.core.manifest.policy import Policy
from dagster_sao.core.next_build import next_build
from dagster_sao.core.state.state import VerdictStatus
from tests.core.graphs import START, World, graph

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
DAILY, EVERY_DAY = Policy(build_after=24 * HOUR), Policy(rebuild_every=24 * HOUR)


def world(policies=None, **answers):
    """Return raw >> stg >> daily, with a test on each model, built at START; it is a minute later."""
    made = World(graph("src.raw >> view:stg >> daily"), policies=policies or {}, answers=answers)
    made.add_test("ids", "daily")
    made.add_test("clock", "daily", is_volatile=True)
    made.intervals["clock"] = 48 * HOUR
    made.build()
    made.now += MINUTE
    return made


def new_data(made):
    made.load("src.raw")


def failure(made):
    new_data(made)
    made.apply(made.plan(), failing=["daily"])


@pytest.mark.parametrize(
    ("policy", "then", "answers", "expected"),
    [
        pytest.param(Policy(), None, {}, (48 * HOUR, "clock", "untracked_interval"), id="a test that reads the clock"),
        pytest.param(
            DAILY, None, {}, (48 * HOUR, "clock", "untracked_interval"), id="build_after says nothing without new data"
        ),
        pytest.param(DAILY, new_data, {}, (24 * HOUR, "daily", "build_after"), id="new data waits"),
        pytest.param(
            Policy(lag_tolerance=2 * HOUR), new_data, {}, (MINUTE + 2 * HOUR, "daily", "lag_tolerance"), id="lag"
        ),
        pytest.param(EVERY_DAY, None, {}, (24 * HOUR, "daily", "rebuild_every"), id="rebuilt every day"),
        pytest.param(
            Policy(build_after=36 * HOUR, rebuild_every=24 * HOUR),
            new_data,
            {},
            (24 * HOUR, "daily", "rebuild_every"),
            id="rebuilt before build_after",
        ),
        pytest.param(Policy(), failure, {}, (MINUTE * 6, "daily", "retry"), id="a failed model is tried again"),
        pytest.param(
            Policy(), None, {"ids": VerdictStatus.FAIL}, (MINUTE * 5, "ids", "retry"), id="a failed test is tried again"
        ),
    ],
)
def test_the_first_moment_at_which_time_makes_something_due(policy, then, answers, expected):
    made = world({"daily": policy}, **answers)
    if then is not None:
        then(made)
    plan = made.plan()
    assert (plan.builds, plan.test_runs) == ([], [])
    found = next_build(plan, made.project, made.state, made.now)
    assert (found.at - START, found.unique_id, found.why) == expected


def test_a_model_with_inputs_that_dbt_does_not_know_is_due_after_its_interval():
    made = World(graph("src.raw >> daily"), evidence={"daily": Evidence(untracked=("file.csv",))})
    made.build()
    found = next_build(made.plan(), made.project, made.state, made.now)
    assert (found.at - START, found.unique_id, found.why) == (HOUR, "daily", "untracked_interval")


def test_nothing_is_due_where_only_a_change_makes_it_so():
    made = World(graph("src.raw >> view:stg >> daily"))
    made.add_test("ids", "daily")
    made.build()
    assert next_build(made.plan(mode=Mode.JOB), made.project, made.state, made.now) is None


def test_what_is_due_now_is_not_next():
    made = world({"daily": DAILY})
    new_data(made)
    made.now = START + 25 * HOUR
    plan = made.plan()
    assert plan.builds == ["daily"]
    assert next_build(plan, made.project, made.state, made.now) is None
