"""What follows from the plan of a schedule's tick: its line, and when a run of the due part does what the whole job would."""

from __future__ import annotations

import json
from datetime import timedelta
from types import SimpleNamespace

import dagster as dg
import pytest
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from dagster_sao.core.decision.plan import Mode
from dagster_sao.core.next_build import NextBuild
from dagster_sao.core.state.state import VerdictStatus
from dagster_sao.orchestration.automation.scheduled_run import covering_run, idle_line, part_suffices, start_up
from dagster_sao.orchestration.events.event_schema import TESTS_TAG
from dagster_sao.orchestration.runs.config import StateAwareRunConfig, TestStrategy
from dagster_sao.orchestration.runs.run_plan import ChecksAsked, RunInputs, asked_of_run, decide_run
from tests.core.decision.test_plan_properties import worlds
from tests.core.graphs import START, World, graph

HOUR = timedelta(hours=1)
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
LONG = settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def asked(world, selected=None, tests=(), **options):
    loaded, selected = SimpleNamespace(project=world.project), set(world.graph.nodes) if selected is None else selected
    checks = ChecksAsked(named=frozenset(tests))
    return asked_of_run(
        SimpleNamespace(), loaded, StateAwareRunConfig(**options), selected, state_aware=True, checks=checks
    )


def decided(world, given):
    world.look()
    return decide_run(RunInputs(given, world.state, world.now)).plan


def shop():
    """Return raw >> orders >> totals, and rates, all built, with a test on orders and one on totals."""
    world = World(graph("src.raw >> orders >> totals ; seed:rates"))
    world.add_test("ids", "orders")
    world.add_test("sums", "totals")
    world.build()
    return world


def check_that_a_part_does_the_same(world, data):
    selected = data.draw(st.sets(st.sampled_from(list(world.graph.nodes)), min_size=1))
    options = {"test_strategy": data.draw(st.sampled_from(TestStrategy))}
    job = asked(world, selected, **options)
    whole = decided(world, job)
    assume(part_suffices(job, whole, world.verdicts) and (whole.builds or whole.test_runs))
    part = decided(world, asked(world, selected & set(whole.builds), whole.test_runs, **options))
    assert part.builds == whole.builds
    assert {uid: part.decisions[uid] for uid in part.builds} == {uid: whole.decisions[uid] for uid in whole.builds}
    assert set(part.test_runs) == set(whole.test_runs)
    assert {uid: part.tests[uid] for uid in part.test_runs} == {uid: whole.tests[uid] for uid in whole.test_runs}


@QUICK
@given(worlds(), st.data())
def test_a_run_of_the_due_part_builds_and_tests_what_the_whole_job_would(world, data):
    check_that_a_part_does_the_same(world, data)


@pytest.mark.slow
@LONG
@given(worlds(), st.data())
def test_a_run_of_the_due_part_builds_and_tests_what_the_whole_job_would_in_many_worlds(world, data):
    check_that_a_part_does_the_same(world, data)


def fail(world):
    world.load("src.raw")
    world.apply(world.plan(), failing=["orders"])
    world.edit("rates")


def break_a_test(world):
    world.load("src.raw")
    world.answers["sums"] = VerdictStatus.FAIL
    world.build()
    world.edit("rates")


@pytest.mark.parametrize(
    ("then", "options", "expected"),
    [
        pytest.param(lambda world: world.load("src.raw"), {}, True, id="new data"),
        pytest.param(lambda world: world.edit("ids"), {}, True, id="a changed test"),
        pytest.param(fail, {}, False, id="a model that failed ends the run as failed"),
        pytest.param(break_a_test, {}, False, id="so does a test that still fails"),
        pytest.param(lambda world: world.load("src.raw"), {"defer": True, "state": "there"}, False, id="defer"),
        pytest.param(lambda world: world.load("src.raw"), {"full_refresh": True}, False, id="full refresh"),
        pytest.param(lambda world: world.load("src.raw"), {"select": "state:modified"}, False, id="select of its own"),
    ],
)
def test_the_whole_job_is_started_where_other_nodes_of_it_count(then, options, expected):
    world = shop()
    then(world)
    given_to_run = asked(world, **options)
    assert part_suffices(given_to_run, decided(world, given_to_run), world.verdicts) is expected


@pytest.mark.parametrize(
    ("asked", "minutes", "later"),
    [
        pytest.param(10, 60, 10, id="an hour after the run was created, and 50 minutes after the build"),
        pytest.param(10, 57, 10, id="as early as a job may build"),
        pytest.param(10, 56, 0, id="too early for the run, too"),
        pytest.param(90, 90, 60, id="at most an hour"),
        pytest.param(None, 56, 0, id="the run was deleted"),
    ],
)
def test_a_tick_decides_by_the_time_at_which_its_run_would_build(asked, minutes, later):
    world = World(graph("src.raw >> orders >> totals"))
    world.ask("orders", build_after=HOUR)
    world.build()
    built = world.builds["orders"]
    world.load("src.raw")
    minute = timedelta(minutes=1)
    created = built.started_at - (asked or 0) * minute
    world.now = created + minutes * minute
    plan = world.plan(mode=Mode.JOB)
    assert not plan.builds
    runs = {} if asked is None else {built.run_id: created}
    assert start_up(plan, world.state, world.now, lambda ids: {one: runs[one] for one in ids if one in runs}) == (
        later * minute
    )
    world.now += later * minute
    assert bool(world.plan(mode=Mode.JOB).builds) is bool(later)


def upcoming(hours, why="build_after", uid="totals"):
    return NextBuild(START + hours * HOUR, uid, why)


@pytest.mark.parametrize(
    ("next_one", "zone", "problems", "expected"),
    [
        (None, None, [], "3 models current; next possible build after a change."),
        (
            upcoming(2),
            None,
            [],
            "3 models current; next possible build 14:00 UTC (totals: build_after), or after a change.",
        ),
        (
            upcoming(2, "retry", "ids"),
            "Europe/Oslo",
            [],
            "3 models current; next possible build 15:00 CET (ids: retry), or after a change.",
        ),
        (
            upcoming(14),
            None,
            ["raw.orders is gone."],
            "3 models current; next possible build 2026-03-02 02:00 UTC (totals: build_after), or after a change. raw.orders is gone.",
        ),
    ],
)
def test_the_line_of_a_tick_with_nothing_to_do(next_one, zone, problems, expected):
    world = shop()
    plan = world.plan(mode=Mode.JOB)
    assert idle_line(plan, world.verdicts, next_one, START, zone, problems) == expected


def test_the_line_counts_what_is_held():
    world = shop()
    world.load("src.raw")
    world.apply(world.plan(), failing=["orders"])
    line = idle_line(world.plan(mode=Mode.JOB), world.verdicts, None, world.now, None, [])
    assert line == "1 model current; 1 held after a failure; 1 skipped below it; next possible build after a change."


A, B, CHECK = dg.AssetKey("a"), dg.AssetKey("b"), dg.AssetCheckKey(dg.AssetKey("a"), "ids")
CONFIG = {"ops": {"models": {"config": {"state_aware": True}}}}
ORIGIN = RemoteJobOrigin(RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("here"), "repository"), "hourly")


def queued(**changed):
    """Return a run of the job that waits in the queue: of all of it, unless said otherwise."""
    given = {"run_config": CONFIG, "status": dg.DagsterRunStatus.QUEUED, "remote_job_origin": ORIGIN, **changed}
    return dg.DagsterRun("hourly", **given)


def part(*assets, checks=(), tests=()):
    tags = {TESTS_TAG: json.dumps(list(tests))} if tests else {}
    return dg.RunRequest(asset_selection=list(assets), asset_check_keys=list(checks), tags=tags)


@pytest.mark.parametrize(
    ("run", "request_of_tick", "covers"),
    [
        pytest.param(queued(), part(A, checks=[CHECK], tests=["t"]), True, id="the whole job does every part"),
        pytest.param(queued(), dg.RunRequest(), True, id="and the whole"),
        pytest.param(queued(run_config={}), part(A), False, id="another config"),
        pytest.param(queued(step_keys_to_execute=["models"]), part(A), False, id="a part that is executed again"),
        pytest.param(queued(asset_selection=frozenset({A, B})), dg.RunRequest(), False, id="a part for the whole"),
        pytest.param(
            queued(asset_selection=frozenset({A, B}), asset_check_selection=frozenset()),
            part(A),
            True,
            id="a larger part",
        ),
        pytest.param(
            queued(asset_selection=frozenset({A}), asset_check_selection=frozenset()),
            part(A, B),
            False,
            id="a smaller part",
        ),
        pytest.param(
            queued(asset_selection=frozenset({A}), asset_check_selection=frozenset()),
            part(A, checks=[CHECK]),
            False,
            id="without the check",
        ),
        pytest.param(
            queued(asset_selection=frozenset(), asset_check_selection=frozenset({CHECK})),
            part(checks=[CHECK]),
            True,
            id="a run of checks",
        ),
        pytest.param(
            queued(asset_selection=frozenset({A}), asset_check_selection=frozenset()),
            part(A, tests=["t"]),
            False,
            id="without the named test",
        ),
        pytest.param(
            queued(asset_selection=frozenset({A}), asset_check_selection=frozenset(), tags={TESTS_TAG: '["t", "u"]'}),
            part(A, tests=["t"]),
            True,
            id="with the named test",
        ),
    ],
)
def test_a_queued_run_with_the_same_config_does_what_is_in_it(run, request_of_tick, covers):
    assert (covering_run([run], request_of_tick, CONFIG) is run) is covers
