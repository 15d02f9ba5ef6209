"""The events of the freshness sensor. The rule for new tokens is tested in core."""

from __future__ import annotations

import threading
from datetime import timedelta
from types import SimpleNamespace

import dagster as dg
import pytest

from dagster_sao.core.manifest.policy import SourcePolicy
from dagster_sao.core.state.state import SourceState
from dagster_sao.orchestration.sources.record_tokens import next_state_of
from dagster_sao.orchestration.sources.sensor import FreshnessProber, _Look, _Tick
from dagster_sao.warehouse.probes.registry import Observation, ProbeKind
from dagster_sao.warehouse.session import Cost
from tests.orchestration.shops import NOW, definitions, project_in, shop_manifest

HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("observation", "expected"),
    [
        (Observation("2", ProbeKind.FIELD), "2"),
        (Observation("1", ProbeKind.FIELD), None),
        (Observation(None, ProbeKind.FIELD, error="down"), None),
        (Observation(None, ProbeKind.UNTRACKED, error="down"), None),
        (Observation(None, ProbeKind.UNTRACKED), "untracked 7"),
        (Observation("1", ProbeKind.FIELD, misses_changes=True), "1 | untracked 7"),
    ],
    ids=["another token", "the same token", "failed", "failed, untracked", "untracked", "misses changes"],
)
def test_an_observation_counts_as_new_data_by_its_token_its_error_and_whether_it_is_tracked(observation, expected):
    found = next_state_of(observation, SourcePolicy(), SourceState("1", NOW - HOUR), NOW, untracked_at="7")
    assert (found.token if found else None) == expected


@pytest.mark.parametrize(("interval", "is_updated"), [(HOUR, True), (2 * HOUR, False)])
def test_the_interval_of_an_untracked_source_is_that_of_its_policy(interval, is_updated):
    policy = SourcePolicy(untracked_interval=interval)
    found = next_state_of(Observation(None, ProbeKind.UNTRACKED), policy, SourceState("1", NOW - HOUR), NOW)
    assert (found is not None) is is_updated


def test_a_broken_probe_of_another_package_is_named_in_the_log_once(tmp_path, monkeypatch):
    defs = definitions(tmp_path, shop_manifest())
    sensor = FreshnessProber(project_in(defs), tick_seconds=40, interval_seconds=30)
    source_prober = SimpleNamespace(
        problems=["The probe 'x' cannot be loaded."],
        observe=lambda *_, **__: iter(()),
        session=SimpleNamespace(cost=Cost),
    )
    monkeypatch.setattr(sensor._prober, "of", lambda _: source_prober)
    said = []
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_sensor_context(instance=instance, repository_def=defs.get_repository_def())
        monkeypatch.setattr(context.log, "warning", said.append)
        sensor.tick(context)
        sensor.tick(context)
    assert said == source_prober.problems


@pytest.mark.parametrize("is_turn", [True, False], ids=["looks itself", "shows only"])
def test_a_tick_shows_what_the_other_sensors_looks_found(tmp_path, monkeypatch, is_turn):
    defs = definitions(tmp_path, shop_manifest())
    sensor = FreshnessProber(project_in(defs), tick_seconds=40, interval_seconds=30)
    monkeypatch.setattr("dagster_sao.orchestration.sources.sensor._shares_process", lambda _: True)
    monkeypatch.setattr(sensor._turns, "is_planner_turn", lambda *_: True)
    monkeypatch.setattr(sensor._turns, "is_freshness_turn", lambda _: is_turn)
    looks = iter([["shop.orders"], []])

    def look(*_):
        if updated := next(looks):
            sensor._journal.warning("shop.orders is a view")
        return _Look("", _Tick(sources=[], due=[], view=None, wanted=set(), updated=updated))

    monkeypatch.setattr(sensor, "_look_or_fail", look)
    said = []
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_sensor_context(instance=instance)
        monkeypatch.setattr(context.log, "warning", said.append)
        sensor.probe_before_plan(context, timedelta(seconds=30))
        shown = sensor.tick(context)
    assert said == ["shop.orders is a view"]
    assert shown.skip_reason.skip_message == "1 of 0 sources have new data: shop.orders."


def test_a_tick_does_not_wait_for_ever_for_an_earlier_one(tmp_path, monkeypatch):
    defs = definitions(tmp_path, shop_manifest())
    sensor = FreshnessProber(project_in(defs), tick_seconds=0.2, interval_seconds=30)
    asked, answers = threading.Event(), threading.Event()

    def look(*_):
        asked.set()
        answers.wait(60)
        return _Look("0 of 1 sources have new data.")

    monkeypatch.setattr(sensor, "_look_or_fail", look)
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_sensor_context(instance=instance)
        first = threading.Thread(target=sensor.tick, args=(context,))
        first.start()
        assert asked.wait(60)
        assert sensor.tick(context).skip_reason.skip_message.startswith("An earlier tick is still probing the sources")
        answers.set()
        first.join()
        assert sensor.tick(context).skip_reason.skip_message == "0 of 1 sources have new data."
