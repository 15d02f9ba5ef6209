"""Last-modified metadata through dbt's own batch and single forms, over a warehouse of a few rows."""

from __future__ import annotations

import threading
from datetime import datetime, timezone
from types import SimpleNamespace

import pytest
from dbt.adapters.base.impl import BaseAdapter
from dbt.adapters.base.relation import BaseRelation
from dbt.adapters.capability import Capability
from dbt_common.clients.agate_helper import table_from_data_flat

from dagster_sao.core.manifest.graph import Source
from dagster_sao.warehouse import ProbeKind, SourceProber, WarehouseSession
from dagster_sao.warehouse.probes import last_modified

NOON = datetime(2026, 1, 1, 12, 0, 0, 123456, timezone.utc)
LATER = NOON.replace(hour=13)
DOES_NOT_EXIST = "does not exist in the warehouse. Create it, or correct the source's schema and identifier"


class Warehouse:
    """What dbt calls of an adapter, with dbt's own freshness methods over rows kept here."""

    Relation = BaseRelation
    calculate_freshness_from_metadata_batch = BaseAdapter.calculate_freshness_from_metadata_batch
    calculate_freshness_from_metadata = BaseAdapter.calculate_freshness_from_metadata
    _create_freshness_response = BaseAdapter._create_freshness_response
    _parse_freshness_row = BaseAdapter._parse_freshness_row
    _get_catalog_relations_by_info_schema = BaseAdapter._get_catalog_relations_by_info_schema
    set_macro_resolver = set_macro_context_generator = lambda *_: None
    use_show_apis = staticmethod(bool)

    def __init__(self, capabilities=(Capability.TableLastModifiedMetadata, Capability.TableLastModifiedMetadataBatch)):
        self.capabilities = capabilities
        self.times = {}
        self.kinds = {}
        self.refused = {}
        self.asked = []
        self.behavior = SimpleNamespace(bigquery_use_batch_source_freshness=SimpleNamespace(no_warn=False))
        self.connections = SimpleNamespace(
            clear_thread_connection=lambda: None,
            set_connection_name=lambda _: SimpleNamespace(handle=None),
            get_if_exists=lambda: None,
        )

    def supports(self, capability):
        return capability in self.capabilities

    def execute(self, sql, *, fetch, limit):
        return None, SimpleNamespace(rows=[])

    def execute_macro(self, name, kwargs, macro_resolver=None, needs_conn=False):
        asked = {(r.database, r.schema, r.identifier) for r in kwargs["relations"]}
        self.asked.append(asked)
        self.refuse(*({database for database, _, _ in asked} | {identifier for _, _, identifier in asked}))
        wanted = {tuple(map(str.lower, names)) for names in asked}
        rows = [
            {"schema": name[1], "identifier": name[2], "last_modified": time, "snapshotted_at": LATER}
            for name, time in self.times.items()
            if tuple(map(str.lower, name)) in wanted
        ]
        columns = ["schema", "identifier", "last_modified", "snapshotted_at"]
        return SimpleNamespace(response=None, table=table_from_data_flat(rows, columns))

    def list_relations_without_caching(self, schema):
        self.asked.append((schema.database, schema.schema))
        self.refuse(schema.schema)
        return [
            SimpleNamespace(identifier=name[2], type=self.kinds.get(name, "table"), metadata=None)
            for name in self.times
            if name[:2] == (schema.database, schema.schema)
        ]

    def refuse(self, *names):
        for name in names:
            if name in self.refused:
                raise RuntimeError(self.refused[name])


def source(name, database="sao", schema="raw", label=None, **meta):
    definition = {"name": name, "config": {"meta": {"dagster_sao": meta}}} if meta else {}
    unique_id = f"source.shop.{database}.{schema}.{label or name}"
    return Source(unique_id, schema, label or name, "models/s.yml", database, schema, name, definition=definition)


@pytest.fixture
def look(shop):
    """Look at sources as on another adapter, each time with the same prober."""

    def look(warehouse, *sources, adapter="snowflake", threads=1, **kwargs):
        if not hasattr(warehouse, "prober"):
            private = shop.session()._adapter
            private._adapter, private.type, private._config.threads = warehouse, adapter, threads
            warehouse.prober = SourceProber(WarehouseSession(private, shop.folder))
        return {
            uid.removeprefix("source.shop."): seen for uid, seen in warehouse.prober.observe(list(sources), **kwargs)
        }

    return look


def test_the_time_is_the_token_to_its_last_digit(look):
    warehouse = Warehouse()
    warehouse.times["sao", "raw", "orders"] = NOON
    seen = look(warehouse, source("orders"))["sao.raw.orders"]
    assert (seen.token, seen.kind, seen.loaded_at) == ("2026-01-01T12:00:00.123456Z", ProbeKind.METADATA, NOON)


def test_one_query_per_database_and_nothing_more_while_no_time_moves(look):
    warehouse = Warehouse()
    sources = [source(f"t{n}", database) for n in range(50) for database in ("sao", "other")]
    warehouse.times |= {(s.database, "raw", s.identifier): NOON for s in sources}
    assert len(look(warehouse, *sources)) == 100
    assert len(warehouse.asked) == 2 + 2  # the times, then what the relations are
    warehouse.asked.clear()
    assert len(look(warehouse, *sources)) == 100
    assert [len(asked) for asked in warehouse.asked] == [50, 50]


def test_a_very_long_list_of_names_is_cut(look, monkeypatch):
    monkeypatch.setattr(last_modified, "_TABLES_PER_STATEMENT", 3)
    warehouse = Warehouse()
    sources = [source(f"t{n}") for n in range(7)]
    warehouse.times |= {("sao", "raw", s.identifier): NOON for s in sources}
    assert all(seen.token for seen in look(warehouse, *sources).values())
    assert [len(asked) for asked in warehouse.asked[:3]] == [3, 3, 1]


def test_the_same_name_in_two_databases_is_two_tables(look):
    warehouse = Warehouse()
    warehouse.times |= {("sao", "raw", "orders"): NOON, ("other", "raw", "orders"): LATER}
    seen = look(warehouse, source("orders"), source("orders", "other"))
    assert (seen["sao.raw.orders"].loaded_at, seen["other.raw.orders"].loaded_at) == (NOON, LATER)


def test_two_sources_on_one_table_both_get_its_time(look):
    warehouse = Warehouse()
    warehouse.times["sao", "raw", "orders"] = NOON
    seen = look(warehouse, source("orders"), source("ORDERS", label="again"))
    assert {one.loaded_at for one in seen.values()} == {NOON}


def test_names_that_differ_only_in_case_are_not_told_apart_by_dbt_and_so_untracked(look):
    warehouse = Warehouse()
    warehouse.times |= {("sao", "raw", "orders"): NOON, ("sao", "raw", "ORDERS"): LATER}
    seen = look(warehouse, source("orders"))["sao.raw.orders"]
    assert seen.kind == ProbeKind.UNTRACKED
    assert "another relation has the same name but for upper and lower case" in seen.warning


@pytest.mark.parametrize("batch", [True, False])
def test_a_missing_table_is_an_error_of_its_own(look, batch):
    warehouse = Warehouse() if batch else Warehouse([Capability.TableLastModifiedMetadata])
    warehouse.times["sao", "raw", "orders"] = NOON
    seen = look(warehouse, source("orders"), source("gone"))
    assert seen["sao.raw.gone"].error == f"raw.gone (models/s.yml) {DOES_NOT_EXIST}"
    assert seen["sao.raw.orders"].token


def test_a_table_that_goes_missing_is_noticed_and_welcome_when_it_is_back(look):
    warehouse = Warehouse()
    warehouse.times["sao", "raw", "orders"] = NOON
    assert look(warehouse, source("orders"))["sao.raw.orders"].token
    del warehouse.times["sao", "raw", "orders"]
    assert look(warehouse, source("orders"))["sao.raw.orders"].error
    warehouse.times["sao", "raw", "orders"] = LATER
    assert look(warehouse, source("orders"))["sao.raw.orders"].loaded_at == LATER


@pytest.mark.parametrize("time", [None, NOON], ids=["without a time", "with that of its definition"])
def test_a_view_is_untracked_whatever_its_time(look, time):
    warehouse = Warehouse()
    warehouse.times["sao", "raw", "recent"] = time
    warehouse.kinds["sao", "raw", "recent"] = "view"
    seen = look(warehouse, source("recent", trust_metadata=True))["sao.raw.recent"]
    assert (seen.token, seen.kind, seen.error) == (None, ProbeKind.UNTRACKED, None)
    assert seen.warning == (
        "raw.recent is a view with no 'loaded_at_field' or 'loaded_at_query', so it is always considered fresh"
    )


def test_a_view_in_the_place_of_a_table_is_noticed(look):
    warehouse = Warehouse()
    name = "sao", "raw", "orders"
    warehouse.times[name] = NOON
    assert look(warehouse, source("orders"))["sao.raw.orders"].token
    warehouse.times[name], warehouse.kinds[name] = LATER, "view"
    assert look(warehouse, source("orders"))["sao.raw.orders"].kind == ProbeKind.UNTRACKED


@pytest.mark.parametrize("kind", ["external", "dynamic_table", "materialized_view"])
def test_only_tables_are_believed_unless_the_user_trusts_the_time(look, kind):
    warehouse = Warehouse()
    for name in ("doubted", "trusted"):
        warehouse.times["sao", "raw", name] = NOON
        warehouse.kinds["sao", "raw", name] = kind
    seen = look(warehouse, source("doubted"), source("trusted", trust_metadata=True))
    assert f"a relation of type {kind} is not known to move" in seen["sao.raw.doubted"].warning
    assert seen["sao.raw.trusted"].token


def test_a_table_without_a_time_is_untracked(look):
    warehouse = Warehouse()
    warehouse.times["sao", "raw", "orders"] = None
    seen = look(warehouse, source("orders"))["sao.raw.orders"]
    assert seen.warning == (
        "raw.orders (models/s.yml) has no 'loaded_at_field' or 'loaded_at_query', and the warehouse has no last-modified"
        " time for it, so it is always considered fresh. Give it one of them to have it tracked"
    )


def test_a_database_that_refuses_harms_no_other(look):
    warehouse = Warehouse()
    warehouse.times |= {("sao", "raw", "orders"): NOON, ("locked", "raw", "orders"): NOON}
    warehouse.refused["locked"] = "insufficient privileges, password=hunter2"
    seen = look(warehouse, source("orders", "locked"), source("orders"))
    assert seen["sao.raw.orders"].token
    assert seen["locked.raw.orders"].error == (
        "raw.orders (models/s.yml) has a last-modified time that cannot be read: insufficient privileges, password=***."
        " Let the target's role read the metadata of database locked, or give the source a loaded_at_field"
    )


def test_a_schema_that_cannot_be_listed_harms_no_other(look):
    warehouse = Warehouse()
    warehouse.times |= {("sao", "raw", "orders"): NOON, ("sao", "locked", "orders"): NOON}
    warehouse.refused["locked"] = "insufficient privileges"
    seen = look(warehouse, source("orders", schema="locked"), source("orders"))
    assert seen["sao.raw.orders"].token
    assert "insufficient privileges" in seen["sao.locked.orders"].error


def test_one_by_one_a_refused_table_harms_no_other(look):
    warehouse = Warehouse([Capability.TableLastModifiedMetadata])
    warehouse.times |= {("sao", "raw", name): NOON for name in ("orders", "locked", "absent")}
    warehouse.refused |= {"locked": "insufficient privileges", "absent": "404 Not found: Table sao:raw.absent"}
    seen = look(warehouse, source("locked"), source("absent"), source("orders"))
    assert seen["sao.raw.orders"].token
    assert "insufficient privileges" in seen["sao.raw.locked"].error
    assert DOES_NOT_EXIST in seen["sao.raw.absent"].error


def test_time_that_is_up_leaves_sources_for_the_next_tick(look):
    warehouse = Warehouse()
    warehouse.times["sao", "raw", "orders"] = NOON
    assert look(warehouse, source("orders"), deadline=0) == {}


UNSOUND = [
    ("sqlserver", "orders", "is the time of the last DDL, which misses inserts, updates and deletes"),
    ("fabric", "orders", "is the time of the last DDL, which misses inserts, updates and deletes"),
    ("redshift", "orders", "is the time of the last insert, which misses deletes"),
    ("teradata", "orders", "is the time of the last ALTER, which misses inserts, updates and deletes"),
    ("vertica", "orders", "is the time of its creation, which misses every later change"),
    ("exasol", "orders", "the last-modified time of exasol is not known to move with every change"),
    ("bigquery", "events_*", "the time of a BigQuery wildcard table is always now"),
]


@pytest.mark.parametrize(("adapter", "name", "reason"), UNSOUND, ids=[case[0] for case in UNSOUND])
def test_a_time_that_misses_changes_is_not_a_token_unless_the_user_says_so(look, adapter, name, reason):
    warehouse = Warehouse()
    warehouse.times["sao", "raw", name] = NOON
    doubted, trusted = source(name, label="doubted"), source(name, label="trusted", trust_metadata=True)
    seen = look(warehouse, doubted, trusted, adapter=adapter)
    assert (seen["sao.raw.doubted"].token, seen["sao.raw.doubted"].kind) == (None, ProbeKind.UNTRACKED)
    assert seen["sao.raw.doubted"].warning.startswith("raw.doubted (models/s.yml) has no 'loaded_at_field' or")
    assert reason in seen["sao.raw.doubted"].warning
    assert "trust_metadata: true" in seen["sao.raw.doubted"].warning
    assert seen["sao.raw.trusted"].loaded_at == NOON


@pytest.mark.parametrize(
    ("adapter", "name"), [("snowflake", "orders"), ("bigquery", "events_1"), ("databricks", "orders")]
)
def test_a_sound_time_needs_no_trust(look, adapter, name):
    warehouse = Warehouse()
    warehouse.times["sao", "raw", name] = NOON
    assert look(warehouse, source(name), adapter=adapter)[f"sao.raw.{name}"].token


def test_redshift_is_believed_where_it_shows_its_tables(look):
    warehouse = Warehouse()
    warehouse.use_show_apis = lambda: True
    warehouse.times["sao", "raw", "orders"] = NOON
    assert look(warehouse, source("orders"), adapter="redshift")["sao.raw.orders"].token


@pytest.mark.parametrize(("is_batched", "questions"), [(False, 3), (True, 2)])
def test_bigquery_is_asked_one_by_one_unless_it_can_batch_and_then_by_dataset(look, is_batched, questions):
    """Its batch is a loop that one missing table ends, or looks in the region of the first table only."""
    warehouse = Warehouse()
    warehouse.behavior.bigquery_use_batch_source_freshness.no_warn = is_batched
    sources = [source("a"), source("b"), source("a", schema="eu")]
    warehouse.times |= {("sao", s.schema, s.identifier): NOON for s in sources}
    assert all(seen.token for seen in look(warehouse, *sources, adapter="bigquery").values())
    assert len([asked for asked in warehouse.asked if isinstance(asked, set)]) == questions


@pytest.mark.parametrize(
    ("extra", "kind"),
    [
        ({"is_iceberg_format": True}, "iceberg table"),
        ({"metadata": {"Provider": "deltasharing"}}, "deltasharing table"),
        ({"metadata": {"Provider": "delta"}}, "table"),
    ],
)
def test_a_table_of_another_format_is_named_so(extra, kind):
    from dagster_sao.warehouse.dbt_private.adapter import _kind_of

    assert _kind_of(SimpleNamespace(**{"type": "table", "metadata": None, **extra})) == kind


@pytest.mark.parametrize("batch", [True, False])
def test_databases_are_asked_at_once_and_then_schemas(look, monkeypatch, batch):
    """Each question waits for the other: asked one after another, both would break off."""
    warehouse = Warehouse() if batch else Warehouse([Capability.TableLastModifiedMetadata])
    warehouse.times |= {("sao", "raw", "orders"): NOON, ("other", "raw", "orders"): LATER}
    both = threading.Barrier(2, timeout=20)
    monkeypatch.setattr(warehouse, "refuse", lambda *_: both.wait())
    seen = look(warehouse, source("orders"), source("orders", "other"), threads=2)
    assert (seen["sao.raw.orders"].loaded_at, seen["other.raw.orders"].loaded_at) == (NOON, LATER)
