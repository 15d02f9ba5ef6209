"""The project of forty models with its warehouse and its Dagster instance, on PostgreSQL or on DuckDB and SQLite."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import dagster as dg
import duckdb

from tests.support import forty_models as shop
from tests.support.polling import wait_for
from tests.support.postgres_instance import write_instance
from tests.support.postgres_server import PASSWORD, USER, Server
from tests.support.run_worker import How, Worker

# Hooks around each build take and release an advisory lock of the session, outside of the build's transaction, so that it
# is held from before the first statement until after the commit, or until the session of a killed dbt has ended.
_AUDIT = """
create schema audit;
create table audit.builds (worker text, model text, started_at timestamptz default clock_timestamp(), ended_at timestamptz);
create table audit.meetings (worker text, model text, at timestamptz default clock_timestamp());
create function audit.enter(name text) returns void language plpgsql as $$ begin
  if not pg_try_advisory_lock(hashtext(name)) then
    insert into audit.meetings values (current_setting('application_name'), name);
  end if;
  insert into audit.builds values (current_setting('application_name'), name);
end $$;
create function audit.leave(name text) returns void language plpgsql as $$ begin
  update audit.builds set ended_at = clock_timestamp()
  where worker = current_setting('application_name') and model = name and ended_at is null;
  perform pg_advisory_unlock(hashtext(name));
end $$;
"""


class DuckDBWorld:
    """A warehouse in DuckDB, and an instance on SQLite."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home, self._database = folder / "shop", folder / "home", folder / "warehouse.duckdb"
        self.home.mkdir(parents=True)
        (self.home / "dagster.yaml").write_text("telemetry: {enabled: false}")
        shop.create_sources(self.ask)
        shop.write_project(self.folder, "dev", f"type: duckdb, path: '{self._database}'")
        shop.build_all(self.folder, "truth")
        self.instance = dg.DagsterInstance.from_config(str(self.home))

    def ask(self, statement: str) -> list[tuple]:
        with closing(duckdb.connect(str(self._database))) as connection:
            return connection.execute(statement).fetchall()

    def start(self, select: str = "", how: How = How.ONE_PROCESS, *, forks_dbt: bool = False) -> Worker:
        return Worker(self.folder, self.home, {"select": select}, how, forks_dbt)

    def bury(self, worker: Worker) -> None:
        """Return when nothing of a killed worker writes any more."""
        worker.bury(self.instance)


class PostgresWorld(DuckDBWorld):
    """A warehouse that notes who builds what, and its instance, in one database."""

    def __init__(self, folder: Path, server: Server, database: str) -> None:
        self._server, self._name, self.folder = server, database, folder / "shop"
        server.ask(f"create database {database}")
        self.home = write_instance(folder / "home", server, database)
        self.ask(_AUDIT)
        shop.create_sources(self.ask)
        shop.write_project(
            self.folder,
            "audited",
            f"type: postgres, host: 127.0.0.1, port: {server.port}, user: {USER}, password: {PASSWORD},"
            f" dbname: {database}, application_name: \"{{{{ env_var('SHOP_WORKER', 'tests') }}}}\"",
        )
        shop.build_all(self.folder, "truth")
        self.instance = dg.DagsterInstance.from_config(str(self.home))

    def ask(self, statement: str) -> list[tuple]:
        return self._server.ask(statement, database=self._name)

    def bury(self, worker: Worker) -> None:
        super().bury(worker)
        sessions = f"select 1 from pg_stat_activity where application_name = '{worker.run_id}'"
        wait_for("the sessions of a killed dbt to end", lambda: not self.ask(sessions), seconds=60)

    @contextmanager
    def locked(self, relation: str) -> Iterator[None]:
        """Let nobody replace a relation in the meantime."""
        with closing(self._server.connect(self._name)) as connection, connection.cursor() as cursor:
            cursor.execute(f"begin; lock table {relation} in access exclusive mode")
            yield

    def now(self) -> str:
        ((now,),) = self.ask("select clock_timestamp()")
        return str(now)

    def builds(self, since: str) -> list[tuple]:
        """Return worker, model and end of each build."""
        return self.ask(f"select worker, model, ended_at from audit.builds where started_at > '{since}'")

    def meetings(self) -> list[tuple]:
        """Return who began to build what another was building."""
        return self.ask("select worker, model from audit.meetings")
