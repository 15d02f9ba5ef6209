"""Half an hour of `dagster dev` with a change every few seconds: nothing is missed, and nothing piles up.

`DAGSTER_SAO_SOAK_MINUTES=30` is how long; 5 minutes show whether it works at all.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import duckdb
import psutil
import pytest

from dagster_sao.orchestration.dbt.invocation_folders import DEFAULT_KEPT
from tests.support.dagster_dev import FRESHNESS_SENSOR, SENSORS, DagsterDev, dagster_dev
from tests.support.polling import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.rare, pytest.mark.xdist_group("dagster_dev")]

MINUTES = float(os.environ.get("DAGSTER_SAO_SOAK_MINUTES", "5"))
SEED = int(os.environ.get("DAGSTER_SAO_SOAK_SEED", "2026"))
CHANGES = ("append", "append", "append", "update", "delete", "edit", "rates", "nothing")
CHANGED = {
    "append": ("customers", "orders", "order_items", "payments", "refunds", "supplies", "web_sessions"),
    "update": ("customers", "orders", "order_items", "payments"),
    "delete": ("order_items", "refunds"),
}
EDITED = "models/marts/core/dim_stores.sql"
RATE = "tax_rates.rate"
# Tables that wait for nothing, keep no old rows and read no clock: they are what a full build would make.
TABLES = (
    "analytics.customer_lifetime_value",
    "analytics.dim_customers",
    "analytics.dim_products",
    "analytics.dim_stores",
    "analytics.fct_order_items",
    "analytics.support_load",
    "analytics_intermediate.int_order_totals",
)
# The folders that are kept, of good and of failed runs, and what dbt and Dagster always have.
MOST_ENTRIES = 2 * DEFAULT_KEPT + 20
# A leak of one thing in each run would be far above.
DESCRIPTORS_MORE = 20
MEMORY_MORE = 1.15


@dataclass(frozen=True)
class _Sample:
    """What `dagster dev` holds at a moment."""

    megabytes: float
    """Of the code server, where this package lives."""
    descriptors: int
    entries: int
    """In dbt's folder `target` and in the folder for temporary files."""


@pytest.fixture
def dev(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DagsterDev]:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    with dagster_dev(tmp_path, interval_seconds=5) as running:
        yield running


def test_nothing_is_missed_and_nothing_piles_up_under_changes_every_few_seconds(dev: DagsterDev) -> None:
    assert dev.run_after(0).status == "SUCCESS"
    changes = _Changes(dev, random.Random(SEED))
    samples = _live(dev, changes)
    _wait_until_quiet(dev)
    print(f"\n{changes.count} changes, {len(dev.client.runs())} runs")  # figures for whoever looks
    for sample in samples:
        print(sample)
    failed = [run for run in dev.client.runs() if run.status != "SUCCESS"]
    assert failed == [], [dev.client.run_messages(run.id)[-5:] for run in failed[:3]]
    ticks = [tick for sensor in SENSORS for tick in dev.client.ticks(sensor, limit=2000)]
    assert [tick.error for tick in ticks if tick.error] == []
    assert _tables(dev.warehouse) == _tables(_built_anew(dev))
    _assert_flat(samples)


class _Changes:
    """Changes of data and code, one after another, drawn at random."""

    def __init__(self, dev: DagsterDev, drawn: random.Random) -> None:
        self.count = 0
        self._dev = dev
        self._drawn = drawn
        self._code = RATE

    def make_one(self) -> None:
        """Make a change, and let the freshness sensor look once before the next one."""
        moment = time.time()
        self.count += 1
        kind = self._drawn.choice(CHANGES)
        if kind == "edit":
            self._edit()
        elif kind == "rates":
            self._dev.client.launch("fx/exchange_rates")
        elif kind in CHANGED:
            self._dev.load(kind, self._drawn.choice(CHANGED[kind]), "--rows", "3", "--wait", "110")
        self._dev.ticks_after(moment, FRESHNESS_SENSOR)

    def _edit(self) -> None:
        """Write code that gives other rows."""
        code = f"{RATE} + 0.{self._drawn.randint(1000, 9999)}"
        self._dev.edit(EDITED, self._code, code)
        self._code = code


def _live(dev: DagsterDev, changes: _Changes) -> list[_Sample]:
    """Make changes until the time is over, and return a sample for each minute."""
    samples = []
    begin = time.monotonic()
    while (passed := time.monotonic() - begin) < MINUTES * 60:
        changes.make_one()
        if passed >= 60 * (len(samples) + 1):
            samples.append(_sample(dev))
    return samples


def _sample(dev: DagsterDev) -> _Sample:
    servers = [p for p in psutil.process_iter() if _is_code_server(p, dev)]
    folders = (dev.dbt_project / "target", dev.folder / "tmp")
    return _Sample(
        megabytes=max(p.memory_info().rss for p in servers) / 1e6,
        descriptors=max(p.num_fds() for p in servers),
        entries=sum(len([*folder.iterdir()]) for folder in folders),
    )


def _is_code_server(process: psutil.Process, dev: DagsterDev) -> bool:
    try:
        of_this = process.environ().get("DAGSTER_HOME") == dev.environment["DAGSTER_HOME"]
        return of_this and "grpc" in process.cmdline()
    except psutil.Error:
        return False


def _wait_until_quiet(dev: DagsterDev) -> None:
    """Wait until the sensors have looked at everything twice and no run came of it."""

    def is_quiet() -> bool:
        moment = time.time()
        dev.a_full_round(moment, 2)
        return all(run.is_finished and (run.ended_at or 0) < moment for run in dev.client.runs())

    wait_for("the runs to end", is_quiet, seconds=600)


def _built_anew(dev: DagsterDev) -> Path:
    """Return a copy of the warehouse in which plain dbt built the compared tables again."""
    copy = dev.folder / "data" / "anew" / dev.warehouse.name
    copy.parent.mkdir()
    shutil.copy(dev.warehouse, copy)
    names = [table.split(".")[1] for table in TABLES]
    done = subprocess.run(
        [Path(sys.executable).parent / "dbt", "run", "--target-path", copy.parent / "target", "--select", *names],
        cwd=dev.dbt_project,
        env={**dev.environment, "JAFFLE_SHOP_DB": str(copy)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return copy


def _tables(file: Path) -> dict[str, list[object]]:
    with duckdb.connect(str(file), read_only=True) as connection:
        return {table: connection.execute(f"from {table} order by all").fetchall() for table in TABLES}


def _assert_flat(samples: list[_Sample]) -> None:
    """Compare the last third of the time with the third after the start."""
    third = len(samples) // 3
    middle, last = samples[third : 2 * third], samples[-third:]
    assert median(s.megabytes for s in last) <= MEMORY_MORE * median(s.megabytes for s in middle)
    assert median(s.descriptors for s in last) <= DESCRIPTORS_MORE + median(s.descriptors for s in middle)
    assert max(s.entries for s in samples) <= MOST_ENTRIES
