"""The code of each function in the warehouse: unknown from just before dbt replaces it until dbt has reported the result."""

from __future__ import annotations

import dagster as dg
import pytest
import sqlalchemy as sa

from dagster_sao.core.manifest.functions import Function
from dagster_sao.core.manifest.graph import ProjectGraph
from dagster_sao.core.project import Project
from dagster_sao.core.state.state import FunctionState
from dagster_sao.orchestration.private.dagster_internals import database_engine
from dagster_sao.orchestration.state import functions as module
from dagster_sao.orchestration.state.functions import FunctionTable, RunFunctions
from tests.core.graphs import code
from tests.orchestration.shops import NOW

HAS = FunctionState(code("1").digest, NOW, "run 1", manifest_code_mark="plan")


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as opened:
        yield opened


@pytest.fixture
def table(instance):
    return FunctionTable(instance, "shop")


def run(table, body, with_other_sql=frozenset()):
    functions = {"f": Function("f", "f", "functions/f.sql", ("shop", "f"), "f")}
    project = Project(ProjectGraph("shop", "duckdb", {}, {}, functions=functions), {"f": code(body)})
    of_run = RunFunctions(table, project, "run 2", with_other_sql)
    of_run.begin(table.read())
    return of_run


def test_nothing_is_known_and_nothing_written_before_the_first_function(instance, table):
    assert table.read() == {}
    assert not sa.inspect(database_engine(instance)).has_table(module._FUNCTIONS.name)


def test_what_is_written_is_read_by_other_processes_of_the_same_environment_alone(instance, table):
    table.write({"f": HAS, "g": HAS.failed("2", NOW, "run 2")})
    assert FunctionTable(instance, "shop").read() == {"f": HAS, "g": HAS.failed("2", NOW, "run 2")}
    assert FunctionTable(instance, "shop.prod").read() == {}


def test_a_run_that_dies_while_dbt_replaces_a_function_leaves_its_code_unknown(table):
    table.write({"f": HAS})
    assert run(table, "2").start(["f"]) == ["f"]
    assert table.read()["f"].code == ""


def test_a_function_that_is_created_from_the_same_code_stays_known(table):
    table.write({"f": HAS})
    of_run = run(table, "1")
    assert of_run.start(["f"]) == []
    of_run.create("f", code("1").digest)
    of_run.write()
    assert table.read() == {"f": HAS}


def test_what_dbt_created_is_known_once_it_said_so(table):
    table.write({"f": HAS})
    of_run = run(table, "2")
    of_run.start(["f"])
    assert of_run.missing_among(["f"]) == ["f"]
    of_run.create("f", code("2").digest)
    of_run.write()
    assert (table.read()["f"].code, of_run.missing_among(["f"])) == (code("2").digest, [])


def test_what_dbt_could_not_create_is_known_with_the_code_that_failed(table):
    of_run = run(table, "2")
    of_run.start(["f"])
    of_run.fail(["f"])
    of_run.write()
    state = table.read()["f"]
    assert (state.code, state.failed_code, state.attempts) == ("", code("2").digest, 1)
    assert of_run.failed_among(["f", "g"]) == ("f",)


@pytest.mark.parametrize("known", [{}, {"f": HAS}])
def test_a_function_that_dbt_created_with_other_sql_stays_unknown(table, known):
    table.write(known)
    of_run = run(table, "1", {"f"})
    assert of_run.start(["f"]) == ["f"]
    assert not of_run.create("f", code("1").digest)
    of_run.write()
    assert (of_run.missing_among(["f"]), [state.code for state in table.read().values()]) == ([], [""] * len(known))
