"""The freshness sensor on a real PostgreSQL server: what happens to connections, passwords and many sources."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest
from dagster_dbt import DbtProject

from dagster_sao import build_state_aware_definitions
from tests.conftest import run_dbt
from tests.support.driven_project import DrivenProject
from tests.support.postgres_server import PASSWORD, USER, Server

SECRETS = "hunter4-secret", "hunter5-secret"
MANY, BROKEN = 1000, 10
PROFILE = """
yard:
  target: dev
  outputs:
    dev: {{type: postgres, host: 127.0.0.1, port: {port}, user: watcher, password: {password}, dbname: postgres, schema: yard}}
"""


@dataclass
class Yard:
    """A project of many sources, and its sensor."""

    server: Server
    folder: Path
    sensor: dg.SensorDefinition
    definitions: dg.Definitions
    instance: dg.DagsterInstance

    def tick(self):
        repository = self.definitions.get_repository_def()
        result = self.sensor.evaluate_tick(dg.build_sensor_context(instance=self.instance, repository_def=repository))
        for event in result.asset_events:
            self.instance.report_runless_asset_event(event)
        return result

    def set_profile(self, password: str) -> None:
        (self.folder / "profiles.yml").write_text(PROFILE.format(port=self.server.port, password=password))


@pytest.fixture(scope="module")
def yard(tmp_path_factory, postgres_server):
    """One for all tests, each of which goes on where the one before it stopped."""
    tables = "".join(f"create table yard.t{n} (id integer);" for n in range(BROKEN, MANY))
    postgres_server.ask(
        "drop schema if exists yard cascade; drop role if exists watcher; create schema yard;"
        f"create role watcher login password '{SECRETS[0]}'; grant usage on schema yard to watcher;"
        f"alter default privileges in schema yard grant select on tables to watcher; {tables}"
    )
    folder = tmp_path_factory.mktemp("yards") / "yard"
    (folder / "models").mkdir(parents=True)
    (folder / "dbt_project.yml").write_text("{name: yard, profile: yard}")
    names = "".join(f"\n      - name: t{n}" for n in range(MANY))
    (folder / "models" / "sources.yml").write_text(f"sources:\n  - name: yard\n    tables:{names}\n")
    reads = " union all ".join(f"select id from {{{{ source('yard', 't{n}') }}}}" for n in range(MANY))
    (folder / "models" / "all_of_them.sql").write_text(reads)
    (folder / "profiles.yml").write_text(PROFILE.format(port=postgres_server.port, password=SECRETS[0]))
    run_dbt(folder, "parse")
    definitions = build_state_aware_definitions(DbtProject(folder))
    sensor = next(sensor for sensor in definitions.sensors if "freshness" in sensor.name)
    with dg.DagsterInstance.ephemeral() as instance:
        yield Yard(postgres_server, folder, sensor, definitions, instance)
    postgres_server.ask("drop schema yard cascade; drop role watcher")


def test_ten_of_a_thousand_sources_fail_and_the_others_are_told(yard):
    result = yard.tick()
    assert len(result.asset_events) == MANY - BROKEN
    assert f"{MANY - BROKEN} of {MANY} sources have new data" in result.skip_message
    assert f"; {BROKEN} failing: yard.t0, yard.t1, yard.t2, yard.t3, yard.t4 and 5 more." in result.skip_message


def test_a_password_that_is_changed_under_a_running_sensor_is_one_sentence_until_the_profile_has_it(yard):
    yard.server.ask(f"alter role watcher password '{SECRETS[1]}'", "insert into yard.t10 values (1)")
    refused = yard.tick()
    assert refused.asset_events == []
    assert "password authentication failed" in refused.skip_message
    assert not any(secret in refused.skip_message for secret in SECRETS)
    yard.set_profile(SECRETS[1])
    (event,) = yard.tick().asset_events
    assert event.asset_key.path[-1] == "t10"


def test_a_server_that_restarts_under_a_running_sensor_loses_nothing(yard):
    yard.server.stop("fast")
    assert "Cannot connect to postgres" in yard.tick().skip_message
    yard.server.start()
    yard.server.ask("insert into yard.t11 values (1)")
    assert "yard.t11" in yard.tick().skip_message


ATTIC_PROFILE = """
attic:
  target: dev
  outputs:
    dev: &dev {{type: postgres, host: 127.0.0.1, port: {port}, user: {user}, password: {password}, dbname: postgres, schema: attic}}
    look: {{<<: *dev, user: onlooker}}
"""


@pytest.fixture
def attic(tmp_path, postgres_server):
    """A project that is built by one role and looked at by another."""
    postgres_server.ask(
        "create schema attic; create schema attic_raw; create table attic_raw.boxes as select 1 as id;"
        f"create role onlooker login password '{PASSWORD}'; grant usage on schema attic, attic_raw to onlooker"
    )
    folder = tmp_path / "attic"
    (folder / "models").mkdir(parents=True)
    (folder / "dbt_project.yml").write_text("{name: attic, profile: attic}")
    (folder / "profiles.yml").write_text(
        ATTIC_PROFILE.format(port=postgres_server.port, user=USER, password=PASSWORD),
    )
    (folder / "models" / "sources.yml").write_text("sources: [{name: attic_raw, tables: [{name: boxes}]}]")
    query = "{{ config(materialized='table') }} select * from {{ source('attic_raw', 'boxes') }}"
    (folder / "models" / "boxes.sql").write_text(query)
    run_dbt(folder, "parse")
    with dg.DagsterInstance.ephemeral() as instance:
        yield DrivenProject(folder, "dev", instance, probe_target="look")
    postgres_server.ask("drop schema attic, attic_raw cascade; drop role onlooker")


@pytest.mark.slow
def test_what_the_sensor_may_not_list_is_unknown_and_is_not_built_again(attic, postgres_server):
    assert attic.look()["runs"] == [{"success": True, "built": ["boxes"]}]
    postgres_server.ask("revoke usage on schema attic from onlooker; drop table attic.boxes")
    closed = attic.look()
    assert (closed["noticed"], closed["asked"], closed["warnings"]) == ({}, [], [])
    postgres_server.ask("grant usage on schema attic to onlooker")
    open_again = attic.look()
    assert open_again["noticed"] == {"boxes": '"postgres"."attic"."boxes" no longer exists'}
    assert open_again["runs"] == [{"success": True, "built": ["boxes"]}]
