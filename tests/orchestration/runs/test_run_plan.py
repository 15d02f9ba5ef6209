"""What a run decides: what its options, its selection and what it was asked for mean, without dbt or a warehouse."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from dagster_sao.core.decision.decide import Reason, Request
from dagster_sao.core.state.state import FailedAttempt, VerdictStatus
from dagster_sao.orchestration.runs.config import StateAwareRunConfig, TestStrategy
from dagster_sao.orchestration.runs.outcomes import Outcomes
from dagster_sao.orchestration.runs.run_plan import (
    AskedOfRun,
    ChecksAsked,
    Progress,
    RunInputs,
    asked_of_run,
    asked_tests,
    decide_run,
    explicit_requests,
)
from tests.core.graphs import World, graph

ALL = {"orders", "totals", "rates"}
BUILD, REFRESH = Request.BUILD, Request.FULL_REFRESH


def shop():
    """Return src.raw >> orders >> totals, and rates; `ids` tests orders, `sums` totals, `both` orders and rates. All is built."""
    world = World(graph("src.raw >> orders >> totals ; seed:rates"))
    for name, about in {"ids": ["orders"], "sums": ["totals"], "both": ["orders", "rates"]}.items():
        world.add_test(name, *about)
    world.build()
    return world


def asked(world, selected=ALL, *, state_aware=True, checks=None, nodes=(), failing=(), **options):
    loaded = SimpleNamespace(project=world.project)
    return asked_of_run(
        SimpleNamespace(),
        loaded,
        StateAwareRunConfig(**options),
        set(selected),
        state_aware=state_aware,
        checks=checks,
        asked=nodes,
        failing=failing,
    )


def decide(world, given: AskedOfRun, progress: Progress | None = None):
    return decide_run(RunInputs(given, world.state, world.now, progress or Progress()))


@pytest.mark.parametrize(
    ("options", "state_aware", "nodes", "expected"),
    [
        ({}, True, (), {}),
        ({}, True, ["totals"], {"totals": BUILD}),
        ({}, True, ["elsewhere"], {}),
        ({}, False, (), dict.fromkeys(ALL, BUILD)),
        ({"full_refresh": True}, True, ["totals"], dict.fromkeys(ALL, REFRESH)),
        ({"full_refresh": True}, False, (), dict.fromkeys(ALL, REFRESH)),
    ],
)
def test_what_is_built_in_any_case(options, state_aware, nodes, expected):
    found = explicit_requests(StateAwareRunConfig(**options), ALL, set(nodes), state_aware=state_aware)
    assert found == expected


@pytest.mark.parametrize(
    ("selected", "state_aware", "checks", "expected"),
    [
        (ALL, True, ChecksAsked(), {"ids", "sums", "both"}),
        ({"totals"}, True, ChecksAsked(), {"sums"}),
        ({"rates"}, True, ChecksAsked(), {"both"}),
        # Who takes a check out of the selection of its asset does not want it, but a state-aware run tests what it builds.
        ({"orders"}, False, ChecksAsked(deselected=frozenset({"ids"})), {"both"}),
        ({"orders"}, True, ChecksAsked(deselected=frozenset({"ids"})), {"ids", "both"}),
        (set(), True, ChecksAsked(planned=frozenset({"sums"})), {"sums"}),
        ({"rates"}, True, ChecksAsked(planned=frozenset({"sums"}), left_out=frozenset({"totals"})), {"both"}),
        ({"totals"}, True, ChecksAsked(named=frozenset({"ids", "of an older project"})), {"ids", "sums"}),
    ],
)
def test_the_tests_that_a_run_was_asked_for(selected, state_aware, checks, expected):
    assert asked_tests(shop().project.graph, selected, checks, state_aware=state_aware) == expected


@pytest.mark.parametrize(
    ("gone", "favor_state", "expected"),
    [((), False, set()), (("orders",), False, {"orders"}), ((), True, {"orders", "rates"})],
)
def test_what_is_read_from_another_environment(gone, favor_state, expected):
    world = shop()
    world.missing.update(gone)
    decided = decide(world, asked(world, {"totals"}, defer=True, favor_state=favor_state))
    assert decided.captured.sources.keys() - world.graph.sources.keys() == expected


def test_what_a_test_reads_from_another_environment_is_new_to_it():
    world = shop()
    decided = decide(world, asked(world, {"orders"}, defer=True, favor_state=True))
    assert set(decided.plan.test_runs) == {"both"}


@pytest.mark.parametrize(
    ("options", "is_new"),
    [
        ({}, False),
        ({"defer": True}, False),
        ({"defer": True, "favor_state": True}, True),
        ({"favor_state": True}, False),
    ],
)
def test_what_is_read_from_another_environment_counts_as_new(options, is_new):
    world = shop()
    decided = decide(world, asked(world, {"totals"}, **options))
    assert decided.plan.builds == (["totals"] if is_new else [])
    assert ("orders" in decided.captured.sources) is is_new
    assert "orders" not in decided.recorded.sources


@pytest.mark.parametrize(
    ("state_aware", "options", "builds", "tests"),
    [
        (True, {}, [], []),
        (False, {}, ["orders", "totals", "rates"], ["ids", "sums", "both"]),
        (True, {"full_refresh": True}, ["orders", "totals", "rates"], ["ids", "sums", "both"]),
        (True, {"full_refresh": True, "test_strategy": "SKIP"}, ["orders", "totals", "rates"], []),
        (False, {"test_strategy": "DEFERRED"}, ["orders", "totals", "rates"], ["ids", "sums", "both"]),
    ],
)
def test_what_an_unchanged_project_builds_and_tests(state_aware, options, builds, tests):
    world = shop()
    plan = decide(world, asked(world, state_aware=state_aware, **options)).plan
    assert (sorted(plan.builds), sorted(plan.test_runs)) == (sorted(builds), sorted(tests))


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [("IMMEDIATE", (["orders", "totals"], {"ids", "both", "sums"})), ("SKIP", (["orders", "totals"], set()))],
)
def test_what_new_data_builds_and_tests(strategy, expected):
    world = shop()
    world.load("src.raw")
    plan = decide(world, asked(world, test_strategy=strategy)).plan
    assert (plan.builds, set(plan.test_runs)) == expected


def test_a_failing_test_holds_what_it_gates_until_a_run_runs_it_again():
    world = shop()
    world.load("src.raw")
    world.answers["ids"] = VerdictStatus.FAIL
    world.build()
    held = decide(world, asked(world)).plan
    assert held.decisions["totals"].reason is Reason.UPSTREAM_TEST_FAILED
    assert held.test_runs == []
    again = decide(world, asked(world, failing=["ids", "sums"])).plan
    assert set(again.test_runs) >= {"ids"}
    assert again.builds == ["totals"]


def test_a_run_that_has_come_further_decides_about_the_rest():
    world = shop()
    given = asked(world, state_aware=False)
    rest = decide(world, given, Progress(todo=frozenset({"totals"}), open_tests=frozenset({"sums"})))
    assert rest.plan.builds == ["totals"]
    assert rest.plan.test_runs == ["sums"]
    blocked = decide(world, given, Progress(blocked=frozenset({"orders"})))
    assert blocked.recorded.blocked == {"orders"}


def test_what_failed_is_tried_again_with_what_it_held_back():
    world = shop()
    world.load("src.raw")
    given = asked(world)
    outcomes, plan = Outcomes(world.project.graph, given), decide(world, given).plan
    outcomes.decide(plan, frozenset())
    outcomes.fail("orders", FailedAttempt(world.now, 1))
    outcomes.skip("totals")
    outcomes.error("dbt failed")
    outcomes.close_tests(["ids", "both", "sums"])
    assert outcomes.is_retryable
    assert outcomes.try_again() == {"orders", "totals"}
    assert (outcomes.failed, outcomes.skipped, outcomes.errors) == (set(), set(), ())
    progress = outcomes.progress({"orders", "totals"}, set())
    assert progress.retried == {"orders"}
    assert progress.open_tests == {"ids", "both", "sums"}
    assert decide(world, given, progress).plan.builds == ["orders", "totals"]


def test_a_test_that_failed_is_not_tried_again_and_one_that_could_not_be_run_is():
    world = shop()
    given = asked(world)
    outcomes = Outcomes(world.project.graph, given)
    for test, status in {"ids": VerdictStatus.FAIL, "sums": VerdictStatus.ERROR}.items():
        outcomes.answer(test, replace(world.state.verdicts[test], status=status))
    outcomes.close_tests(["ids", "sums", "both"])
    outcomes.error("A test failed.")
    assert outcomes.try_again() == set()
    assert outcomes.errors == ("A test failed.",)
    progress = outcomes.progress(set(), set())
    assert (progress.open_tests, progress.tests_again, progress.answered) == ({"sums"}, {"sums"}, {"ids", "both"})


@pytest.mark.parametrize("strategy", list(TestStrategy))
def test_a_dry_run_has_the_defaults_of_a_run_that_begins(strategy):
    world = shop()
    given = asked(world, state_aware=False, test_strategy=strategy.name)
    begins = Outcomes(world.project.graph, given).progress(given.selected, set())
    world.load("src.raw")
    assert decide(world, given).plan.decisions == decide(world, given, begins).plan.decisions
    assert dict(decide(world, given).plan.tests) == dict(decide(world, given, begins).plan.tests)
