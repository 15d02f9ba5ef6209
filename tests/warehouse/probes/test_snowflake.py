"""The real Snowflake adapter against a local fakesnow server. The server's times are a simulation, see its module."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from dagster_sao.warehouse import ProbeKind
from tests.support.environments import SNOWFLAKE, environment_for, own_python
from tests.support.fakesnow_server import fakesnow_server

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent / "snowflake"


@pytest.fixture(scope="module")
def seen(request, tmp_path_factory):
    """What was said of each source after each step of `snowflake/drive.py`."""
    python = own_python(request.config.cache, "snowflake", *SNOWFLAKE)
    folder = tmp_path_factory.mktemp("snowflake")
    shutil.copytree(HERE / "project", folder / "shop")
    with fakesnow_server(python, folder) as port:
        command = [python, HERE / "drive.py", folder / "shop", str(port), folder / "seen.json"]
        variables = environment_for(folder, FAKESNOW_PORT=str(port))
        subprocess.run(command, env=variables, cwd=folder, check=True, timeout=300)
    return json.loads((folder / "seen.json").read_text())


def moved(seen, before, after):
    return {label for label, one in seen[after].items() if one["token"] != seen[before][label]["token"]}


def test_a_table_has_its_last_modified_time_as_token(seen):
    orders = seen["first"]["raw.orders"]
    assert (orders["kind"], orders["error"], orders["warning"]) == (ProbeKind.METADATA, None, None)
    assert orders["loaded_at"].startswith(orders["token"][:10])


def test_nothing_moves_while_nothing_is_changed(seen):
    assert moved(seen, "first", "unchanged") == set()


ON_ORDERS = {"raw.orders", "raw.same_table"}


@pytest.mark.parametrize(
    ("before", "after", "labels"),
    [
        ("unchanged", "insert", {*ON_ORDERS, "raw.dated", "raw.queried"}),
        ("insert", "delete", ON_ORDERS),  # behind the newest row
        ("delete", "update", ON_ORDERS),
        ("update", "truncate", {*ON_ORDERS, "raw.dated", "raw.queried"}),
        ("truncate", "column", ON_ORDERS),
        ("column", "mixed", {"raw.mixed"}),
        ("mixed", "second", {"second.orders"}),
        ("second", "drop", {"raw.dropped"}),
        ("drop", "again", {"raw.dropped"}),
    ],
)
def test_a_change_moves_the_tokens_of_its_table_and_no_other(seen, before, after, labels):
    assert moved(seen, before, after) == labels


def test_a_recreated_table_has_another_token_than_the_dropped_one(seen):
    assert seen["again"]["raw.dropped"]["token"] != seen["second"]["raw.dropped"]["token"]


@pytest.mark.parametrize(("step", "label"), [("first", "raw.never"), ("drop", "raw.dropped")])
def test_a_missing_table_is_an_error(seen, step, label):
    assert seen[step][label]["error"] == (
        f"{label} (models/sources.yml) does not exist in the warehouse."
        " Create it, or correct the source's schema and identifier"
    )


def test_a_missing_database_is_an_error_of_its_own_sources(seen):
    error = seen["first"]["nowhere.orders"]["error"]
    assert error.startswith("nowhere.orders (models/sources.yml) has a last-modified time that cannot be read: ")
    assert error.endswith("read the metadata of database nowhere, or give the source a loaded_at_field")


def test_a_view_is_untracked(seen):
    view = seen["first"]["raw.recent"]
    assert (view["kind"], view["token"], view["error"]) == (ProbeKind.UNTRACKED, None, None)
    assert view["warning"].startswith("raw.recent is a view with no 'loaded_at_field'")


def test_an_opted_out_source_is_untracked(seen):
    assert seen["first"]["raw.optional"]["kind"] == ProbeKind.UNTRACKED


def test_loaded_at_is_exact(seen):
    first = seen["first"]
    assert first["raw.dated"]["token"] == first["raw.queried"]["token"] == "2026-01-01T10:00:00.123456"
    assert (first["raw.dated"]["kind"], first["raw.queried"]["kind"]) == (ProbeKind.FIELD, ProbeKind.QUERY)
