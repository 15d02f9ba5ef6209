"""The lakes of a profile, before any of them is opened. The lakes themselves: test_ducklake.py."""

from __future__ import annotations

import pytest

from dagster_sao.warehouse import ProbeKind, SourceProber

LAKES = {
    "attached": "path: ':memory:', attach: [{path: 'ducklake:there/c.ducklake', alias: lake, options: {DATA_PATH: there/}}]",
    "unnamed": "path: ':memory:', attach: [{path: 'ducklake:there/lake.ducklake'}]",
    "sqlite": "path: ':memory:', attach: [{path: 'ducklake:sqlite:there/c.sqlite', alias: Lake}]",
    "postgres": "path: ':memory:', attach: [{path: 'ducklake:postgres:dbname=c host=db', alias: lake}]",
    "main": "path: 'ducklake:there/lake.ducklake'",
}


@pytest.fixture
def session(shop):
    profiles = shop.folder / "profiles.yml"
    targets = "".join(f"    {name}: {{type: duckdb, schema: main, {lake}}}\n" for name, lake in LAKES.items())
    profiles.write_text(f"{profiles.read_text().rstrip()}\n{targets}")
    return shop.session


@pytest.mark.parametrize("target", LAKES)
def test_a_lake_is_known_by_its_path_and_its_sources_by_their_database(shop, session, target):
    prober = SourceProber(session(target))
    assert prober.probe_of(shop.source("lake.events")).kind == ProbeKind.DUCKLAKE
    assert prober.probe_of(shop.source("plain.orders")).kind == ProbeKind.DUCKDB


@pytest.mark.parametrize("target", ["attached", "unnamed", "sqlite", "main"])
def test_a_lake_that_nobody_made_yet_is_not_made_by_looking(shop, session, target):
    seen = shop.observe("lake.events", prober=SourceProber(session(target)))["lake.events"]
    assert "does not exist in the warehouse" in seen.error
    assert not (shop.folder / "there").exists()


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("attached", "ducklake:{}/there/c.ducklake"),
        ("sqlite", "ducklake:sqlite:{}/there/c.sqlite"),
        ("postgres", "ducklake:postgres:dbname=c host=db"),
    ],
)
def test_a_lake_is_attached_for_reading_from_the_project_wherever_this_runs(shop, session, target, path):
    (attached,) = session(target)._adapter._config.credentials.attach
    assert (attached.path, attached.read_only) == (path.format(shop.folder), True)
    if target == "attached":
        assert attached.options == {"data_path": f"{shop.folder}/there/", "override_data_path": True}
