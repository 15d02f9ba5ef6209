"""A small dbt project of its own with a Dagster instance beside it, and what is done to it."""

from __future__ import annotations

import shutil
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest

from dagster_sao import DbtBuildFailed, StateAwareProject

PROJECT = Path(__file__).parent / "shop"
ORDERS, STG, TOTALS = "model.corner_shop.orders", "model.corner_shop.stg_orders", "model.corner_shop.totals"
FRAGILE, BELOW, RATES = "model.corner_shop.fragile", "model.corner_shop.below_fragile", "seed.corner_shop.rates"
RAW = "source.corner_shop.raw.orders"


@dataclass
class Shop:
    """Where everything is."""

    folder: Path

    @property
    def project_dir(self) -> Path:
        return self.folder / "project"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def database(self) -> Path:
        return self.folder / "shop.duckdb"

    @property
    def environment(self) -> dict[str, str]:
        """The variables that dbt and the command need."""
        return {"CORNER_SHOP_DATABASE": str(self.database), "DAGSTER_HOME": str(self.home), "DO_NOT_TRACK": "1"}

    def instance(self) -> dg.DagsterInstance:
        return dg.DagsterInstance.from_config(str(self.home))

    def project(self, instance: dg.DagsterInstance | None = None, **options) -> StateAwareProject:
        """Return the project as a process that starts now would see it."""
        return StateAwareProject(self.project_dir, instance=instance, **options)

    def load_orders(self, ident: int, day: int) -> None:
        with closing(duckdb.connect(str(self.database))) as connection:
            connection.execute(f"insert into raw.orders values ({ident}, 10, timestamp '2026-01-{day:02} 10:00:00')")

    def execute(self, statement: str) -> None:
        with closing(duckdb.connect(str(self.database))) as connection:
            connection.execute(statement)

    def rows(self, table: str) -> int:
        with closing(duckdb.connect(str(self.database), read_only=True)) as connection:
            return connection.execute(f"select count(*) from {table}").fetchone()[0]


def open_shop(folder: Path) -> Shop:
    """Return a new shop with one order."""
    shop = Shop(folder)
    shutil.copytree(PROJECT, shop.project_dir)
    shop.home.mkdir()
    (shop.home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with closing(duckdb.connect(str(shop.database))) as connection:
        connection.execute("create schema raw")
        connection.execute("create table raw.orders (id integer, amount integer, loaded_at timestamp)")
    shop.load_orders(1, 1)
    return shop


@dataclass
class Day:
    """What was planned and built in turn, and what was left in the target folder each time."""

    shop: Shop
    seen: dict[str, Any] = field(default_factory=dict)


def eventful_day(shop: Shop) -> Day:
    """Make a plan, a first build, the same again, new rows, and a model that breaks."""
    day = Day(shop)
    with pytest.MonkeyPatch.context() as patch, shop.instance() as instance:
        for name, value in shop.environment.items():
            patch.setenv(name, value)
        project = shop.project(instance)

        def events():
            return instance.event_log_storage.get_maximum_record_id() or 0

        def built(name, **options):
            day.seen[name] = project.build(**options)
            day.seen[f"{name} written"] = (shop.project_dir / "target" / "run_results.json").read_text()

        before = events()
        day.seen["plan"], day.seen["blind plan"] = project.plan(), project.plan(refresh_sources=False)
        day.seen["events of the plans"] = events() - before
        built("first")
        day.seen["plan of the same"] = project.plan()
        built("same")
        path = shop.project_dir / "target" / "run_results.json"
        path.rename(kept := path.with_name("kept"))
        path.mkdir()
        day.seen["not written"] = project.build("stg_orders", refresh_sources=False)
        path.rmdir()
        kept.rename(path)
        shop.load_orders(2, 2)
        day.seen["plan of new rows"] = project.plan("stg_orders+")
        day.seen["recorded plan of new rows"] = project.plan("stg_orders+", refresh_sources=False)
        built("new rows", select="orders totals")
        day.seen["explained"] = {name: project.explain(name) for name in ("orders", "totals", "stg_orders")}
        patch.setenv("CORNER_SHOP_NUMBER", "x")
        broken = shop.project(instance)
        with pytest.raises(DbtBuildFailed) as raised:
            broken.build(select=["fragile", "below_fragile"])
        day.seen["broken"] = raised.value
        day.seen["broken written"] = (shop.project_dir / "target" / "run_results.json").read_text()
        day.seen["broken explained"] = broken.explain("fragile")
        shop.execute("alter table main.rates rename to put_aside")
        before = events()
        day.seen["plan of a dropped table"] = broken.plan("rates")
        day.seen["recorded plan of a dropped table"] = broken.plan("rates", refresh_sources=False)
        day.seen["events of the plans"] += events() - before
        shop.execute("alter table main.put_aside rename to rates")
    return day
