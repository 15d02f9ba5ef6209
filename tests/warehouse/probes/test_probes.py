"""Which probe answers for which source, in the order of the semantics."""

from __future__ import annotations

import pytest

from dagster_sao.core.manifest.graph import Source
from dagster_sao.warehouse import ProbeKind, SourceProber

LOADED_AT = "loaded_at"
KINDS = [
    ("queries.this", "duckdb", LOADED_AT),
    ("queries.this", "postgres", LOADED_AT),
    ("fields.exact", "duckdb", LOADED_AT),
    ("inherited.query_wins", "duckdb", LOADED_AT),
    ("inherited.without_threshold", "duckdb", LOADED_AT),  # freshness: null, but it has a field
    ("plain.orders", "duckdb", ProbeKind.DUCKDB),
    ("plain.orders", "trino", ProbeKind.UNTRACKED),
    ("plain.orders", "postgres", ProbeKind.POSTGRES),
    ("plain.orders", "redshift", ProbeKind.UNTRACKED),
    ("plain.opted_out", "postgres", ProbeKind.UNTRACKED),
    ("plain.opted_out", "duckdb", ProbeKind.UNTRACKED),
    ("files.customers", "duckdb", ProbeKind.FILE),
    ("files.by_config", "duckdb", ProbeKind.FILE),
    ("files.with_field", "duckdb", LOADED_AT),
    ("files.with_query", "duckdb", LOADED_AT),
    ("files.plugged", "duckdb", ProbeKind.UNTRACKED),
    ("files.plugged_with_query", "duckdb", LOADED_AT),
    ("lake.events", "duckdb", ProbeKind.DUCKDB),
]


def prober_for(shop, adapter="duckdb"):
    session = shop.session()
    session._adapter.type = adapter
    return SourceProber(session)


@pytest.mark.parametrize(("label", "adapter", "kind"), KINDS)
def test_the_first_way_of_knowing_that_applies_is_taken(shop, label, adapter, kind):
    assert prober_for(shop, adapter).probe_of(shop.source(label)).kind == kind


def test_a_freshness_that_is_null_only_because_nothing_is_set_is_no_opt_out(shop):
    """Other writers of manifests than dbt-core write the key at all times."""
    source = Source(
        "source.p.raw.x", "raw", "x", "models/s.yml", definition={"freshness": None, "unrendered_config": {}}
    )
    assert prober_for(shop).probe_of(source).kind == ProbeKind.DUCKDB


def test_a_node_of_another_project_is_looked_at_like_a_table(shop):
    node = Source("model.other.orders", "other", "orders", "", "shop", "plain", "orders", '"shop"."plain"."orders"')
    ((unique_id, seen),) = SourceProber(shop.session()).observe([node])
    assert unique_id == "model.other.orders"
    assert seen.token == shop.observe("plain.orders")["plain.orders"].token


def test_an_opted_out_source_says_so(shop):
    seen = shop.observe("plain.opted_out")["plain.opted_out"]
    assert seen.token is None
    assert seen.warning == (
        "plain.opted_out (models/sources.yml) has 'freshness: null' and no 'loaded_at_field' or 'loaded_at_query',"
        " so it is always considered fresh. Give it one of them to have it tracked"
    )


def test_motherduck_is_not_scanned_at_every_look(shop):
    session = shop.session()
    session._adapter._config.credentials.path = "md:shop"
    prober = SourceProber(session)
    assert shop.observe("plain.orders", prober=prober)["plain.orders"].kind is ProbeKind.UNTRACKED
    assert shop.opened == []


def test_what_needs_no_warehouse_comes_first(shop):
    (shop.folder / "data" / "customers.csv").write_text("x\n")
    sources = shop.sources("fields.exact", "plain.orders", "files.customers", "plain.opted_out")
    order = [uid.split(".")[-1] for uid, _ in SourceProber(shop.session()).observe(sources)]
    assert order == ["opted_out", "customers", "orders", "exact"]


RANKS = [
    "LoadedAtProbe", "OptedOutProbe", "FileProbe", "DuckLakeProbe", "DuckDBContentProbe", "PostgresProbe", "MetadataProbe",
    "UntrackedProbe",
]  # fmt: skip
TURNS = [
    "OptedOutProbe", "UntrackedProbe", "FileProbe", "DuckLakeProbe", "DuckDBContentProbe", "PostgresProbe", "MetadataProbe",
    "LoadedAtProbe",
]  # fmt: skip
WITNESSES = ["FileProbe", "DuckLakeProbe", "PostgresProbe", "MetadataProbe"]


def test_probes_answer_by_rank_and_run_by_price(shop):
    prober = SourceProber(shop.session())
    seen = [[type(probe).__name__ for probe in probes] for probes in (prober._order, prober._turns, prober._witnesses)]
    assert seen == [RANKS, TURNS, WITNESSES]
