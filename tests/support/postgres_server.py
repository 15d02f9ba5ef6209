"""A real PostgreSQL server for the tests, started from the programs of this machine."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dagster_sao.warehouse import WarehouseSession
from tests.support.polling import wait_for

USER = "loader"
PASSWORD = "hunter2-secret"


def programs() -> Path | None:
    folders = [*Path("/usr/lib/postgresql").glob("*/bin"), Path(shutil.which("initdb") or "/nonexistent").parent]
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


@dataclass(frozen=True)
class Server:
    """One data folder and its port. Stopped by whoever made it."""

    programs: Path
    folder: Path
    port: int

    def run(self, program: str, *arguments: str) -> None:
        # The server refuses to run as root.
        as_user = {"user": "postgres"} if os.getuid() == 0 else {}
        subprocess.run(
            [str(self.programs / program), *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=self.folder,
            env={**os.environ, "PGPASSWORD": PASSWORD},
            **as_user,
        )

    def control(self, *arguments: str) -> None:
        self.run("pg_ctl", "-w", "-D", f"{self.folder}/db", *arguments)

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -h 127.0.0.1 -F"
        self.control("-l", f"{self.folder}/log", "-o", options, "start")

    def stop(self, mode: str = "immediate") -> None:
        self.control("-m", mode, "stop")

    def kill(self, pid: int) -> None:
        """Kill one process of the server, as a crash or the kernel would, and return when the server has recovered.

        It notices a moment later: then it ends all other processes, and takes no connections until it has recovered.
        """
        with closing(self.connect()) as other, other.cursor() as cursor:
            os.kill(pid, signal.SIGKILL)
            wait_for("PostgreSQL to end its other sessions", lambda: not _answers(cursor), seconds=60)
        wait_for("PostgreSQL to recover", self._is_ready, seconds=60)

    def _is_ready(self) -> bool:
        import psycopg2

        try:
            self.connect().close()
        except psycopg2.OperationalError:
            return False
        return True

    def connect(self, database: str = "postgres", user: str = USER):
        import psycopg2

        connection = psycopg2.connect(host="127.0.0.1", port=self.port, user=user, password=PASSWORD, dbname=database)
        connection.autocommit = True
        return connection

    def wait_until_nobody_is_connected(self, database: str = "postgres") -> None:
        """Return when no other session is left in a database: a closed one leaves the list a moment later."""
        others = "select application_name, query from pg_stat_activity where datname = current_database()"
        others += " and pid <> pg_backend_pid() and backend_type = 'client backend'"
        wait_for("all to leave", lambda: not self.ask(others, database=database), seconds=20)

    def ask(self, *statements: str, database: str = "postgres", user: str = USER):
        """Run statements in one session, counters written at its end; return the rows of the last."""
        with closing(self.connect(database, user)) as connection, connection.cursor() as cursor:
            rows = None
            for statement in statements:
                cursor.execute(statement)
                rows = cursor.fetchall() if cursor.description else None
            cursor.execute("select pg_stat_force_next_flush()")
            return rows


def _answers(cursor: Any) -> bool:
    import psycopg2

    try:
        cursor.execute("select 1")
    except psycopg2.Error:
        return False
    return True


@contextmanager
def folder_for_server():
    # A short path: that of the socket has a limit.
    with tempfile.TemporaryDirectory(dir="/tmp") as name, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        if os.getuid() == 0:
            shutil.chown(name, "postgres")
        yield Path(name), port


@contextmanager
def running_server(binaries: Path):
    with folder_for_server() as (folder, port):
        server = Server(binaries, folder, port)
        secret = folder / "secret"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        server.run("initdb", "-D", f"{folder}/db", "-A", "scram-sha-256", "-U", USER, f"--pwfile={secret}", "-N")
        server.start()
        try:
            yield server
        finally:
            server.stop()


EMPTY_MANIFEST = {"metadata": {"adapter_type": "postgres"}, "macros": {}, "sources": {}}
PROFILE = """
shop:
  target: it
  outputs:
    it:
      {{type: postgres, host: 127.0.0.1, port: {port}, user: {user}, password: {password}, dbname: {database}, schema: raw, threads: {threads}}}
"""


def session_with(
    server: Server,
    folder: Path,
    *,
    database: str = "postgres",
    user: str = USER,
    manifest: dict | None = None,
    threads: int = 1,
) -> WarehouseSession:
    """Return a session for a project without anything in it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dbt_project.yml").write_text("name: shop\nprofile: shop\nflags: {send_anonymous_usage_stats: false}")
    profile = PROFILE.format(port=server.port, user=user, password=PASSWORD, database=database, threads=threads)
    (folder / "profiles.yml").write_text(profile)
    return WarehouseSession.open(project_dir=folder, profiles_dir=folder, manifest=manifest or EMPTY_MANIFEST)


def shop_profile(server: Server, database: str, *, threads: int = 1) -> str:
    """Return the profiles.yml of a project `shop` that builds into a database of a server."""
    target = f"type: postgres, host: 127.0.0.1, port: {server.port}, user: {USER}, password: {PASSWORD}"
    target += f", dbname: {database}, schema: main, threads: {threads}"
    return f"shop: {{target: warehouse, outputs: {{warehouse: {{{target}}}}}}}"


@contextmanager
def database(server: Server, name: str, *setup: str) -> Iterator[Callable[[str], Any]]:
    """Make a database, and drop it at the end. Yields what runs a statement in it."""
    server.ask(f"create database {name}")
    server.ask(*setup, database=name)
    yield lambda statement: server.ask(statement, database=name)
    server.ask(f"drop database {name} with (force)")
