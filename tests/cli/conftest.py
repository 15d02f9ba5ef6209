"""The corner shop after an eventful day, for all tests of this folder to look at."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from dagster_sao import DbtBuildFailed
from tests.cli.corner_shop import Shop, open_shop


@dataclass
class Day:
    """What was planned and built in turn, and what was left in the target folder each time."""

    shop: Shop
    seen: dict[str, Any] = field(default_factory=dict)


@pytest.fixture(scope="session")
def opened(tmp_path_factory):
    """The corner shop before anything happened."""
    return open_shop(tmp_path_factory.mktemp("corner_shop"))


@pytest.fixture(autouse=True)
def environment(opened, monkeypatch):
    """The variables that the corner shop needs, for each test of this folder and no other."""
    for name, value in opened.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def day(opened):
    """A plan, a first build, the same again, new rows, and a model that breaks."""
    shop, day = opened, Day(opened)
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
    return day
