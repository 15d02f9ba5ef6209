"""When what a probe says of a source becomes a new token, and when it does not."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import dagster as dg
import pytest

from dagster_sao.core.manifest.policy import SourcePolicy
from dagster_sao.core.state.state import SourceState
from dagster_sao.orchestration.sources.record_tokens import new_token
from dagster_sao.orchestration.sources.sensor import FreshnessProber, _read_cursor, _write_cursor
from dagster_sao.warehouse.probes.registry import Observation, ProbeKind
from dagster_sao.warehouse.session import Cost
from tests.orchestration.shops import NOW, definitions, project_in, shop_manifest

HOUR = timedelta(hours=1)
UNTRACKED = Observation(None, ProbeKind.UNTRACKED)


def last(token="1", ago=HOUR):
    return SourceState(token, NOW - ago)


@pytest.mark.parametrize(
    ("observation", "before", "expected"),
    [
        pytest.param(Observation("1", ProbeKind.FIELD), None, "1", id="a first token"),
        pytest.param(Observation("2", ProbeKind.FIELD), last(), "2", id="another token"),
        pytest.param(Observation("1", ProbeKind.FIELD), last(), None, id="the same token"),
        pytest.param(Observation("0", ProbeKind.FIELD), last(), "0", id="a token that goes backwards"),
        pytest.param(
            Observation(None, ProbeKind.FIELD, error="down"), last(), None, id="a failed probe keeps the last"
        ),
        pytest.param(Observation(None, ProbeKind.FIELD, error="down"), None, None, id="a failed first probe has none"),
    ],
)
def test_a_token_is_recorded_only_when_it_is_another(observation, before, expected):
    assert new_token(observation, SourcePolicy(), before, NOW) == expected


def test_an_untracked_source_counts_as_updated_when_it_is_first_seen():
    assert new_token(UNTRACKED, SourcePolicy(), None, NOW)


@pytest.mark.parametrize(("ago", "is_updated"), [(HOUR, True), (HOUR - timedelta(seconds=1), False), (5 * HOUR, True)])
def test_an_untracked_source_counts_as_updated_once_an_hour_at_most(ago, is_updated):
    before = last(new_token(UNTRACKED, SourcePolicy(), None, NOW - ago), ago)
    token = new_token(UNTRACKED, SourcePolicy(), before, NOW)
    assert (token is not None and token != before.token) is is_updated


@pytest.mark.parametrize(
    ("before", "ago", "is_updated"),
    [
        pytest.param("monday", HOUR, True, id="an interval later"),
        pytest.param("monday", HOUR / 2, False, id="within the interval"),
        pytest.param("sunday", HOUR / 2, True, id="a token that moved"),
        pytest.param(None, HOUR / 2, True, id="a source that was untracked"),
    ],
)
def test_a_token_that_misses_changes_moves_by_itself_too(before, ago, is_updated):
    observation = Observation("monday", ProbeKind.FIELD, misses_changes=True)
    earlier = replace(observation, token=before)
    state = last(new_token(earlier, SourcePolicy(), None, NOW - ago), ago)
    token = new_token(observation, SourcePolicy(), state, NOW)
    assert (token is not None and token != state.token) is is_updated


def test_an_untracked_source_may_ask_for_another_interval():
    policy = SourcePolicy(untracked_interval=HOUR / 6)
    assert new_token(UNTRACKED, policy, last(ago=HOUR / 6), NOW)
    assert not new_token(UNTRACKED, policy, last(ago=HOUR / 7), NOW)


def test_a_broken_probe_of_another_package_is_named_in_the_log_once(tmp_path, monkeypatch):
    defs = definitions(tmp_path, shop_manifest())
    sensor = FreshnessProber(project_in(defs), tick_seconds=40)
    source_prober = SimpleNamespace(
        problems=["The probe 'x' cannot be loaded."],
        observe=lambda *_, **__: iter(()),
        session=SimpleNamespace(cost=Cost),
    )
    monkeypatch.setattr(sensor, "_warm_prober", lambda _: source_prober)
    said = []
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_sensor_context(instance=instance, repository_def=defs.get_repository_def())
        monkeypatch.setattr(context.log, "warning", said.append)
        sensor.tick(context)
        sensor.tick(context)
    assert said == source_prober.problems


def test_the_freshness_sensor_goes_on_where_it_stopped():
    assert _read_cursor(_write_cursor("source.shop.raw.orders")) == ("source.shop.raw.orders", "")
    assert _read_cursor(_write_cursor(None)) == (None, "")
    assert _read_cursor(None) == (None, "")


@pytest.mark.parametrize("cursor", ["garbage", "[]", "7", "{}", json.dumps({"layout": 99, "first": "x"})])
def test_a_freshness_cursor_that_cannot_be_read_costs_a_note(cursor):
    first, note = _read_cursor(cursor)
    assert first is None
    assert note.startswith("The sensor's cursor was written by another version and is started anew; no state is lost.")


def test_a_freshness_cursor_with_an_odd_place_starts_at_the_first_source():
    assert _read_cursor(json.dumps({"layout": 1, "first": 7})) == (None, "")
