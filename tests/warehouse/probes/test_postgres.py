"""PostgreSQL through the same probes: a second engine, with transactions that a failed statement spoils."""

from __future__ import annotations

import pytest

from dagster_sao.core.manifest.read_graph import build_graph
from dagster_sao.warehouse import ProbeKind, SourceProber, WarehouseError, WarehouseSession
from tests.support.postgres_server import PASSWORD
from tests.warehouse.conftest import parse

pytest.importorskip("dbt.adapters.postgres")

PROFILES = """
shop:
  target: pg
  outputs:
    pg: &pg {{type: postgres, host: 127.0.0.1, port: {port}, user: loader, password: {password}, dbname: postgres, schema: raw}}
    wrong: {{<<: *pg, password: hunter3-secret}}
"""
SOURCES = """
sources:
  - name: raw
    tables:
      - {name: exact, identifier: orders, config: {loaded_at_field: loaded_at}}
      - {name: zoned, identifier: orders, config: {loaded_at_field: zoned_at}}
      - {name: date, identifier: orders, config: {loaded_at_field: day}}
      - {name: empty, config: {loaded_at_field: loaded_at}}
      - {name: query, identifier: orders, config: {loaded_at_query: "select max(loaded_at) from {{ this }} where kind like '%a%'"}}
      - {name: gone, config: {loaded_at_field: loaded_at}}
      - {name: no_column, identifier: orders, config: {loaded_at_field: nope}}
      - {name: two_rows, identifier: orders, config: {loaded_at_query: "select zoned_at from {{ this }} union all select now()"}}
      - {name: two_columns, identifier: orders, config: {loaded_at_query: "select zoned_at, 1 from {{ this }}"}}
      - {name: no_row, identifier: empty, config: {loaded_at_query: "select loaded_at from {{ this }}"}}
      - {name: writes, identifier: orders, config: {loaded_at_query: "select raw.wipe()"}}
      - {name: endless, identifier: orders, config: {loaded_at_query: "select 'infinity'::timestamp"}}
      - {name: neither, identifier: orders}
"""
SETUP = """
create schema raw;
create table raw.orders (kind text, loaded_at timestamp, zoned_at timestamptz, day date);
insert into raw.orders values ('a', '2026-01-01 10:00:00.123456', '2026-01-01 11:30:00.5+01:30', '2026-01-02');
create table raw.empty (loaded_at timestamp);
create function raw.wipe() returns timestamp language plpgsql as
  $$ begin delete from raw.orders; return now(); end $$;
alter role loader set datestyle = 'SQL, DMY';
alter role loader set timezone = 'Asia/Kathmandu';
"""


@pytest.fixture(scope="module")
def postgres(postgres_server, tmp_path_factory):
    """A project on PostgreSQL: its folder and manifest."""
    folder = tmp_path_factory.mktemp("postgres")
    (folder / "models").mkdir()
    (folder / "dbt_project.yml").write_text("name: shop\nprofile: shop\nflags: {send_anonymous_usage_stats: false}")
    (folder / "profiles.yml").write_text(PROFILES.format(port=postgres_server.port, password=PASSWORD))
    (folder / "models" / "sources.yml").write_text(SOURCES)
    postgres_server.ask(SETUP)
    return folder, parse(folder, "pg")


def session_of(postgres, target="pg"):
    folder, manifest = postgres
    return WarehouseSession.open(project_dir=folder, profiles_dir=folder, manifest=manifest, target=target)


@pytest.fixture(scope="module")
def seen(postgres):
    sources = build_graph(postgres[1]).sources.values()
    return {uid.split(".")[-1]: one for uid, one in SourceProber(session_of(postgres)).observe(list(sources))}


@pytest.mark.parametrize(
    ("name", "token"),
    {
        "exact": "2026-01-01T10:00:00.123456",
        "zoned": "2026-01-01T10:00:00.5Z",
        "date": "2026-01-02T00:00:00",
        "empty": "empty",
        "query": "2026-01-01T10:00:00.123456",
    }.items(),
)
def test_the_token_is_exact_whatever_the_role_prefers(seen, name, token):
    assert (seen[name].token, seen[name].error) == (token, None)


@pytest.mark.parametrize(
    ("name", "message"),
    {
        "gone": "does not exist in the warehouse",
        "no_column": 'failed: column "nope" does not exist. Correct the field',
        "two_rows": "returned more than one row",
        "two_columns": "returned 2 columns",
        "no_row": "returned no row",
        "writes": "cannot execute DELETE in a read-only transaction",
        "endless": "returned a text, not a timestamp",
    }.items(),
)
def test_a_bad_source_says_what_is_wrong_and_harms_no_other(seen, name, message):
    assert seen[name].token is None
    assert message in seen[name].error


def test_a_table_with_neither_has_a_token_all_the_same(seen):
    assert (seen["neither"].kind, seen["neither"].error) == (ProbeKind.POSTGRES, None)
    assert seen["neither"].token


def test_no_connection_stays_after_a_look(postgres_server, postgres, seen):
    with session_of(postgres).connection():
        pass
    postgres_server.wait_until_nobody_is_connected()


def test_a_refused_password_is_one_sentence_without_it(postgres):
    with pytest.raises(WarehouseError) as caught, session_of(postgres, "wrong").connection():
        pass
    assert "password authentication failed" in str(caught.value)
    assert "hunter" not in str(caught.value)
    assert "\n" not in str(caught.value)
