"""The language of histories: a step is a tuple of words and numbers, so a history can be printed and pasted."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.histories.kinds import a_step
from tests.histories.project import MODELS, NODES, SWITCHED_MODELS
from tests.histories.raw_data import SOURCES

Step = tuple[Any, ...]
History = list[Step]

PAUSE: Step = ("pause",)
LENGTH = 8

_tested_data = st.tuples(
    st.sampled_from(
        [
            *("spoil group", "repair groups", "spoil sign", "repair signs", "spoil amount", "repair amounts"),
            *("duplicate id", "deduplicate"),
        ]
    )
)
"""What breaks a test on a source, a view, two models or a table, and what mends it."""
_data = st.one_of(
    st.tuples(st.just("insert"), st.sampled_from(SOURCES)),
    st.tuples(st.just("update"), st.sampled_from(SOURCES)),
    st.tuples(st.just("delete"), st.sampled_from(SOURCES)),
    st.tuples(st.sampled_from(["rewrite", "recreate"]), st.sampled_from(SOURCES)),
    st.tuples(st.sampled_from(["spoil value", "repair values", "duplicate id", "deduplicate"])),
    _tested_data,
    _tested_data,
)
_is_published = st.booleans()
_code = st.one_of(
    st.tuples(
        st.just("edit"), st.sampled_from(MODELS), st.sampled_from(["column", "column", "comment", "white space"])
    ),
    st.tuples(st.just("edit"), st.sampled_from(MODELS), st.sampled_from(["break", "repair"])),
    st.tuples(st.just("edit macro"), st.sampled_from(["factor", "comment"])),
    st.tuples(st.just("edit var"), st.sampled_from(["scale", "unused"])),
    st.tuples(st.just("switch"), st.sampled_from(SWITCHED_MODELS)),
    st.tuples(st.just("build after"), st.integers(1, 3)),
    st.tuples(st.just("edit seed")),
    st.tuples(st.just("edit rows"), st.sampled_from(["double", "single"])),
)
_test_code = st.tuples(st.just("edit test"), st.sampled_from(["severity", "values", "values", "add", "unit"]))
_work = st.one_of(
    st.just(("cycle",)),
    st.just(("cycle",)),
    st.just(("freshness",)),
    st.just(("automation",)),
    st.tuples(st.just("run"), st.sampled_from(["oldest", "newest"])),
    st.tuples(st.just("materialize"), st.lists(st.sampled_from(NODES), min_size=1, max_size=3, unique=True)),
    st.tuples(st.just("job"), st.lists(st.sampled_from(NODES), min_size=1, max_size=3, unique=True)),
    st.tuples(st.just("job"), st.just([])),
)
_trouble = st.one_of(
    st.tuples(st.just("crash"), st.sampled_from(["dbt", "run", "events"]), st.integers(1, 40)),
    st.tuples(st.just("meanwhile"), st.sampled_from(["before dbt", "before events"]), _data),
    st.tuples(st.just("wipe"), st.sampled_from(NODES)),
    st.just(("restart",)),
    st.just(("delete run",)),
    st.tuples(st.just("terminate"), st.integers(1, 40)),
    st.just(("execute again",)),
    st.just(("set back", 60)),
    st.just(("settle",)),
)
_kinds = a_step()
_time = st.tuples(st.just("advance"), st.sampled_from([1, 4, 6, 30, 61, 119, 125, 400]))

# A history shrinks towards pauses, which are left out when it is printed.
step = st.one_of(
    st.just(PAUSE),
    _work,
    _data,
    st.tuples(st.one_of(_code, _test_code), _is_published).map(
        lambda pair: pair[0] if not pair[1] else (*pair[0], "published")
    ),
    _test_code,
    _tested_data,
    _time,
    _trouble,
    _kinds,
    _kinds,
    _data,
    _work,
)
histories = st.lists(step, min_size=LENGTH, max_size=LENGTH)


def without_pauses(history: History) -> History:
    return [step for step in history if step != PAUSE]
