"""Digests of what is read, without dbt."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from enum import Enum

import pytest
from agate import Table

from dbt_dagster_sao import digests
from dbt_dagster_sao.digests import ABSENT, UNKNOWN, answer_digest, config_digest, digest, mapping_digest, model_digest


class Colour(Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((1, 2), [1, 2]),
        ({3, 1, 2}, {1, 2, 3}),
        (Colour.RED, "red"),
        (date(2024, 1, 1), "2024-01-01"),
        ({1: "a", None: "b"}, {"1": "a", "null": "b"}),
    ],
)
def test_the_same_in_json_has_the_same_digest(one, other):
    assert digest(one) == digest(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, "1"),
        (1, True),
        (0, False),
        (None, "null"),
        ("", None),
        ([1, 2], [2, 1]),
        ({"a": None}, {}),
        ([], {}),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    ],
)
def test_different_values_have_different_digests(one, other):
    assert digest(one) != digest(other)


def test_null_is_not_absent():
    assert mapping_digest({"a": None}, "a") != ABSENT
    assert mapping_digest({}, "a") == ABSENT


def test_an_object_without_a_lasting_text_is_unknown():
    assert digest(object()) == UNKNOWN
    assert digest({"deep": [object()]}) == UNKNOWN


def test_a_digest_is_short():
    assert len(digest("x" * 10_000)) == 12


def rows(*values, name="n") -> Table:
    return Table([[value] for value in values], [name])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (rows(1, 2), rows(2, 1)),
        (rows(1), rows("x")),
        (rows(1), rows(1, name="m")),
        (rows(), rows(None)),
    ],
)
def test_tables_differ_by_rows_their_order_names_and_types(one, other):
    assert answer_digest(one) != answer_digest(other)


def test_a_table_is_read_from_an_iterator_of_rows_too():
    def again() -> Iterator[int]:
        yield from (1, 2)

    assert answer_digest(rows(*again())) == answer_digest(rows(1, 2))


def test_what_changes_by_itself_does_not_count():
    node = {
        "name": "m",
        "config": {"materialized": "table", "group": None},
        "depends_on": {"nodes": ["a"], "macros": []},
    }
    later = {
        **node,
        "created_at": 2.0,
        "compiled_code": "select 1",
        "build_path": "target/run/m.sql",
        "depends_on": {"nodes": ["a"], "macros": ["macro.p.m"]},
        "config": {"materialized": "table", "__dbt_internal_microbatch_event_time_start": "2024"},
    }
    assert model_digest(node, "*") == model_digest(later, "*")
    assert model_digest(node, "*") != model_digest({**node, "name": "n"}, "*")
    assert digests.graph_digest({"nodes": {"m": node}}) == digests.graph_digest({"nodes": {"m": later}, "metadata": {}})


def test_the_order_in_which_dbt_parsed_the_graph_does_not_count():
    one, other = {"name": "m"}, {"name": "n"}
    assert digests.graph_digest({"nodes": {"m": one, "n": other}}) == digests.graph_digest(
        {"nodes": {"n": other, "m": one}}
    )
    assert digests.graph_digest({"nodes": {"m": one}}) != digests.graph_digest({"nodes": {"m": other}})


def test_a_disabled_test_that_dbt_left_in_the_graph_does_not_count():
    """A project of 690 models had 16 of them after `dbt parse --no-partial-parse`, and none after a partial parse."""
    one, disabled = {"name": "m", "config": {"enabled": True}}, {"name": "t", "config": {"enabled": False}}
    digest_of_one = digests.graph_digest({"nodes": {"m": one}})
    assert digests.graph_digest({"nodes": {"m": one, "t": disabled}}) == digest_of_one
    assert digests.graph_digest({"nodes": {"m": one, "t": {**disabled, "config": None}}}) != digest_of_one


def test_a_null_of_the_user_counts():
    assert model_digest({"meta": {"x": None}}, "meta") != model_digest({"meta": {}}, "meta")
    assert model_digest({"config": {"meta": {"x": None}}}, "config") != model_digest({"config": {"meta": {}}}, "config")


def test_hooks_are_found_by_the_names_that_dbt_knows():
    config = {"pre-hook": [{"sql": "select 1"}]}
    assert config_digest(config, "pre_hook") == digest(config["pre-hook"])
    assert config_digest(config, "pre-hook") == ABSENT
