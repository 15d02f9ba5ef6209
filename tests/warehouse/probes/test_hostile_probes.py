"""Hostile `loaded_at_*` values on real databases: nothing is written, nothing is revealed, and the other sources are observed."""

from __future__ import annotations

import json
from contextlib import closing

import duckdb
import pytest

from dagster_sao.core.manifest.graph import Source
from dagster_sao.core.manifest.read_graph import build_graph
from dagster_sao.warehouse import SourceProber, WarehouseSession
from dagster_sao.warehouse.errors import StatementError
from dagster_sao.warehouse.probes.base import Observation
from tests.support.postgres_server import PASSWORD, session_with
from tests.warehouse.conftest import parse
from tests.warehouse.hostile import FIELDS, QUERIES, SECRET_ROW, TEXTS, UNHARMFUL

PLANTED = "planted-hunter2-secret"
MACROS = "{% macro asks() %}{{ run_query('drop table raw.victim') }}{% endmacro %}"
SETUP = [
    "create schema raw",
    "create table raw.victim (id int, loaded_at timestamp)",
    "insert into raw.victim values (1, '2026-01-01 10:00:00')",
    f"create table raw.hidden as select '{SECRET_ROW}' as name",
    "create sequence raw.counter",
]
FUNCTIONS = """
create function raw.wipe() returns timestamp language plpgsql as
  $$ begin delete from raw.victim; return now(); end $$;
create function raw.tells() returns timestamp language plpgsql as
  $$ begin raise exception '%', (select name from raw.hidden); end $$;
"""
GOOD = ("good_before", "good_after")


def _sources(adapter: str, out: str) -> str:
    def table(name: str, **config: str) -> dict:
        return {"name": name, "identifier": "victim", "config": config}

    good = {name: table(name, loaded_at_field="loaded_at") for name in GOOD}
    queries = [
        table(name, loaded_at_query=TEXTS[name].replace("@OUT@", out))
        for name, adapters in QUERIES.items()
        if adapter in adapters
    ]
    fields = [table(name, loaded_at_field=value) for name, value in FIELDS.items()]
    tables = [good["good_before"], *queries, *fields, good["good_after"]]
    # JSON is YAML, and says control characters as they are.
    return json.dumps({"sources": [{"name": "raw", "schema": "raw", "tables": tables}]})


def _observe(folder, adapter: str, profile: str):
    out = folder / "out" / "written"
    out.parent.mkdir()
    for name in ("models", "macros"):
        (folder / name).mkdir()
    (folder / "dbt_project.yml").write_text("name: shop\nprofile: shop\nflags: {send_anonymous_usage_stats: false}")
    (folder / "profiles.yml").write_text(
        f"shop: {{target: it, outputs: {{it: {{{profile}, schema: raw, threads: 2}}}}}}"
    )
    (folder / "macros" / "asks.sql").write_text(MACROS)
    (folder / "models" / "sources.yml").write_text(_sources(adapter, str(out)))
    manifest = parse(folder, "it")
    session = WarehouseSession.open(project_dir=folder, profiles_dir=folder, manifest=manifest)
    sources = list(build_graph(manifest).sources.values())
    names = {source.unique_id: source.name for source in sources}
    found = {names[uid]: seen for uid, seen in SourceProber(session).observe(sources)}
    assert set(found) == set(names.values())
    assert not list(out.parent.iterdir())
    return found


@pytest.fixture(autouse=True, scope="module")
def planted():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DBT_ENV_SECRET_PLANTED", PLANTED)
        yield


def _judge(found) -> None:
    for name in GOOD:
        assert found[name].token == "2026-01-01T10:00:00", found[name].error
    for name, seen in found.items():
        if name in GOOD or name in UNHARMFUL:
            continue
        assert seen.token is None, name
        assert seen.error.startswith(f"raw.{name} (models/sources.yml) "), seen.error
        assert "\n" not in seen.error
    told = json.dumps([(seen.token, seen.error, seen.warning) for seen in found.values()])
    for secret in (PLANTED, PASSWORD, SECRET_ROW):
        assert secret not in told
    assert "run_query" in found["macro_that_asks"].error
    assert "which a probe never does" in found["adapter_execute"].error


def test_duckdb_is_not_written_by_any_probe(tmp_path):
    file = tmp_path / "w.duckdb"
    with closing(duckdb.connect(str(file))) as connection:
        for statement in SETUP:
            connection.execute(statement)
    before = file.read_bytes()
    _judge(_observe(tmp_path, "duckdb", f"type: duckdb, path: '{file}'"))
    assert file.read_bytes() == before


@pytest.fixture
def victims(postgres_server):
    pytest.importorskip("dbt.adapters.postgres")
    postgres_server.ask("drop schema if exists raw cascade", *SETUP, FUNCTIONS)
    yield postgres_server
    postgres_server.ask("drop schema raw cascade")


def test_postgresql_is_not_written_by_any_probe(victims, tmp_path):
    look = (
        "select (select string_agg(oid::regclass::text, ' ' order by oid) from pg_class where relnamespace = 'raw'::regnamespace),"
        " (select count(*) from raw.victim), (select last_value from raw.counter), (select is_called from raw.counter),"
        " (select count(*) from pg_largeobject_metadata)"
    )
    before = victims.ask(look)
    profile = (
        f"type: postgres, host: 127.0.0.1, port: {victims.port}, user: loader, password: {PASSWORD}, dbname: postgres"
    )
    _judge(_observe(tmp_path, "postgres", profile))
    assert victims.ask(look) == before


@pytest.mark.parametrize("sent", ["commit; drop table kept", "rollback; drop table kept", "drop table kept"])
def test_no_transaction_of_a_session_writes_on_postgresql(postgres_server, tmp_path, sent):
    pytest.importorskip("dbt.adapters.postgres")
    postgres_server.ask("drop table if exists kept", "create table kept (id int)")
    session = session_with(postgres_server, tmp_path)
    with session.connection(), pytest.raises(StatementError, match="read-only"):
        session.execute(sent)
    assert postgres_server.ask("select count(*) from kept") == [(0,)]


class _Surprising:
    """A probe that breaks down over one source, in a way that nobody foresaw."""

    kind = "surprising"

    def claims(self, source):
        return True

    def observe(self, sources, expired):
        for source in sources:
            if source.name == "good_before":
                raise OverflowError(f"{PLANTED} is too large")
            yield source.unique_id, Observation("token", self.kind)


def test_what_nobody_foresaw_is_the_failure_of_one_source(postgres_server, tmp_path):
    session = session_with(postgres_server, tmp_path)
    prober = SourceProber(session)
    prober._order = prober._turns = (_Surprising(),)
    sources = [Source(f"source.shop.raw.{name}", "raw", name, "models/sources.yml") for name in (*GOOD, "other")]
    found = dict(prober.observe(sources))
    error = "raw.good_before (models/sources.yml) cannot be probed: OverflowError: *** is too large. Correct its settings or its data"
    assert [seen.error for seen in found.values()] == [error, None, None]
