"""The example of docs/probes.md, installed as it stands there."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from dagster_sao.warehouse import ProbeKind, Source, SourceProber

PAGE = (Path(__file__).parents[3] / "docs" / "probes.md").read_text()


def block(language):
    return re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)[1]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    site = tmp_path / "site"
    metadata = site / "acme_probe-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-probe\nVersion: 1.0\n")
    name, value = re.search(r'(\w+) = "(\w+:\w+)"', block("toml")).groups()
    assert '"dagster_sao.probes"' in block("toml")
    (metadata / "entry_points.txt").write_text(f"[dagster_sao.probes]\n{name} = {value}\n")
    (site / "acme_probe.py").write_text(block("python"))
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(sys.modules, "acme_probe", raising=False)


def test_the_example_works(shop, installed):
    def look():
        return dict(prober.observe(sources))

    shop.write("create schema acme", "create table acme.loads (target varchar, load_id int, finished_at timestamptz)")
    sources = [
        Source(f"source.shop.{name}", "plain", name, "s.yml", "shop", "plain", name, definition={"meta": meta})
        for name, meta in {"orders": {"loader": "acme"}, "customers": {"loader": "acme"}, "odd": {}}.items()
    ]
    prober = SourceProber(shop.session())
    assert prober.problems == ()
    assert look()["source.shop.orders"].token == "never"
    shop.write("insert into acme.loads values ('plain.orders', 7, now())")
    seen = look()
    assert (seen["source.shop.orders"].token, seen["source.shop.orders"].kind) == ("7", "acme loads")
    assert seen["source.shop.customers"].token == "never"
    assert seen["source.shop.odd"].kind == ProbeKind.DUCKDB
    shop.write("drop table acme.loads")
    assert "has no readable acme.loads" in look()["source.shop.orders"].error
