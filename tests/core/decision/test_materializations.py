"""Which batches of a microbatch model a build covers, and from where on."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from dagster_sao.core.code.fingerprint import Fingerprint
from dagster_sao.core.decision.materializations import NodeToBuild, Steps, steps
from dagster_sao.core.manifest.build_settings import Batches, BuildSettings, read_build_settings
from dagster_sao.core.manifest.relation_traits import RelationTraits
from dagster_sao.core.state.state import FailedAttempt, FailureKind, LastBuild


def day(number, hour=0):
    return datetime(2026, 3, number, hour, tzinfo=timezone.utc)


NOW = day(20, 6)
BATCHES = Batches("day", lookback=2, begin=day(2))


def built(moment):
    return LastBuild(moment, moment, Fingerprint({}), {}, "v", "run")


def failed(*missing, kind=FailureKind.BUILD, unknown=False):
    return FailedAttempt(NOW, 1, kind=kind, missing_batches=missing, batches_unknown=unknown)


FROM = {
    "a build on the same day": (built(day(20, 1)), None, Steps()),
    "a day without a build": (built(day(19, 1)), None, Steps(batches_from=day(17))),
    "days without a build": (built(day(10, 5)), None, Steps(batches_from=day(8))),
    "never before its begin": (built(day(2, 5)), None, Steps(batches_from=day(2))),
    "a first build": (None, None, Steps()),
    "batches of the first build that failed": (
        None,
        failed((day(4), day(6)), (day(9), day(10))),
        Steps(batches_from=day(4)),
    ),
    "batches in its lookback": (None, failed((day(19), day(20))), Steps()),
    "batches of a later build": (built(day(20, 1)), failed((day(7), day(8))), Steps(batches_from=day(7))),
    "a failure before any batch": (built(day(20, 1)), failed(), Steps()),
    "an interruption": (built(day(20, 1)), failed(kind=FailureKind.INTERRUPTED), Steps(full_refresh=True)),
    "a failure without results": (built(day(20, 1)), failed(unknown=True), Steps(full_refresh=True)),
}


@pytest.mark.parametrize(("last_build", "failure", "expected"), FROM.values(), ids=FROM)
def test_no_batch_is_left_out(last_build, failure, expected):
    assert needed(BuildSettings(batches=BATCHES), last_build, failure) == expected


@pytest.mark.parametrize("failure", [None, failed((day(4), day(6)))])
def test_a_model_that_dbt_always_refreshes_is_built_with_all_its_batches(failure):
    settings = read_build_settings(
        {"config": {"full_refresh": True, "incremental_strategy": "microbatch", "begin": "2026-03-02"}}
    )
    assert needed(settings, built(day(10, 5)), failure) == Steps(full_refresh=True)


def test_a_copy_of_any_age_may_lack_any_batch():
    settings = BuildSettings(batches=BATCHES)
    assert needed(settings, built(day(20, 1)), None, is_copy=True) == Steps(full_refresh=True)
    settings = BuildSettings(refuses_full_refresh=True, batches=BATCHES)
    assert needed(settings, built(day(20, 1)), None, is_copy=True) == Steps(batches_from=day(2))


def test_so_may_what_it_finds_in_another_place():
    settings = BuildSettings(batches=BATCHES)
    moved = ("config: relation_name",)
    assert needed(settings, built(day(20, 1)), failed(), changes=moved) == Steps(full_refresh=True)


@pytest.mark.parametrize("batches", [None, BATCHES])
def test_no_rows_are_added_to_those_of_another_model(batches):
    assert needed(BuildSettings(batches=batches), built(NOW), None, is_foreign=True) == Steps(full_refresh=True)
    settings = BuildSettings(refuses_full_refresh=True, batches=batches)
    assert needed(settings, built(NOW), None, is_foreign=True).obstacle


def test_what_refuses_a_full_refresh_is_built_from_its_begin():
    settings = BuildSettings(refuses_full_refresh=True, batches=BATCHES)
    assert needed(settings, None, failed(kind=FailureKind.INTERRUPTED)) == Steps(batches_from=day(2))


def test_settings_are_read_from_the_config():
    config = {"incremental_strategy": "microbatch", "batch_size": "day", "lookback": 2, "begin": "2026-03-02"}
    assert read_build_settings({"config": config}) == BuildSettings(batches=BATCHES)
    assert read_build_settings({"config": {"full_refresh": False}}).refuses_full_refresh
    assert read_build_settings({}) == BuildSettings()


def needed(settings, last_build, failure, **options):
    node = NodeToBuild(
        "incremental", RelationTraits(), settings, "daily", NOW, last_build=last_build, failure=failure, **options
    )
    return steps(node)
