"""Statements that run at once, on a real PostgreSQL: at most as many as dbt has threads, and nothing stays of them."""

from __future__ import annotations

import threading
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace

import pytest

from dagster_sao.core.manifest.graph import Source
from dagster_sao.warehouse import Presence, SourceProber, StatementError, WarehouseError, adapters
from dagster_sao.warehouse import session as session_module
from dagster_sao.warehouse.adapters import Catalog, traits_of
from dagster_sao.warehouse.queries import parallel, union
from dagster_sao.warehouse.queries.parallel import ask_in_rounds
from dagster_sao.warehouse.relations import listing
from tests.support.polling import wait_for
from tests.support.postgres_server import PASSWORD, session_with
from tests.warehouse.conftest import parse
from tests.warehouse.relations.test_listing import presences

pytest.importorskip("dbt.adapters.postgres")

# Whoever reads this table waits until the test opens the gate.
GATE = "public.gate"
PASS_THE_GATE = f"select 1 from {GATE}"
WAITING = f"select count(*) from pg_locks where relation = '{GATE}'::regclass and not granted"
GATED = f"select timestamp '2026-01-01' from ({PASS_THE_GATE}) gate"
LISTING_BEHIND_THE_GATE = f"""
{{% macro postgres__list_relations_without_caching(schema_relation) %}}
  {{% call statement('listed', fetch_result=true) %}}
    select current_database() as database, c.relname as name, '{{{{ schema_relation.schema }}}}' as schema, 'table' as type
    from ({PASS_THE_GATE}) gate, pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = '{{{{ schema_relation.schema }}}}'
  {{% endcall %}}
  {{{{ return(load_result('listed').table) }}}}
{{% endmacro %}}
"""


class Gate:
    """Statements that read the table wait here until it is opened."""

    def __init__(self, server, cursor):
        self._server = server
        self._cursor = cursor

    def wait_for(self, count):
        """Return once so many statements are under way, which they are at once."""
        wait_for(f"{count} statements at once", lambda: self._server.ask(WAITING) == [(count,)], seconds=20)

    @contextmanager
    def during(self, work):
        """Do `work` in another thread, and open the gate at the end; yield what becomes its answer."""
        with ThreadPoolExecutor(1) as pool:
            try:
                yield pool.submit(work)
            finally:
                self._cursor.execute("commit")


@pytest.fixture
def gate(postgres_server, monkeypatch):
    """A closed gate, and the patience to wait before it. No connection stays when it is gone."""
    preamble = traits_of("postgres").preamble
    patient = preamble.replace("'15s'", "'60s'").replace("'2s'", "'60s'")
    assert patient.count("60s") == 2
    monkeypatch.setitem(adapters._TRAITS, "postgres", replace(traits_of("postgres"), preamble=patient))
    with closing(postgres_server.connect()) as keeper, keeper.cursor() as cursor:
        cursor.execute(f"create table if not exists {GATE} as select 1 as id")
        cursor.execute(f"grant select on {GATE} to public")
        cursor.execute("begin")
        cursor.execute(f"lock table {GATE} in access exclusive mode")
        yield Gate(postgres_server, cursor)
    postgres_server.wait_until_nobody_is_connected()


@pytest.fixture
def one_question_per_statement(monkeypatch):
    monkeypatch.setattr(union, "ARMS_PER_STATEMENT", 1)


def source(name, query):
    return Source(
        f"source.shop.raw.{name}", "raw", name, "models/s.yml", "postgres", "raw", definition={"loaded_at_query": query}
    )


def look(session, *queries):
    sources = [source(f"t{number}", query) for number, query in enumerate(queries)]
    return [seen for _, seen in sorted(SourceProber(session).observe(sources))]


def in_use(session, monkeypatch):
    """Note the threads that run statements, and how many did so at once."""
    lock, now, seen = threading.Lock(), Counter(), Counter()
    run = session._adapter.run

    def noted(sql, limit=None):
        with lock:
            now["running"] += 1
            seen["most"] = max(seen["most"], now["running"])
            seen[threading.get_ident()] += 1
        try:
            return run(sql, limit)
        finally:
            with lock:
                now["running"] -= 1

    monkeypatch.setattr(session._adapter, "run", noted)
    return seen


@pytest.mark.usefixtures("one_question_per_statement")
def test_as_many_statements_run_at_once_as_dbt_has_threads(postgres_server, tmp_path, gate, monkeypatch):
    session = session_with(postgres_server, tmp_path, threads=3)
    seen = in_use(session, monkeypatch)
    with gate.during(lambda: look(session, *[GATED] * 7)) as answer:
        gate.wait_for(3)
    assert [one.token for one in answer.result()] == ["2026-01-01T00:00:00"] * 7
    assert seen["most"] == 3
    assert session.cost().statements == 7


@pytest.mark.usefixtures("one_question_per_statement")
def test_with_one_thread_no_statement_runs_beside_another(postgres_server, tmp_path, monkeypatch):
    session = session_with(postgres_server, tmp_path, threads=1)
    seen = in_use(session, monkeypatch)
    alone = (
        "select timestamp '2026-01-01' where 1 = (select count(*) from pg_stat_activity where application_name = 'dbt')"
    )
    assert [one.token for one in look(session, *[alone] * 7)] == ["2026-01-01T00:00:00"] * 7
    assert seen == {"most": 1, threading.get_ident(): 1 + 7}  # one connection, with its preamble


def test_one_statement_alone_starts_no_thread(postgres_server, tmp_path, monkeypatch):
    session = session_with(postgres_server, tmp_path, threads=4)
    seen = in_use(session, monkeypatch)
    assert len(look(session, *["select now()"] * 7)) == 7
    assert set(seen) == {"most", threading.get_ident()}


@pytest.mark.usefixtures("one_question_per_statement")
def test_the_error_of_one_disturbs_no_other(postgres_server, tmp_path, gate):
    session = session_with(postgres_server, tmp_path, threads=3)
    divide = "select timestamp '2026-01-01' + interval '1 day' / (select count(*) from pg_class where false)"
    with gate.during(lambda: look(session, divide, GATED, GATED, "select nope", GATED)) as answer:
        # The first fails beside two that go on waiting.
        gate.wait_for(2)
    seen = answer.result()
    assert [one.token is None for one in seen] == [True, False, False, True, False]
    assert "division by zero" in seen[0].error
    assert 'column "nope" does not exist' in seen[3].error


def test_nothing_more_is_started_once_the_time_is_up(postgres_server, tmp_path, gate):
    session = session_with(postgres_server, tmp_path, threads=2)
    is_late = threading.Event()
    asking = ask_in_rounds(session, deque([GATED] * 5), lambda: session.execute, is_late.is_set)
    with gate.during(lambda: list(asking)) as answer:
        gate.wait_for(2)
        is_late.set()
    assert len(answer.result()) == 2


def test_nothing_stays_open_when_asking_breaks_down(postgres_server, tmp_path, gate):
    session = session_with(postgres_server, tmp_path, threads=2)
    broken = iter(["yes"])

    def ask(question):
        answer = session.execute(GATED)
        if next(broken, None):
            raise RuntimeError(question)
        return answer

    with gate.during(lambda: list(ask_in_rounds(session, deque("ab"), lambda: ask, bool))) as answer:
        gate.wait_for(2)
    with pytest.raises(RuntimeError):
        answer.result()


def test_an_interrupt_waits_for_the_statements_under_way_and_for_no_others(postgres_server, tmp_path, monkeypatch):
    session = session_with(postgres_server, tmp_path, threads=2)
    waiting, asked = deque(["select 1"] * 9), []

    def interrupted(_):
        wait_for("both to ask", lambda: len(asked) == 2, seconds=20)
        raise KeyboardInterrupt

    def ask(question):
        asked.append(question)
        wait_for("the interrupt", lambda: not waiting, seconds=20)
        return session.execute(question)

    monkeypatch.setattr(parallel, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(ask_in_rounds(session, waiting, lambda: ask, bool))
    assert len(asked) == 2
    postgres_server.wait_until_nobody_is_connected()


@pytest.fixture
def lonely(postgres_server):
    """A role to which the server gives one connection."""
    postgres_server.ask(f"create role lonely login password '{PASSWORD}' connection limit 1")
    yield "lonely"
    postgres_server.ask("drop role lonely")


@pytest.mark.usefixtures("one_question_per_statement")
def test_a_server_that_gives_fewer_connections_is_asked_with_those(postgres_server, tmp_path, gate, lonely):
    session = session_with(postgres_server, tmp_path, user=lonely, threads=3)
    with gate.during(lambda: look(session, *[GATED] * 5)) as answer:
        gate.wait_for(1)
    assert [one.error for one in answer.result()] == [None] * 5


def test_a_server_that_is_down_is_one_error(postgres_server, tmp_path):
    session = session_with(postgres_server, tmp_path, threads=3)
    profiles = tmp_path / "profiles.yml"
    profiles.write_text(profiles.read_text().replace(f"port: {postgres_server.port}", "port: 1"))
    session = session_module.WarehouseSession.open(
        project_dir=tmp_path, profiles_dir=tmp_path, manifest={"metadata": {"adapter_type": "postgres"}}
    )
    with pytest.raises(WarehouseError, match="Cannot connect to postgres"):
        list(ask_in_rounds(session, deque("abc"), lambda: session.execute, bool))


def test_schemas_are_listed_at_once(postgres_server, tmp_path, gate, monkeypatch):
    # As on an adapter of which nothing is known.
    monkeypatch.setattr(listing, "_LISTERS", dict.fromkeys(Catalog, listing._list_by_schema))
    postgres_server.ask("create schema at_a; create schema at_b", "create table at_a.t (); create table at_b.t ()")
    session_with(postgres_server, tmp_path)
    (tmp_path / "macros").mkdir()
    (tmp_path / "macros" / "list.sql").write_text(LISTING_BEHIND_THE_GATE)
    session = session_with(postgres_server, tmp_path, threads=2, manifest=parse(tmp_path, "it"))
    with gate.during(lambda: presences(session, '"at_a"."t"', '"at_b"."t"', '"at_b"."gone"')) as answer:
        gate.wait_for(2)
    assert answer.result() == [Presence.EXISTS, Presence.EXISTS, Presence.MISSING]
    assert session.cost().statements == 2


def test_each_connection_is_read_only_and_has_its_time_limits(postgres_server, tmp_path):
    session = session_with(postgres_server, tmp_path, threads=2)
    both = threading.Barrier(2, timeout=20)
    settings = "select current_setting('transaction_read_only'), current_setting('statement_timeout')"

    def ask(sql):
        both.wait()
        return session.execute(sql)

    asked = ask_in_rounds(session, deque([settings, "create table public.hacked ()"]), lambda: ask, bool)
    (_, seen), (_, refused) = sorted(asked, reverse=True)
    assert seen == [("on", "15s")]
    assert isinstance(refused, StatementError)
    assert "read-only transaction" in str(refused)


def test_an_adapter_that_keeps_its_connections_keeps_none(postgres_server, tmp_path, monkeypatch):
    session = session_with(postgres_server, tmp_path)
    # As Snowflake's does by default.
    monkeypatch.setattr(session._adapter._adapter.connections, "release", lambda: None)
    kept = []
    close = session._adapter._adapter.connections.close
    monkeypatch.setattr(
        session._adapter._adapter.connections, "close", lambda one: (kept.append(one.handle), close(one))[1]
    )
    with session.connection():
        session.execute("select 1")
    assert [handle.closed for handle in kept] == [1]


def test_duckdb_has_one_connection_whatever_the_profile_says(shop):
    profiles = shop.folder / "profiles.yml"
    profiles.write_text(profiles.read_text().replace("threads: 1", "threads: 8"))
    session = shop.session()
    assert session.connections == 1
