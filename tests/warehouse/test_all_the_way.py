"""From a change in the warehouse to the rows of the models: both sensors, the runs they ask for, dbt and its adapter."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.environments import DUCKLAKE, SNOWFLAKE, environment_for, own_python
from tests.support.fakesnow_server import fakesnow_server

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
ALL = ["all_orders", "item_count", "order_count", "order_value"]
BELOW_ORDERS = ["order_count", "order_value"]
TIMEOUT_SECONDS = 600


@pytest.fixture(scope="module", params=["ducklake_attached", "ducklake_main", "snowflake"])
def story(request, tmp_path_factory):
    """What became of each step of `tests/support/driven_project.py`."""
    folder = tmp_path_factory.mktemp(request.param)
    shutil.copytree(HERE / "orders_project", folder / "shop")
    if request.param == "snowflake":
        python = own_python(request.config.cache, "snowflake", *SNOWFLAKE)
        with fakesnow_server(python, folder) as port:
            build(python, "snowflake", folder, str(port), FAKESNOW_PORT=str(port))
    else:
        build(own_python(request.config.cache, "ducklake", *DUCKLAKE), "ducklake", folder, request.param)
    return json.loads((folder / "seen.json").read_text())


def build(python, warehouse, folder, argument, **variables):
    command = [python, HERE / "probes" / warehouse / "build.py", folder / "shop", argument, folder / "seen.json"]
    subprocess.run(command, env=environment_for(folder, **variables), cwd=folder, check=True, timeout=TIMEOUT_SECONDS)


def test_the_first_ticks_ask_for_one_run_that_builds_everything(story):
    first = story["first"]
    assert first["said"] == "3 of 3 sources have new data: raw.orders, raw.items, raw.prices."
    assert first["asked"] == [ALL]
    assert set(first["reasons"].values()) == {"Not built before in this environment"}
    assert first["runs"] == [{"success": True, "built": ALL}]
    assert first["rows"] == {
        "all_orders": [[1, 1]],
        "item_count": [[1]],
        "order_count": [[1]],
        "order_value": [[10]],
    }


@pytest.mark.parametrize("step", ["unchanged", "after orders", "after dropped model"])
def test_what_is_up_to_date_is_reused(story, step):
    assert story[step]["said"] == "0 of 3 sources have new data."
    assert (story[step]["noticed"], story[step]["asked"]) == ({}, [])


@pytest.mark.parametrize(
    ("step", "built", "changed", "rows"),
    [
        ("orders", BELOW_ORDERS, "all_orders", {"order_count": [[2]], "order_value": [[20]]}),
        ("prices", ["order_value"], "raw.prices", {"order_value": [[30]]}),
    ],
)
def test_new_rows_of_a_source_build_the_tables_below_it_and_nothing_else(story, step, built, changed, rows):
    assert story[step]["said"] == f"1 of 3 sources have new data: raw.{step}."
    assert story[step]["asked"] == [built]
    assert set(story[step]["reasons"].values()) == {f"New changes detected: {changed}"}
    assert story[step]["runs"] == [{"success": True, "built": built}]
    assert {name: story[step]["rows"][name] for name in rows} == rows


@pytest.mark.parametrize(
    ("step", "before", "name"),
    [("dropped model", "prices", "order_count"), ("dropped view", "after dropped model", "all_orders")],
)
def test_a_dropped_relation_is_noticed_and_nothing_else_is_built(story, step, before, name):
    dropped = story[step]
    ((noticed, message),) = dropped["noticed"].items()
    assert noticed == name
    assert message.replace('"', "").lower().endswith(f".shop.{name} no longer exists")
    assert (dropped["asked"], dropped["reasons"]) == ([[name]], {name: message})
    assert dropped["runs"] == [{"success": True, "built": [name]}]
    assert dropped["rows"] == story[before]["rows"]


@pytest.mark.parametrize("step", ["dropped source", "after dropped source"])
def test_a_dropped_source_is_one_sentence(story, step):
    assert story[step]["said"].endswith("; 1 failing: raw.items.")
    (sentence,) = story[step]["warnings"]
    assert sentence == (
        "raw.items (models/sources.yml) does not exist in the warehouse."
        " Create it, or correct the source's schema and identifier"
    )


def test_a_dropped_source_rebuilds_nothing(story):
    assert story["dropped source"]["asked"] == []
    assert story["dropped source"]["rows"] == story["dropped view"]["rows"]


def test_other_sources_go_on_while_one_is_dropped(story):
    after = story["after dropped source"]
    assert after["runs"] == [{"success": True, "built": BELOW_ORDERS}]
    assert (after["rows"]["order_count"], after["rows"]["order_value"]) == ([[3]], [[45]])
