"""Sensors continue where a tick stopped; a cursor that cannot be read costs a note at most."""

from __future__ import annotations

import json

import pytest

from dagster_sao.orchestration.sensor_cursor import read_cursor, write_cursor


def test_a_sensor_goes_on_where_it_stopped():
    assert read_cursor(write_cursor({"first": "source.shop.raw.orders"}), "first") == ("source.shop.raw.orders", "")
    assert read_cursor(write_cursor({"first": None}), "first") == (None, "")
    assert read_cursor(None, "first") == (None, "")


@pytest.mark.parametrize("cursor", ["garbage", "[]", "7", "{}", json.dumps({"layout": 99, "first": "x"})])
def test_a_cursor_that_cannot_be_read_costs_a_note(cursor):
    first, note = read_cursor(cursor, "first")
    assert first is None
    assert note == "The sensor's cursor was written by another version and is started anew; no state is lost."


def test_a_cursor_with_an_odd_value_has_none():
    assert read_cursor(json.dumps({"layout": 1, "first": 7}), "first") == (None, "")
