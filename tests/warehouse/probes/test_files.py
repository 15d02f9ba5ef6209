"""dbt-duckdb sources in files: their stat, never their content, never a connection."""

from __future__ import annotations

import os
import time

import pytest
from dbt.adapters.duckdb.connections import DuckDBConnectionManager

from dagster_sao.warehouse import ProbeKind, SourceProber
from dagster_sao.warehouse.probes.files import _read_paths
from dagster_sao.warehouse.relations.file_stat import SETTLED_AFTER_NS


def later() -> int:
    return time.time_ns() + SETTLED_AFTER_NS


@pytest.fixture
def token(shop):
    data = shop.folder / "data"
    for name in ("customers.csv", "zip_1.csv", "zip_2.csv", ".hidden.json", "a/b/x.parquet", "delta/_delta_log/0.json"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_text(f"{name}\n")

    def look(label):
        seen = shop.observe(label, prober=SourceProber(shop.session(), now_ns=later))[label]
        assert (seen.kind, seen.error, seen.warning) == (ProbeKind.FILE, None, None)
        return seen.token

    return look


CHANGES = [
    # source, file that is written, whether the source reads it
    ("files.customers", "customers.csv", True),
    ("files.customers", "zip_1.csv", False),
    ("files.by_identifier", "zip_2.csv", True),
    ("files.by_identifier", "zip_3.csv", True),
    ("files.by_identifier", "zip.csv", False),
    ("files.by_config", "customers.csv", True),
    ("files.function", "customers.csv", True),
    ("files.function", "zip_3.csv", True),
    ("files.function", "other.csv", False),
    ("files.deep", "a/b/x.parquet", True),
    ("files.deep", "new.parquet", True),
    ("files.deep", "a/b/x.csv", False),
    ("files.hidden", ".hidden.json", True),
    ("files.folder", "delta/_delta_log/1.json", True),
]


@pytest.mark.parametrize(("label", "name", "reads"), CHANGES)
def test_a_written_file_changes_the_token_of_who_reads_it(shop, token, label, name, reads):
    before = token(label)
    (shop.folder / "data" / name).write_text("another text\n")
    assert (token(label) != before) is reads


def test_a_removed_file_changes_the_token(shop, token):
    before = token("files.by_identifier")
    (shop.folder / "data" / "zip_2.csv").unlink()
    assert token("files.by_identifier") != before


def test_a_file_replaced_by_one_of_equal_size_and_time_changes_the_token(shop, token):
    before = token("files.customers")
    old = shop.folder / "data" / "customers.csv"
    new = old.with_suffix(".new")
    new.write_text("CUSTOMERS.CSV\n")
    os.utime(new, ns=(old.stat().st_atime_ns, old.stat().st_mtime_ns))
    new.replace(old)
    assert token("files.customers") != before


def test_nothing_written_keeps_the_token_and_opens_nothing(shop, token):
    labels = ["files.customers", "files.by_identifier", "files.function", "files.deep", "files.hidden"]
    assert [token(label) for label in labels] == [token(label) for label in labels]
    assert shop.opened == []


def test_a_file_that_may_still_change_unseen_gets_a_token_that_is_not_kept(shop, token):
    file = shop.folder / "data" / "customers.csv"
    os.utime(file, ns=(0, 1_700_000_000 * 10**9))  # whole seconds: a coarse clock
    changed = file.stat().st_ctime_ns
    source = [shop.source("files.customers")]
    fresh = dict(SourceProber(shop.session(), now_ns=lambda: changed + SETTLED_AFTER_NS - 1).observe(source))
    assert fresh[source[0].unique_id].token != token("files.customers")


def test_relative_paths_start_at_the_project_and_loaded_at_wins(shop):
    (shop.folder / "data" / "loads.csv").write_text("loaded_at\n2026-01-01 00:00:00\n2026-01-02 00:00:00\n")
    seen = shop.observe("files.with_field", "files.with_query")
    assert {o.token for o in seen.values()} == {"2026-01-02T00:00:00"}
    assert seen["files.with_field"].kind is ProbeKind.FIELD
    assert seen["files.with_query"].kind is ProbeKind.QUERY


@pytest.mark.parametrize(
    "label", ["files.customers", "files.deep", "files.folder", "files.with_field", "files.with_query"]
)
def test_no_file_is_an_error_with_its_remedy(shop, label):
    seen = shop.observe(label)[label]
    assert seen.token is None
    assert seen.error.startswith(f"{label} (models/sources.yml) reads ")
    assert seen.error.endswith(", which matches no file. Add the file, or correct external_location")


@pytest.mark.parametrize(
    ("label", "why"),
    [
        ("files.remote", "reads the remote 's3://bucket/remote.parquet'"),
        ("files.web", "reads the remote read_csv('https://example.com/x.csv')"),
        ("files.joined", "whose files cannot be told from its text"),
        ("files.plugged", "is loaded by the dbt-duckdb plugin 'excel'"),
    ],
)
def test_what_cannot_be_followed_is_untracked_and_says_what_helps(shop, label, why):
    seen = shop.observe(label)[label]
    assert (seen.token, seen.kind, seen.error) == (None, ProbeKind.UNTRACKED, None)
    assert why in seen.warning
    assert "always considered fresh" in seen.warning
    assert shop.opened == []


def test_a_plugin_source_is_never_loaded_by_a_look(shop, monkeypatch):
    """Once dbt has connected in this process, dbt-duckdb reads the spreadsheet and writes a table at every mention."""
    monkeypatch.setattr(DuckDBConnectionManager, "_ENV", Connected())
    seen = shop.observe("files.plugged", "files.plugged_with_query")
    assert seen["files.plugged_with_query"].token == "2026-02-01T00:00:00"


class Connected:
    handle_count = None

    def load_source(self, *_):
        pytest.fail("the plugin was asked to load its source")


@pytest.mark.parametrize(
    ("location", "paths"),
    [
        ("'a.csv'", ["a.csv"]),
        ("'dir/*.parquet'", ["dir/*.parquet"]),
        ("read_csv('a.csv', delim=';', columns={'x': 'INTEGER'})", ["a.csv"]),
        ("read_parquet(['a', 'b'], hive_partitioning=true)", ["a", "b"]),
        ("sqlite_scan('a.db', 't')", ["a.db", "a.db-wal", "a.db-journal"]),
        ("read_duckdb('a.duckdb', table_name='t')", ["a.duckdb", "a.duckdb.wal"]),
        ("something_new('a.bin')", None),
        ("read_json_auto('a.json')", ["a.json"]),
        ("parquet_scan('a.parquet')", ["a.parquet"]),
        ("read_xlsx('a.xlsx')", ["a.xlsx"]),
        ("(select * from read_json('x.json') union all select * from 'y.csv')", ["x.json", "y.csv"]),
        ("read_csv(getvariable('path'))", None),
        ("read_csv(['a.csv', getvariable('b')])", None),
        ("orders", None),
        ("(select 1)", None),
        ("read_csv('a.csv'", None),
    ],
)
def test_only_paths_that_are_all_of_what_is_read_are_followed(location, paths):
    assert _read_paths(location) == paths
