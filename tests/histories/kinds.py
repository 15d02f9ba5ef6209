"""Everything that a build depends on besides its parents' data and its own text, by kind, with steps that change it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from tests.histories.raw_data import SOURCES

if TYPE_CHECKING:
    from tests.histories.steps import Step

_published = st.sampled_from([("published",), ()])


def _turn(*dials: str) -> st.SearchStrategy[Step]:
    return st.tuples(st.sampled_from(dials), _published).map(lambda pair: ("turn", pair[0], *pair[1]))


def _one_of(*steps: Step) -> st.SearchStrategy[Step]:
    return st.sampled_from(steps)


FILES = "files that are moved, deleted or put in place"
FUNCTIONS = "user-defined functions"
SEED_COLUMNS = "columns of a seed"
MATERIALIZED_VIEWS = "the SQL of a materialized view"
BOUND_COLUMNS = "columns that a view is bound to"
VIEWS = "views that somebody replaces"
KINDS: Mapping[str, st.SearchStrategy[Step]] = {
    "values read under a computed name": _turn("computed", "alias", "called"),
    "macros called only while dbt executes": _turn("under_execute", "executed"),
    "an environment variable that a macro reads": _published.map(lambda published: ("environment", *published)),
    "meta, tags and description that SQL reads": _turn("meta", "tag", "description"),
    "variables on dbt's command line": st.tuples(st.just("command line"), st.integers(0, 3)),
    "overridden macros of dbt": _turn("override"),
    "hooks, their macros and variables": _turn("hook", "hook_variable", "seed_variable"),
    "significant parentheses and line breaks": _turn("parentheses", "around_macro", "line_break"),
    "macros of a local package": _turn("package"),
    "data that comes and goes during a build": st.one_of(
        st.tuples(st.just("blip"), st.sampled_from(SOURCES)), st.just(("blip seed",))
    ),
    BOUND_COLUMNS: st.tuples(st.just("alter columns"), st.sampled_from(["add", "retype", "drop"])),
    SEED_COLUMNS: _published.map(lambda published: ("edit seed columns", *published)),
    "values that look alike": st.tuples(st.just("alter nested"), st.sampled_from(["items", "shape"])),
    "relations that dbt does not know": _one_of(("change beside", "loose")),
    "questions that SQL asks while it is rendered": _one_of(("change beside", "options"), ("change parts",)),
    "relations that two models take turns to write": st.one_of(
        _turn("pair"), _one_of(("materialize", ["t_first"]), ("materialize", ["t_second"]))
    ),
    "failures whose run is deleted": _one_of(("delete run",), ("spoil value",)),
    "tables that read themselves": _one_of(("materialize", ["t_this"])),
    "a DuckDB file that is put back from a copy": _one_of(("copy database",), ("put back",)),
    VIEWS: st.tuples(st.just("replace view"), st.sampled_from(["stg_plain", "stg_events", "v_joined", "v_top"])),
    FILES: st.one_of(
        _one_of(("move", "away"), ("move", "delete"), ("move", "back")),
        _published.map(lambda published: ("put in place", *published)),
        _one_of(("turn back", "moved")),
        _turn("moved"),
    ),
}
"""By kind, in the words of docs/how-it-works.md: the steps that change such a thing, and nothing else."""

ON_POSTGRES: Mapping[str, st.SearchStrategy[Step]] = {
    FUNCTIONS: _one_of(("edit function",)),
    MATERIALIZED_VIEWS: _one_of(("edit materialized view",)),
    f"{BOUND_COLUMNS}, on PostgreSQL": _one_of(("add column",)),
    f"{VIEWS}, on PostgreSQL": st.tuples(st.just("replace view"), st.sampled_from(["v_orders", "v_on_view", "v_top"])),
}
"""The same for the histories on PostgreSQL: of what DuckDB does not have, or does otherwise."""


def a_step(kinds: Mapping[str, st.SearchStrategy[Step]] = KINDS) -> st.SearchStrategy[Step]:
    """Return a step of any kind."""
    return st.one_of(*kinds.values())
