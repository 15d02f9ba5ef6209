"""Rows of a model on PostgreSQL that somebody changes by hand, at any time after the run that built them."""

from __future__ import annotations

import time
from contextlib import closing

import dagster as dg
import psycopg2
import pytest
from dagster_dbt import DbtProject

from dagster_sao import StateAwareProject, build_state_aware_definitions, build_state_aware_job
from dagster_sao.api.results.values import NodeStatus
from dagster_sao.orchestration import clock
from tests.conftest import run_dbt
from tests.support.postgres_server import PASSWORD, USER

pytestmark = pytest.mark.slow

PROFILE = """
shelf:
  target: dev
  outputs:
    dev: {{type: postgres, host: 127.0.0.1, port: {port}, user: {user}, password: {password}, dbname: postgres, schema: shelf}}
"""
MODELS = {
    "boxes": "{{ config(materialized='table') }} select id from {{ source('shelf_raw', 'boxes') }}",
    "lids": "{{ config(materialized='table', post_hook='insert into {{ this }} values (3)') }} select 1 as id",
    "stock": "{{ config(materialized='view') }} select id from {{ source('shelf_raw', 'boxes') }}",
    "labels": "{{ config(materialized='table') }} select count(*) as boxes from {{ ref('boxes') }}",
}
ALTERED = "Its rows were altered outside of Dagster"
DEFINED = "Its definition was altered outside of Dagster"


@pytest.fixture
def shelf(tmp_path, postgres_server):
    """Build a project, minutes pass before each build, and return what each build built, with the reasons."""
    postgres_server.ask("create schema shelf_raw; create table shelf_raw.boxes as select 1 as id")
    folder = tmp_path / "shelf"
    (folder / "models").mkdir(parents=True)
    (folder / "dbt_project.yml").write_text(
        "{name: shelf, profile: shelf, on-run-end: ['insert into shelf.lids values (4)']}"
    )
    (folder / "profiles.yml").write_text(PROFILE.format(port=postgres_server.port, user=USER, password=PASSWORD))
    (folder / "models" / "sources.yml").write_text("sources: [{name: shelf_raw, tables: [{name: boxes}]}]")
    for name, sql in MODELS.items():
        (folder / "models" / f"{name}.sql").write_text(sql)
    run_dbt(folder, "parse")
    minutes = 0
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        job = build_state_aware_job("often", schedule="0,2 * * * *")
        definitions = build_state_aware_definitions(DbtProject(folder), jobs=[job])
        project = StateAwareProject.from_definitions(definitions, instance=instance)

        def build() -> dict[str, str]:
            nonlocal minutes
            minutes += 10
            with clock.simulated(lambda: time.time_ns() + minutes * 60 * 10**9):
                result = project.build()
            return {one.name: one.message for one in result.with_status(NodeStatus.SUCCESS)}

        def tick(seconds: int = 0) -> str:
            """Return why a tick of the schedule starts no run, some time after the last build."""
            moved = minutes * 60 + seconds
            repository = definitions.get_repository_def()
            with (
                dg.build_schedule_context(instance, repository_def=repository) as context,
                clock.simulated(lambda: time.time_ns() + moved * 10**9),
            ):
                return schedule.evaluate_tick(context).skip_message or ""

        schedule = definitions.get_repository_def().get_schedule_def("often_schedule")
        build.tick = tick
        yield build
    postgres_server.ask("drop schema shelf, shelf_raw cascade")


def test_a_change_by_hand_between_two_runs_is_seen_though_nothing_looked_in_between(shelf, postgres_server):
    assert shelf().keys() == MODELS.keys()
    postgres_server.ask("update shelf.boxes set id = 7; delete from shelf.lids where id = 1")
    # Its child is as it was, so it is not built again for what is undone.
    assert shelf() == {"boxes": ALTERED, "lids": ALTERED}
    assert postgres_server.ask("select id from shelf.boxes") == [(1,)]
    assert shelf() == {}
    assert shelf() == {}


@pytest.mark.parametrize(
    "statement",
    [
        "create or replace view shelf.stock as select 7 as id",
        "drop view shelf.stock; create table shelf.stock as select 7 as id",
    ],
)
def test_a_view_that_was_replaced_by_hand_is_created_anew(shelf, postgres_server, statement):
    shelf()
    postgres_server.ask(statement)
    assert shelf()["stock"] == DEFINED
    assert postgres_server.ask("select id from shelf.stock") == [(1,)]
    assert "stock" not in shelf()


def test_a_view_that_is_created_again_as_it_was_is_none_that_was_replaced(shelf, postgres_server, tmp_path):
    shelf()
    ((before,),) = postgres_server.ask("select 'shelf.stock'::regclass::oid")
    run_dbt(tmp_path / "shelf", "run", "--select", "stock")
    assert postgres_server.ask("select 'shelf.stock'::regclass::oid") != [(before,)]
    assert "stock" not in shelf()


def test_a_change_by_hand_right_after_a_tick_is_seen_by_the_next_one(shelf, postgres_server):
    shelf()
    assert shelf.tick(60).startswith("4 models current;")
    postgres_server.ask("update shelf.boxes set id = 7")
    assert not shelf.tick(180)


def test_what_a_run_wrote_itself_is_no_alteration_however_late_it_is_counted(shelf, postgres_server):
    connection = psycopg2.connect(
        host="127.0.0.1", port=postgres_server.port, user=USER, password=PASSWORD, dbname="postgres"
    )
    with closing(connection), connection.cursor() as cursor:
        # Perhaps a session of dbt behind a pool: nothing shows that it has counted its rows.
        cursor.execute("select 1")
        assert shelf().keys() == MODELS.keys()
        assert shelf() == {}
    assert shelf() == {}
