"""Which relations exist: seen, missing, or unknown, which is never taken for missing."""

from __future__ import annotations

from contextlib import closing, contextmanager
from pathlib import Path

import duckdb
import pytest

from dagster_sao.core.manifest.graph import Node, NodeKind
from dagster_sao.warehouse import Presence, StatementError, WarehouseBusyError, existing_relations
from dagster_sao.warehouse.adapters import Catalog
from dagster_sao.warehouse.relations import listing
from tests.support.postgres_server import PASSWORD, session_with
from tests.warehouse.conftest import parse


def node(relation_name, unique_id=None):
    return Node(
        unique_id=unique_id or f"model.shop.{relation_name}",
        name="x",
        resource_type="model",
        kind=NodeKind.DETERMINISTIC,
        materialized="table",
        language="sql",
        file="models/x.sql",
        fqn=("shop", "x"),
        relation_name=relation_name,
        parents=(),
    )


def look(session, *relation_names):
    seen = existing_relations(session, [node(name, str(index)) for index, name in enumerate(relation_names)])
    return [seen[str(index)] for index in range(len(relation_names))]


def presences(session, *relation_names):
    return [one.presence for one in look(session, *relation_names)]


EXISTS, MISSING, UNKNOWN = Presence.EXISTS, Presence.MISSING, Presence.UNKNOWN


@pytest.fixture(scope="module")
def postgres(postgres_server, tmp_path_factory):
    pytest.importorskip("dbt.adapters.postgres")
    postgres_server.ask(
        "create schema made; create schema made_empty; create schema made_closed",
        'create table made.orders (id int); create table made."Orders Too" (id int)',
        "create view made.seen as select * from made.orders",
        "create materialized view made.kept as select * from made.orders",
        "create table made.parts (id int) partition by list (id)",
        "create index an_index on made.orders (id); create type made.a_type as (id int)",
        "create table made_closed.orders (id int)",
        f"create role looker login password '{PASSWORD}'; grant usage on schema made to looker",
    )
    return postgres_server


@pytest.fixture(scope="module")
def session(postgres, tmp_path_factory):
    return session_with(postgres, tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def looker(postgres, tmp_path_factory):
    """A role that may not look into every schema."""
    return session_with(postgres, tmp_path_factory.mktemp("looker"), user="looker")


@pytest.mark.parametrize(
    ("relation", "presence"),
    [
        ('"postgres"."made"."orders"', EXISTS),
        ('"postgres"."made"."Orders Too"', EXISTS),
        ('"made"."seen"', EXISTS),
        ('"postgres"."made"."kept"', EXISTS),
        ('"postgres"."made"."parts"', EXISTS),
        ('"POSTGRES".MADE.Orders', EXISTS),
        ('"postgres"."made"."Orders"', MISSING),
        ('"postgres"."Made"."orders"', MISSING),
        ('"postgres"."made"."an_index"', MISSING),
        ('"postgres"."made"."a_type"', MISSING),
        ('"postgres"."made_empty"."orders"', MISSING),
        ('"postgres"."made_never"."orders"', MISSING),
        ('"elsewhere"."made"."orders"', UNKNOWN),
        ("read_csv('x')", UNKNOWN),
        (None, UNKNOWN),
    ],
)
def test_postgres_knows_what_exists(session, relation, presence):
    (seen,) = look(session, relation)
    assert seen.presence == presence
    assert (seen.reason is not None) == (presence is UNKNOWN)


def test_what_a_role_may_not_see_is_unknown_and_what_it_sees_is_not(looker):
    names = ('"made_closed"."orders"', '"made_closed"."gone"', '"made"."orders"', '"made"."gone"', '"made_never"."x"')
    seen = look(looker, *names)
    assert [one.presence for one in seen] == [EXISTS, UNKNOWN, EXISTS, MISSING, MISSING]
    assert seen[1].reason == "permission denied for schema made_closed"


def test_a_listing_that_fails_makes_nothing_missing(session, monkeypatch):
    monkeypatch.setattr(listing, "name_array", lambda names: "array[1 / 0]::text[]")
    seen = look(session, '"made"."orders"', '"made"."gone"')
    assert [one.presence for one in seen] == [UNKNOWN] * 2
    assert seen[0].reason == "its schema cannot be listed: division by zero"


def test_nothing_is_asked_for_no_nodes(monkeypatch, session):
    monkeypatch.setattr(session, "connection", None)
    assert existing_relations(session, []) == {}
    assert presences(session, None) == [UNKNOWN]


def test_a_renamed_table_is_missing_at_the_next_look(postgres, session):
    postgres.ask("create table made.short_lived (id int)")
    assert presences(session, '"made"."short_lived"') == [EXISTS]
    postgres.ask("alter table made.short_lived rename to other_name")
    assert presences(session, '"made"."short_lived"', '"made"."other_name"') == [MISSING, EXISTS]
    postgres.ask("drop table made.other_name")


def columns(session, *relation_names):
    return [one.columns for one in look(session, *relation_names)]


@pytest.mark.parametrize(
    ("before", "change"),
    [
        ("id int, amount int", "id int, amount int, note text"),
        ("id int, amount int", "amount int, id int"),
        ("id int, amount int", "id int, amount bigint"),
        ("id int, amount int", "id int, total int"),
        ("amount numeric(9, 2)", "amount numeric(9, 3)"),
        ("name varchar(9)", "name varchar(10)"),
        ("name text", 'name text collate "C"'),
        ('"a int, b" int', "a int, b int"),
    ],
)
def test_the_signature_of_columns_tells_their_names_types_and_order(postgres, session, before, change):
    postgres.ask(
        f"create table made.one ({before}); create table made.two ({change}); create table made.same ({before})"
    )
    one, two, same = columns(session, '"made"."one"', '"made"."two"', '"made"."same"')
    postgres.ask("drop table made.one, made.two, made.same")
    assert one == same != two


def test_a_listing_tells_the_columns_of_views_and_of_what_is_dropped_from_a_table(postgres, session):
    postgres.ask("create table made.one (id int, more int, name text); alter table made.one drop column more")
    postgres.ask("create view made.shown as select * from made.one; create table made.same (id int, name text)")
    one, shown, same = columns(session, '"made"."one"', '"made"."shown"', '"made"."same"')
    postgres.ask("drop view made.shown; drop table made.one, made.same")
    assert one == shown == same


def test_duckdb_lists_columns_of_tables_and_of_views_that_are_broken(shop):
    shop.write(
        "create table raw.one as select 1 as id, 2.5 as amount",
        "create table raw.same as select 1 as id, 3.5 as amount",
        "create table raw.other as select 1 as id, 2.25 as amount",
        "create table raw.gone as select 1 as id, 2.5 as amount; create view raw.broken as select * from raw.gone",
        "drop table raw.gone",
    )
    names = ('"shop"."raw"."one"', '"shop"."raw"."same"', '"shop"."raw"."other"', '"shop"."raw"."broken"')
    one, same, other, broken = columns(shop.session(), *names)
    assert one == same == broken != other
    assert other is not None


def test_columns_that_no_listing_tells_are_unknown(generic, shop):
    assert columns(shop.session(), '"shop"."raw"."orders"') == [None]


def test_duckdb_knows_what_exists_whatever_the_case(shop):
    shop.write(
        'create schema "Mixed"; create table "Mixed"."Orders Too" (id int)', "create view raw.seen as select 1 as one"
    )
    seen = look(
        shop.session(),
        '"shop"."raw"."orders"',
        '"SHOP"."RAW"."ORDERS"',
        'shop.mixed."orders too"',
        '"shop"."raw"."seen"',
        '"shop"."raw"."gone"',
        '"shop"."never"."orders"',
        '"lake"."raw"."orders"',
    )
    assert [one.presence for one in seen] == [
        EXISTS,
        EXISTS,
        EXISTS,
        EXISTS,
        MISSING,
        MISSING,
        UNKNOWN,
    ]
    assert seen[-1].reason == "the database lake is not attached"


def test_duckdb_lists_attached_databases(shop):
    with closing(duckdb.connect(str(shop.folder / "lake.duckdb"))) as connection:
        connection.execute("create table orders (id int)")
    names = ('"lake"."main"."orders"', '"lake"."raw"."orders"', '"shop"."raw"."orders"')
    assert presences(shop.session("attached"), *names) == [EXISTS, MISSING, EXISTS]


def test_everything_is_missing_from_a_duckdb_file_that_was_never_made(shop):
    shop.database.unlink()
    assert presences(shop.session(), '"shop"."raw"."orders"', '"lake"."raw"."orders"') == [MISSING, UNKNOWN]
    assert not shop.database.exists()


def test_nothing_is_known_of_a_duckdb_file_whose_folder_is_gone(shop):
    profiles = shop.folder / "profiles.yml"
    profiles.write_text(profiles.read_text().replace("path: shop.duckdb", "path: not_mounted/shop.duckdb", 1))
    assert presences(shop.session(), '"shop"."raw"."orders"') == [UNKNOWN]


def test_nothing_is_known_of_the_memory_of_another_process(shop):
    assert presences(shop.session("memory"), '"memory"."main"."orders"') == [UNKNOWN]


def test_a_duckdb_file_with_a_writer_is_busy(shop):
    session = shop.session()
    session._sleep = lambda seconds: None
    with closing(duckdb.connect(str(shop.database))), pytest.raises(WarehouseBusyError):
        look(session, '"shop"."raw"."orders"')


@pytest.fixture(scope="module")
def manifest_of_postgres(postgres, tmp_path_factory):
    """With the macros of the adapter."""
    folder = tmp_path_factory.mktemp("parsed")
    session_with(postgres, folder)
    return parse(folder, "it")


@pytest.fixture
def generic(monkeypatch):
    """As on an adapter of which nothing is known."""
    monkeypatch.setattr(listing, "_LISTERS", dict.fromkeys(Catalog, listing._list_by_schema))


def test_any_adapter_lists_schema_by_schema(generic, postgres, tmp_path, manifest_of_postgres):
    session = session_with(postgres, tmp_path, manifest=manifest_of_postgres)
    names = (
        '"postgres"."made"."orders"',
        '"postgres"."made"."seen"',
        '"postgres"."made"."kept"',
        '"postgres"."made"."gone"',
        '"postgres"."made_empty"."orders"',
    )
    seen = look(session, *names)
    assert [one.presence for one in seen[:4]] == [
        EXISTS,
        EXISTS,
        EXISTS,
        MISSING,
    ]
    # Nothing listed proves nothing: BigQuery lists nothing where permission is denied.
    assert seen[4].presence is UNKNOWN


def test_any_adapter_lists_through_its_own_macros(generic, shop):
    assert presences(shop.session(), '"shop"."raw"."orders"', '"shop"."raw"."gone"') == [EXISTS, MISSING]


def test_a_schema_that_cannot_be_listed_harms_no_other(generic, shop, monkeypatch):
    session = shop.session()
    real = session._adapter.list_relations

    def list_relations(database, schema):
        if schema == "closed":
            raise RuntimeError("permission denied")
        return real(database, schema)

    monkeypatch.setattr(session._adapter, "list_relations", list_relations)
    names = ('"shop"."closed"."orders"', '"shop"."raw"."orders"', '"shop"."raw"."gone"')
    seen = look(session, *names)
    assert [one.presence for one in seen] == [UNKNOWN, EXISTS, MISSING]
    assert seen[0].reason == "its schema cannot be listed: permission denied"
    assert len(shop.opened) == 2  # a failed statement may spoil the connection


class FakeSnowflake:
    """Answers of Snowflake's information_schema, by database."""

    adapter_type = "snowflake"
    project_dir = Path()
    database = "SHOP"
    connections = 1

    def __init__(self, **answers):
        self.answers = answers
        self.sent = []

    @contextmanager
    def connection(self):
        yield

    def execute(self, sql):
        self.sent.append(sql)
        (rows,) = [rows for database, rows in self.answers.items() if f'"{database}".' in sql]
        if isinstance(rows, Exception):
            raise rows
        return rows


def test_snowflake_is_asked_once_per_database_and_folds_bare_names_up():
    session = FakeSnowflake(
        SHOP=[
            ("RAW", "ORDERS", "of orders"),
            ("RAW", "kept", None),
            ("EMPTY", None, None),
        ],
        CLOSED=StatementError("Database 'CLOSED' does not exist or not authorized"),
    )
    names = (
        "shop.raw.orders",
        'shop.raw."kept"',
        "shop.raw.kept",
        "shop.empty.x",
        "shop.unseen.x",
        "closed.raw.orders",
    )
    seen = look(session, *names)
    assert [one.presence for one in seen] == [EXISTS, EXISTS, MISSING, MISSING, UNKNOWN, UNKNOWN]
    assert [one.columns is None for one in seen[:2]] == [False, True]
    assert "hidden from the role" in seen[4].reason
    assert "not authorized" in seen[5].reason
    assert len(session.sent) == 3  # what refuses is asked once more, without columns
