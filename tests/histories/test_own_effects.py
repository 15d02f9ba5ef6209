"""Hooks that write to what models read: a model is not rebuilt for ever because of its own runs, and new data never waits."""

from __future__ import annotations

import pytest

from tests.histories.lab import TABLE, lab
from tests.support.postgres_server import database, shop_profile

pytestmark = pytest.mark.slow

SOURCES = "sources: [{name: raw, schema: raw, tables: [{name: orders}, {name: items}, {name: watermark}]}]"
SETUP = [
    "create schema raw",
    "create table raw.orders as select * from (values (1, 10), (2, 20)) t(id, amount)",
    "create table raw.items as select 1 as id",
    "create table raw.watermark as select 0 as wm",
]
NEW_ORDER, NEW_ITEM = "insert into raw.orders values (3, 30)", "insert into raw.items values (2)"
WATERMARK = {
    "models/sources.yml": SOURCES,
    "models/a.sql": (
        "{{ config(materialized='incremental', post_hook='update raw.watermark set wm = wm + 1') }}"
        " select id, amount from {{ source('raw', 'orders') }}, {{ source('raw', 'watermark') }}"
    ),
}
UPLOAD = "insert into {{ target.schema }}.run_log select '{{ invocation_id }}', 1"
RUN_LOG = {
    "models/sources.yml": SOURCES,
    "models/run_log.sql": "{{ config(materialized='incremental') }} select cast(null as text) as run, 0 as n limit 0",
    "models/runs.sql": TABLE + "select count(*) as n from {{ ref('run_log') }}",
    "models/b.sql": TABLE + "select count(*) as n from {{ source('raw', 'items') }}",
    "dbt_project.yml": (
        "{name: shop, version: 1.0.0, profile: shop, flags: {send_anonymous_usage_stats: false},"
        f' on-run-end: "{{% if execute and results %}}{UPLOAD}{{% endif %}}"}}'
    ),
}
OTHER_MODEL = {
    "models/sources.yml": SOURCES,
    "models/a.sql": TABLE + "select id, amount, 0 as seen from {{ source('raw', 'orders') }}",
    "models/b.sql": (
        "{{ config(materialized='table', post_hook=\"update {{ ref('a') }} set seen = seen + 1\") }}"
        " select count(*) as n from {{ source('raw', 'items') }}"
    ),
}


@pytest.fixture
def postgres(postgres_server):
    name = "own_effects"
    with database(postgres_server, name, *SETUP) as ask:
        yield shop_profile(postgres_server, name), ask


def builds(told, name):
    return sum(run.nodes.get(name, ("", ""))[0] == "build" for run in told)


def see_that_it_waits(case, name, parent, hook, *waits):
    """Let the waits pass one by one, each of which ends with one build."""
    for minutes in waits:
        what, why = case.decision(name)
        assert (what, why.split(" Builds again")[0]) == (
            "reuse",
            f"{parent} is changed by the runs of this model itself: {hook}?",
        )
        case.advance(minutes=minutes - 1)
        assert builds(case.cycle(), name) == 0
        case.advance(minutes=1.5)
        before = len(case.told)
        case.settle()
        assert builds(case.told[before:], name) == 1


def test_a_hook_that_moves_a_source_of_its_model_builds_it_once_more_and_then_seldom(tmp_path):
    with lab(tmp_path, WATERMARK, SETUP) as case:
        case.settle()
        assert builds(case.told, "a") == 2
        see_that_it_waits(case, "a", "raw.watermark", "its post-hook", 5, 10)
        case.sql(NEW_ORDER)
        (run, *_) = case.cycle()
        assert run.nodes["a"][0] == "build"


def test_on_postgres_too_a_hook_that_moves_a_source_of_its_model_is_no_loop(tmp_path, postgres):
    profile, ask = postgres
    with lab(tmp_path, {**WATERMARK, "profiles.yml": profile}, []) as case:
        case.settle()
        assert builds(case.told, "a") == 2
        see_that_it_waits(case, "a", "raw.watermark", "its post-hook", 5)
        ask(NEW_ORDER)
        (run, *_) = case.cycle()
        assert run.nodes["a"][0] == "build"


def test_a_log_of_runs_that_each_run_adds_to_is_no_loop(tmp_path, postgres):
    profile, ask = postgres
    with lab(tmp_path, {**RUN_LOG, "profiles.yml": profile}, []) as case:
        case.settle()
        case.advance(minutes=1)
        case.settle()  # what is there after the builds is seen
        ask(NEW_ITEM)
        before = len(case.told)
        for _ in range(4):
            case.cycle()
            case.advance(minutes=5.5)
        assert builds(case.told[before:], "runs") <= 3
        case.settle()
        assert builds(case.told[-1:], "b") == 0


@pytest.mark.parametrize(
    ("external_changes", "least", "most"),
    # Instead of 12 times: once for the item, once more, then after 5, 10 and 20 minutes.
    [("propagate", 2, 5), ("rebuild", 1, 1)],
)
def test_a_hook_that_changes_another_model_which_it_reads_is_no_loop(tmp_path, postgres, external_changes, least, most):
    profile, ask = postgres
    meta = f"{{{{ config(meta={{'dagster_sao': {{'external_changes': '{external_changes}'}}}}) }}}} "
    files = {**OTHER_MODEL, "models/a.sql": meta + OTHER_MODEL["models/a.sql"], "profiles.yml": profile}
    with lab(tmp_path, files, []) as case:
        case.settle()
        case.advance(minutes=1)
        case.settle()
        ask(NEW_ITEM)
        before = len(case.told)
        for _ in range(12):
            case.cycle()
            case.advance(minutes=5.5)
        assert least <= builds(case.told[before:], "b") <= most
        assert builds(case.told[before:], "a") <= 1
        ask(NEW_ITEM)
        (run, *_) = case.cycle()
        assert run.nodes["b"][0] == "build"
