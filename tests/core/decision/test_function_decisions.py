"""The table of functions in docs/semantics.md, row by row, and what a function changes for views that call it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from dagster_sao.core.decision.decide_functions import FunctionSituation, decide_function
from dagster_sao.core.decision.plan import Mode
from dagster_sao.core.decision.planner import make_plan
from dagster_sao.core.decision.run_ledger import Ledger
from dagster_sao.core.manifest.functions import Function
from dagster_sao.core.state.state import FunctionState
from tests.core.graphs import START, World, code, graph

HAS = FunctionState("old", START, "run 1")
FAILED = HAS.failed("new", START, "run 1")
ROWS = {
    "F1": ({"called_by": ("orders",), "state": FAILED}, "create called: Called by orders"),
    "F2": ({"failed_parents": ("rates",)}, "skip upstream_failed: Upstream failed: rates"),
    "F2 before F3": ({"failed_parents": ("rates",), "state": FAILED}, "skip upstream_failed: Upstream failed: rates"),
    "F3": (
        {"state": FAILED, "now": START + timedelta(minutes=2)},
        "hold failed_unchanged: Failed 2m ago with the same code. Retries in 3m, or when it changes",
    ),
    "F3 is over": (
        {"state": FAILED, "now": START + timedelta(minutes=5)},
        "create never_created: Not created before in this environment",
    ),
    "F3 is about the code that failed": (
        {"state": FAILED, "code": "newer"},
        "create never_created: Not created before in this environment",
    ),
    "F4": ({}, "create never_created: Not created before in this environment"),
    "F5": ({"state": HAS}, "create code_changed: The warehouse has it from other code"),
    "F6": ({"state": HAS, "is_current": True}, "reuse same_code: Created from the same code"),
}


@pytest.mark.parametrize("row", ROWS)
def test_each_row_decides_and_says_why(row):
    given, expected = ROWS[row]
    decision = decide_function(FunctionSituation(**{"now": START, "code": "new", **given}))
    assert f"{decision.action.value} {decision.reason.value}: {decision.message}" == expected


def test_a_function_that_fails_again_waits_longer():
    waits = []
    state = HAS
    for _ in range(3):
        state = state.failed("new", START, "run 1")
        waits.append(state.retry_at - START)
    assert waits == [timedelta(minutes=5), timedelta(minutes=10), timedelta(minutes=20)]
    assert state.failed("newer", START, "run 2").retry_at - START == timedelta(minutes=5)


# In a plan


class Calling(World):
    """`v` calls the function `f`, which the warehouse has from `code`; `lonely` is called by nothing."""

    functions: dict[str, FunctionState]

    @property
    def project(self):
        project = super().project
        view = replace(project.graph.nodes["v"], functions=("f",))
        nodes = {**project.graph.nodes, "v": view}
        functions = {
            name: Function(name, name, f"functions/{name}.sql", ("shop", name), name) for name in ("f", "lonely")
        }
        fingerprints = {**project.fingerprints, "f": code(self.body), "lonely": code("lonely")}
        return replace(
            project, graph=replace(project.graph, nodes=nodes, functions=functions), fingerprints=fingerprints
        )

    @property
    def state(self):
        return replace(super().state, functions=self.functions)

    def has(self, **codes):
        self.functions = {name: FunctionState(code(text).digest, START, "run 1") for name, text in codes.items()}


@pytest.fixture
def world():
    world = Calling(graph("src.raw >> view:v >> t; src.raw >> other"))
    world.body = "1"
    world.has(f="1", lonely="lonely")
    world.build()
    assert world.build() == []
    return world


def test_a_view_is_due_when_the_warehouse_has_a_function_that_it_calls_from_other_code(world):
    world.has(f="2", lonely="lonely")
    decision = world.decision("v")
    assert (decision.reason.value, decision.message) == ("view_invalidated", "f was rebuilt")
    # The view will show what it showed when `t` was built.
    assert world.plan().builds == ["v"]


def test_rows_that_were_read_through_another_function_are_built_again(world):
    world.has(f="2", lonely="lonely")
    build = Ledger(world.project, world.state).record("t", started_at=START, ended_at=START, run_id="run 7")
    world.builds["t"] = build
    assert world.plan().builds == ["v", "t"]


def options_of(world, node):
    attempt = world.writers[node].attempt_id
    return {"started_at": START, "ended_at": START, "run_id": "run 8", "attempt_id": attempt}


def test_what_is_read_through_a_view_while_its_function_is_replaced_is_built_again(world):
    ledger = Ledger(world.project, world.state)
    ledger.replace_functions(["f"], "run 8")
    ledger.function_created("f", code("1").digest)
    world.builds["t"] = ledger.record("t", **options_of(world, "t"))
    assert world.plan().builds == ["t"]


def test_what_is_read_through_a_view_that_the_run_built_on_its_function_is_not_built_again(world):
    world.body = "2"
    ledger = Ledger(world.project, world.state)
    ledger.replace_functions(["f"], "run 8")
    ledger.function_created("f", code("2").digest)
    for node in ("v", "t"):
        world.builds[node] = ledger.record(node, **options_of(world, node))
    world.has(f="2", lonely="lonely")
    assert world.plan().builds == []


@pytest.mark.parametrize(
    ("mode", "selection", "expected"),
    [
        (Mode.SENSOR, None, {"f": "called", "lonely": "never_created"}),
        (Mode.SENSOR, ["other"], {"f": "never_created", "lonely": "never_created"}),
        (Mode.JOB, None, {"f": "called", "lonely": "never_created"}),
        (Mode.JOB, ["other"], {}),
        (Mode.JOB, ["v"], {"f": "called"}),
    ],
)
def test_a_sensor_or_a_job_of_everything_looks_after_functions_that_nothing_calls(world, mode, selection, expected):
    world.has()
    plan = make_plan(world.project, world.state, now=world.now, selection=selection, mode=mode)
    assert {uid: decision.reason.value for uid, decision in plan.functions.items()} == expected
    assert plan.uncalled == [uid for uid, reason in expected.items() if reason != "called"]
