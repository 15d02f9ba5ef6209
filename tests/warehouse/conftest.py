"""One dbt project for all, parsed once; a copy of its folder and a warehouse for each test."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pytest

from dagster_sao.core.manifest.read_graph import build_graph
from dagster_sao.warehouse import SourceProber, WarehouseSession

# Scripts for environments of their own, which the tests beside them make.
collect_ignore_glob = ["probes/ducklake/*", "probes/snowflake/*"]

PROJECT = Path(__file__).parent / "project"


def parse(folder: Path, target: str) -> dict:
    # In a process of its own: in this one a database of another test's dbt may still be open, with other plugins.
    command = ["parse", "--project-dir", str(folder), "--profiles-dir", str(folder), "--target", target]
    subprocess.run([sys.executable, "-m", "dbt.cli.main", "--quiet", *command], check=True)
    return json.loads((folder / "target" / "manifest.json").read_text())


@pytest.fixture(scope="session")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parsed") / "shop"
    shutil.copytree(PROJECT, folder)
    return parse(folder, "duck")


@dataclass
class Shop:
    """A project folder with its warehouse, and a prober whose connections are counted."""

    folder: Path
    manifest: dict
    opened: list[WarehouseSession] = field(default_factory=list)

    @property
    def database(self) -> Path:
        return self.folder / "shop.duckdb"

    def write(self, *statements: str) -> None:
        with closing(duckdb.connect(str(self.database))) as connection:
            for statement in statements:
                connection.execute(statement)

    def source(self, label: str):
        return self.sources(label)[0]

    def sources(self, *labels: str):
        by_label = {s.label: s for s in build_graph(self.manifest).sources.values()}
        return [by_label[label] for label in labels]

    def session(self, target: str = "duck", **kwargs) -> WarehouseSession:
        session = WarehouseSession.open(
            project_dir=self.folder, profiles_dir=self.folder, manifest=self.manifest, target=target, **kwargs
        )
        opened = session._adapter.open

        def counted() -> None:
            self.opened.append(session)
            opened()

        session._adapter.open = counted
        return session

    def observe(self, *labels: str, prober: SourceProber | None = None, **kwargs):
        sources = self.sources(*labels)
        prober = prober or SourceProber(self.session())
        names = {s.unique_id: s.label for s in sources}
        return {names[uid]: seen for uid, seen in prober.observe(sources, **kwargs)}


@pytest.fixture
def shop(tmp_path, manifest, monkeypatch):
    folder = tmp_path / "shop"
    shutil.copytree(PROJECT, folder)
    (folder / "data").mkdir()
    monkeypatch.chdir(tmp_path)  # nothing may depend on the working directory
    shop = Shop(folder, manifest)
    shop.write((folder / "warehouse.sql").read_text())
    return shop
