"""What of a profile changes the rows that SQL gives, read without a connection."""

from __future__ import annotations

import pytest

from dagster_sao.warehouse.profiles import place_of, session_settings

PROFILES = """
shop:
  target: {target}
  outputs:
    dev:
      type: duckdb
      path: shop.duckdb
      threads: 4
      external_root: files
      settings: {{TimeZone: {zone}, memory_limit: 1GB, s3_secret_access_key: secret}}
    prod: {{type: postgres, host: h, user: u, password: p, port: 5432, dbname: d, schema: s, search_path: a, role: r}}
"""
DEV = {"external_root": "files", "settings.TimeZone": "UTC"}


@pytest.fixture
def read(tmp_path):
    (tmp_path / "dbt_project.yml").write_text("{name: shop, version: 1.0.0, profile: shop}")

    def read(chosen=None, profile="shop", **filled):
        text = PROFILES.format(**{"target": "dev", "zone": "UTC", **filled})
        (tmp_path / "profiles.yml").write_text(text)
        return session_settings(tmp_path, tmp_path, profile, chosen, {})

    return read


def test_what_changes_rows_is_told_from_sizes_and_secrets(read):
    assert read() == DEV
    assert read("prod") == {"search_path": "a", "role": "r"}


@pytest.mark.parametrize(
    ("filled", "zone"),
    [({"zone": "\"{{ env_var('ZONE', 'Asia/Tokyo') }}\""}, "Asia/Tokyo"), ({"target": "\"{{ 'dev' }}\""}, "UTC")],
)
def test_dbt_is_asked_for_what_the_file_computes(read, filled, zone):
    assert read(**filled) == {**DEV, "settings.TimeZone": zone}


def test_what_duckdb_is_opened_with_counts_without_secrets(tmp_path):
    (tmp_path / "dbt_project.yml").write_text("{name: shop, version: 1.0.0, profile: shop}")
    (tmp_path / "profiles.yml").write_text(
        """
shop:
  target: dev
  outputs:
    dev:
      type: duckdb
      path: shop.duckdb
      config_options: {default_null_order: nulls_first, threads: 2}
      attach: [{path: other.duckdb, alias: other}, {path: 'md:shop?motherduck_token=abc'}]
      plugins: [{module: rates, config: {rate: 2, password: abc}}]
"""
    )
    assert session_settings(tmp_path, tmp_path, "shop", None, {}) == {
        "attach.0.alias": "other",
        "attach.0.path": "other.duckdb",
        "attach.1.path": "md:shop",
        "config_options.default_null_order": "nulls_first",
        "plugins.0.config.rate": 2,
        "plugins.0.module": "rates",
    }


def test_a_profile_that_cannot_be_read_says_nothing_here(read, tmp_path):
    assert read("none") == {}
    assert read(profile="none") == {}
    assert read(zone="[") == {}
    assert session_settings(tmp_path, tmp_path / "none", "shop", None, {}) == {}


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("shop.duckdb", "{folder}/shop.duckdb"),
        ("md:shop?motherduck_token=secret", "md:shop"),
        (":memory:", ":memory:"),
    ],
)
def test_the_place_of_a_database_is_its_path_without_options(tmp_path, path, place):
    (tmp_path / "dbt_project.yml").write_text("{name: shop, version: 1.0.0, profile: shop}")
    (tmp_path / "profiles.yml").write_text(
        f"shop: {{target: dev, outputs: {{dev: {{type: duckdb, path: '{path}', schema: main}}}}}}"
    )
    assert place_of(tmp_path, tmp_path, None, None, {}) == place.format(folder=tmp_path.resolve())
