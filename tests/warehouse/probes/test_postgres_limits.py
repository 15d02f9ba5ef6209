"""PostgreSQL: a query that hangs, or would write, harms neither the others nor the data."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import pytest

from dagster_sao.core.manifest.graph import Source
from dagster_sao.warehouse import SourceProber, StatementError, adapters
from dagster_sao.warehouse import session as session_module
from dagster_sao.warehouse.adapters import traits_of
from tests.support.postgres_server import session_with

pytest.importorskip("dbt.adapters.postgres")


@pytest.fixture(scope="module")
def session(postgres_server, tmp_path_factory):
    postgres_server.ask(
        "create schema limits",
        "create table limits.a (at timestamp); create table limits.b (at timestamp); create table limits.c (at timestamp)",
        "insert into limits.a values ('2026-01-01')",
    )
    return session_with(postgres_server, tmp_path_factory.mktemp("shop"))


def source(name, **definition):
    return Source(
        f"source.shop.limits.{name}",
        "limits",
        name,
        "models/sources.yml",
        database="postgres",
        schema="limits",
        identifier=name,
        relation_name=f'"postgres"."limits"."{name}"',
        definition={"loaded_at_field": "at", **definition},
    )


SOURCES = [source("a"), source("b"), source("c")]


def look(prober, sources=SOURCES):
    return {uid.rsplit(".", 1)[-1]: seen for uid, seen in prober.observe(sources)}


@pytest.fixture
def statements(session, monkeypatch):
    """What the session sends while a test looks."""
    sent = []
    run = session._adapter.run

    def noted(sql, limit=None):
        sent.append(sql)
        return run(sql, limit)

    monkeypatch.setattr(session._adapter, "run", noted)
    return sent


def test_a_locked_table_is_one_sentence_and_the_others_are_answered(postgres_server, session, statements):
    prober = SourceProber(session)
    with closing(postgres_server.connect()) as writer, writer.cursor() as cursor:
        cursor.execute("begin; lock table limits.b in access exclusive mode")
        seen = look(prober)
        assert (seen["a"].token, seen["c"].token) == ("2026-01-01T00:00:00", "empty")
        assert seen["b"].error == (
            "limits.b (models/sources.yml) has a loaded_at_field that could not be read: another session has kept it locked"
            " for more than 2 s. It is probed again at the next tick; if it keeps failing, query less data"
        )
        statements.clear()
        assert look(prober)["b"].error
        # The others are asked in one statement again, and only the locked one waits.
        assert sum("max(at" in sql for sql in statements) == 2
        cursor.execute("commit")
    assert [one.error for one in look(prober).values()] == [None] * 3


@pytest.fixture
def short(monkeypatch):
    preamble = traits_of("postgres").preamble.replace("15s", "200ms")
    assert "200ms" in preamble
    monkeypatch.setitem(adapters._TRAITS, "postgres", replace(traits_of("postgres"), preamble=preamble))


def test_a_query_that_hangs_is_one_sentence_and_the_others_are_answered(session, short):
    endless = source("b", loaded_at_query="select now() from (select pg_sleep(60)) slept")
    seen = look(SourceProber(session), [source("a"), endless, source("c")])
    assert (seen["a"].token, seen["c"].token) == ("2026-01-01T00:00:00", "empty")
    assert "has a loaded_at_query that could not be read: there was no answer within" in seen["b"].error


def test_sources_that_are_slow_only_together_are_asked_apart_from_then_on(session, short, statements):
    slow = [source(name, loaded_at_query="select now() from (select pg_sleep(0.09)) slept") for name in "abc"]
    prober = SourceProber(session)
    assert [one.error for one in look(prober, slow).values()] == [None] * 3
    statements.clear()
    assert [one.error for one in look(prober, slow).values()] == [None] * 3
    assert sum("pg_sleep" in sql for sql in statements) == 3


@pytest.mark.parametrize("autocommit", ["false", "true"])
def test_a_look_cannot_write_whatever_the_profile_says(postgres_server, tmp_path, autocommit):
    session_with(postgres_server, tmp_path)
    profiles = tmp_path / "profiles.yml"
    profiles.write_text(profiles.read_text().replace("schema: raw", f"schema: raw, autocommit: {autocommit}"))
    session = session_module.WarehouseSession.open(
        project_dir=tmp_path, profiles_dir=tmp_path, manifest={"metadata": {"adapter_type": "postgres"}}
    )
    with session.connection(), pytest.raises(StatementError, match="read-only transaction"):
        session.execute("create table public.hacked (id int)")
    with session.connection():
        assert session.execute("select current_setting('statement_timeout'), current_setting('lock_timeout')") == [
            ("15s", "2s")
        ]
