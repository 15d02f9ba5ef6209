"""When the answer of a probe is new data of a source, and the token and history that are recorded then."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from dagster_sao.core.state.source_tokens import REMEMBERED_TOKENS, ProbeAnswer, next_state, state_with, told_by_probe
from dagster_sao.core.state.state import SourceState

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
TENTH = timedelta(minutes=6)
UNTRACKED = ProbeAnswer(None, is_untracked=True)
FAILED = ProbeAnswer(None, has_failed=True)
DATE = ProbeAnswer("monday", is_untracked=True)


def untracked(when, token=None):
    """Return the token of a source that counted as updated in the hour of `when`."""
    counted = f"untracked {when.timestamp() // HOUR.total_seconds():.0f}"
    return counted if token is None else f"{token} | {counted}"


def last(token, ago=HOUR):
    return SourceState(token, NOW - ago)


def next_token(answer, before, interval=HOUR, untracked_at=None):
    found = next_state(answer, before, NOW, untracked_interval=interval, untracked_at=untracked_at)
    return found.token if found else None


@pytest.mark.parametrize(
    ("answer", "before", "expected"),
    [
        pytest.param(ProbeAnswer("1"), None, "1", id="a first token"),
        pytest.param(ProbeAnswer("2"), last("1"), "2", id="another token"),
        pytest.param(ProbeAnswer("1"), last("1"), None, id="the same token"),
        pytest.param(ProbeAnswer("0"), last("1"), "0", id="a token that goes backwards"),
        pytest.param(ProbeAnswer("1"), last(untracked(NOW, "1")), "1", id="the token of a source that was not tracked"),
        pytest.param(ProbeAnswer(None), last("1"), None, id="no token"),
        pytest.param(ProbeAnswer(None), None, None, id="never a token"),
        pytest.param(FAILED, last("1"), None, id="a failed probe keeps the last"),
        pytest.param(FAILED, None, None, id="a failed first probe has none"),
        pytest.param(replace(UNTRACKED, has_failed=True), last(untracked(NOW - HOUR)), None, id="failed, untracked"),
        pytest.param(UNTRACKED, None, untracked(NOW), id="untracked: counts as updated when first seen"),
        pytest.param(UNTRACKED, last("1"), untracked(NOW), id="untracked: an interval later"),
        pytest.param(UNTRACKED, last("1", HOUR - MINUTE), None, id="untracked: within the interval"),
        pytest.param(UNTRACKED, last("1", 5 * HOUR), untracked(NOW), id="untracked: many intervals later"),
        pytest.param(DATE, None, untracked(NOW, "monday"), id="a token that misses changes, first seen"),
        pytest.param(
            DATE, last(untracked(NOW, "monday")), untracked(NOW, "monday"), id="misses changes: an interval later"
        ),
        pytest.param(DATE, last(untracked(NOW, "monday"), MINUTE), None, id="misses changes: within the interval"),
        pytest.param(
            DATE, last(untracked(NOW, "sunday"), MINUTE), untracked(NOW, "monday"), id="misses changes: it moved"
        ),
        pytest.param(DATE, last(untracked(NOW), MINUTE), untracked(NOW, "monday"), id="misses changes: had no token"),
        pytest.param(DATE, last("monday", MINUTE), None, id="misses changes: was tracked, the same token"),
    ],
)
def test_what_becomes_the_token_of_a_source(answer, before, expected):
    assert next_token(answer, before) == expected


@pytest.mark.parametrize(("ago", "is_updated"), [(TENTH, True), (TENTH - MINUTE, False)])
def test_an_untracked_source_may_ask_for_another_interval(ago, is_updated):
    assert (next_token(UNTRACKED, last("1", ago), interval=TENTH) is not None) is is_updated


@pytest.mark.parametrize(
    ("answer", "before", "expected"),
    [
        pytest.param(UNTRACKED, None, "untracked run 7", id="first seen"),
        pytest.param(UNTRACKED, last("untracked run 6", MINUTE), "untracked run 7", id="within the interval"),
        pytest.param(DATE, last("monday", MINUTE), "monday | untracked run 7", id="beside its token"),
        pytest.param(ProbeAnswer("1"), last("1"), None, id="not where the source is tracked"),
        pytest.param(replace(UNTRACKED, has_failed=True), last("1"), None, id="not where the probe failed"),
    ],
)
def test_a_job_counts_an_untracked_source_as_updated_at_every_run(answer, before, expected):
    assert next_token(answer, before, untracked_at="run 7") == expected


@pytest.mark.parametrize("minutes", range(5))
def test_a_sensor_and_a_run_that_probe_at_the_same_moment_record_the_same_token(minutes):
    moment = NOW + minutes * MINUTE
    sensor = next_state(UNTRACKED, None, moment, untracked_interval=HOUR)
    run = next_state(UNTRACKED, None, moment + timedelta(seconds=59), untracked_interval=HOUR)
    assert sensor.token == run.token


def test_a_source_remembers_when_its_latest_tokens_appeared():
    first = state_with(None, "a", NOW)
    assert first == SourceState("a", NOW, (("a", NOW),))
    second = state_with(first, "b", NOW + MINUTE)
    assert second == SourceState("b", NOW + MINUTE, (("a", NOW), ("b", NOW + MINUTE)))


def test_the_history_of_a_source_begins_with_the_token_that_has_none():
    assert state_with(SourceState("a", NOW), "b", NOW + MINUTE).history == (("a", NOW), ("b", NOW + MINUTE))


def test_a_history_does_not_grow_without_end():
    state = None
    for index in range(100):
        state = state_with(state, str(index), NOW)
    assert [token for token, _ in state.history] == [str(index) for index in range(100 - REMEMBERED_TOKENS, 100)]


def test_a_new_token_leaves_the_columns_as_they_were_seen():
    assert state_with(SourceState("a", NOW, columns="id integer"), "b", NOW).columns == "id integer"


@pytest.mark.parametrize("answer", [UNTRACKED, DATE, ProbeAnswer("1")])
def test_the_token_of_the_probe_is_read_back(answer):
    assert told_by_probe(next_token(answer, None)) == answer.token
