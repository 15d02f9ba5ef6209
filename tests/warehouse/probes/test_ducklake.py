"""A DuckLake through the real adapter, attached to DuckDB and as its main database."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from dagster_sao.warehouse import ProbeKind
from tests.support.environments import DUCKLAKE, environment_for, own_python

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent / "ducklake"
ON_ORDERS = {"raw.orders", "raw.same_table"}


@pytest.fixture(scope="module", params=[pytest.param("attached", marks=pytest.mark.rare), "main"])
def seen(request, tmp_path_factory):
    """What was said of each source after each step of `ducklake/drive.py`."""
    python = own_python(request.config.cache, "ducklake", *DUCKLAKE)
    folder = tmp_path_factory.mktemp("ducklake")
    shutil.copytree(HERE / "project", folder / "shop")
    command = [python, HERE / "drive.py", folder / "shop", request.param, folder / "seen.json"]
    subprocess.run(command, env=environment_for(folder), cwd=folder, check=True, timeout=300)
    return json.loads((folder / "seen.json").read_text())


def moved(seen, before, after):
    return {label for label, one in seen[after].items() if one["token"] != seen[before][label]["token"]}


def test_a_table_has_its_last_snapshot_as_token(seen):
    orders = seen["first"]["raw.orders"]
    assert (orders["kind"], orders["error"], orders["warning"]) == (ProbeKind.DUCKLAKE, None, None)
    assert " snapshot 3 of 20" in orders["token"]


@pytest.mark.parametrize(
    ("before", "after", "labels"),
    [
        ("first", "unchanged", set()),
        ("unchanged", "insert", {*ON_ORDERS, "raw.dated"}),
        ("insert", "bulk insert", ON_ORDERS),
        ("bulk insert", "delete", ON_ORDERS),
        ("delete", "bulk delete", ON_ORDERS),
        ("bulk delete", "update", ON_ORDERS),
        ("update", "nothing", set()),
        ("nothing", "column", ON_ORDERS),
        ("column", "odd", {"raw.odd"}),
        ("odd", "other", set()),
        ("other", "compacted", ON_ORDERS),  # the snapshots show deletions, once inlined and now in files, as new
        ("compacted", "drop", {"raw.dropped"}),
        ("drop", "again", {"raw.dropped"}),
        ("hole", "replaced", {*ON_ORDERS, "raw.dated"}),
    ],
)
@pytest.mark.parametrize("seen_freshly", ["", ", seen freshly"])
def test_a_change_moves_the_tokens_of_its_table_and_no_other(seen, before, after, labels, seen_freshly):
    assert moved(seen, before + seen_freshly, after + seen_freshly) == labels


def test_expired_snapshots_hide_nothing_from_who_saw_them(seen):
    assert moved(seen, "again", "expired") == set()


def test_what_expired_snapshots_did_is_unknown_to_who_did_not_see_them(seen):
    assert moved(seen, "again, seen freshly", "expired, seen freshly") >= {"raw.orders", "raw.still", "raw.odd"}


@pytest.mark.parametrize(("before", "after"), [("expired", "touched and expired"), ("touched and expired", "hole")])
@pytest.mark.parametrize("seen_freshly", ["", ", seen freshly"])
def test_a_change_in_a_snapshot_that_expired_since_is_not_missed(seen, before, after, seen_freshly):
    assert moved(seen, before + seen_freshly, after + seen_freshly) >= {*ON_ORDERS, "raw.still"}


def test_a_recreated_table_has_another_token_than_the_dropped_one(seen):
    assert seen["again"]["raw.dropped"]["token"] != seen["compacted"]["raw.dropped"]["token"]


@pytest.mark.parametrize(
    ("step", "label"), [("nothing yet", "raw.orders"), ("first", "raw.never"), ("drop", "raw.dropped")]
)
def test_a_missing_table_is_an_error(seen, step, label):
    assert seen[step][label]["error"] == (
        f"{label} (models/sources.yml) does not exist in the warehouse."
        " Create it, or correct the source's schema and identifier"
    )


@pytest.mark.parametrize(("step", "label"), [("first", "raw.recent"), ("swapped", "raw.orders")])
def test_a_view_is_untracked(seen, step, label):
    view = seen[step][label]
    assert (view["kind"], view["token"], view["error"]) == (ProbeKind.UNTRACKED, None, None)
    assert view["warning"].startswith(f"{label} is a view with no 'loaded_at_field'")


def test_loaded_at_wins_over_snapshots(seen):
    assert (seen["first"]["raw.dated"]["kind"], seen["first"]["raw.dated"]["token"]) == (
        ProbeKind.FIELD,
        "2026-01-01T10:00:00.123456",
    )
