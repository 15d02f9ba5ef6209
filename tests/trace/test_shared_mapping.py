"""A dictionary that templates of several nodes share, each through a stand-in of its own."""

from __future__ import annotations

import json

import pytest

from dbt_dagster_sao.proxies import SharedMapping

WRITES = {
    "a new key": lambda of: of.__setitem__("c", 3),
    "another value": lambda of: of.update(a=4),
    "a default": lambda of: of.setdefault("c", 5),
    "a default that is not needed": lambda of: of.setdefault("a", 5),
    "without a key": lambda of: of.pop("a"),
    "without a key that is not there": lambda of: of.pop("z", None),
    "without the last": lambda of: of.popitem(),
    "without a deleted one": lambda of: of.__delitem__("b"),
    "merged": lambda of: of.__ior__({"b": 6, "d": 7}),
    "emptied": lambda of: of.clear(),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_write_is_seen_by_all_and_as_a_plain_dictionary_would_show_it(write):
    plain, shared = {"a": 1, "b": 2}, {"a": 1, "b": 2}
    one, other = SharedMapping(shared, lambda _: None), SharedMapping(shared, lambda _: None)
    assert write(one) == write(plain)
    assert plain == shared
    assert plain == one
    assert plain == other
    assert json.dumps(plain) == json.dumps(other)


def test_own_code_may_write_while_it_iterates():
    shared = {"a": 1, "b": 2}
    one = SharedMapping(shared, lambda _: None)
    for key in one:
        one[key] = one[key] + 1
    assert shared == {"a": 2, "b": 3}


def test_each_read_is_noted_and_a_write_is_not():
    seen = []
    one = SharedMapping({"a": 1}, seen.append)
    one["b"] = 2
    one.update(c=3)
    assert seen == []
    assert (one["b"], one.get("z"), "c" in one, list(one.values())) == (2, None, True, [1, 2, 3])
    assert seen == ["b", "z", "c", "*"]
