"""When code is the same: what dbt really read counts, or everything that it may read if it could take another path."""

from __future__ import annotations

from datetime import timedelta

import pytest

from dagster_sao.core.code.evidence import Evidence, TracedReads
from dagster_sao.core.decision.plan import Mode
from dagster_sao.core.state.state import VerdictStatus
from tests.core.graphs import World, graph

WIDE = {"var: *": "all of them", "macro: *": "all"}
READ_X = TracedReads({"var: x": "1"})


def world(evidence, kind="table"):
    found = World(graph(f"src.raw >> {kind}:m >> child"), values={"var: x": "1"})
    found.evidence["m"] = Evidence(evidence, is_deterministic=kind == "table")
    found.edit("m", **WIDE)
    found.build()
    assert found.build() == []
    return found


def message(world):
    return world.decision("m").message


REUSED = "No new changes on any upstreams"
UNWATCHED = {"untraced": None, "another kind unseen": TracedReads({}, unseen=frozenset({"var"}))}
OTHER_WAYS = {"a first build": TracedReads({"var: x": "1"}, follows_state=True)}


@pytest.mark.parametrize("name", [*UNWATCHED, *OTHER_WAYS])
def test_what_may_be_read_counts_where_it_is_not_known_what_is_read(name):
    this = world({**UNWATCHED, **OTHER_WAYS}[name])
    this.edit("m", **{**WIDE, "var: *": "another one"})
    assert message(this) == "Code changed: var: *"


def test_what_may_be_read_and_was_not_does_not_count():
    this = world(READ_X)
    this.edit("m", **{**WIDE, "var: *": "another one", "macro: *": "more"})
    assert message(this) == REUSED
    assert this.build() == []


@pytest.mark.parametrize("evidence", [READ_X, *OTHER_WAYS.values()])
def test_what_was_read_counts_on_whatever_way(evidence):
    this = world(evidence)
    this.values["var: x"] = "2"
    assert message(this) == "Code changed: var: x"


def test_what_the_text_spells_out_counts_whether_it_was_read_or_not():
    this = world(READ_X)
    this.edit("m", **WIDE, **{"var: spelled": "2"})
    assert message(this) == "Code changed: var: spelled"


def test_rows_of_a_parent_choose_the_way_as_long_as_they_are_the_same():
    this = world(TracedReads({}, asks_rows=True))
    this.edit("m", **{**WIDE, "var: *": "another one"})
    assert message(this) == REUSED
    this.ask("m", build_after=timedelta(hours=1))
    this.load("src.raw")
    assert message(this) == "Code changed: var: *"


def test_a_table_that_read_something_else_is_another_version():
    this = world(READ_X)
    before = this.builds["m"].data_version
    this.values["var: x"] = "2"
    this.evidence["m"] = Evidence(TracedReads({"var: x": "2"}), is_deterministic=True)
    assert this.build() == ["m", "child"]
    assert this.builds["m"].data_version != before


def test_a_view_that_read_something_else_is_another_version():
    this = world(READ_X, "view")
    this.values["var: x"] = "2"
    this.evidence["m"] = Evidence(TracedReads({"var: x": "2"}))
    assert this.build() == ["m", "child"]


def test_a_table_that_is_not_proven_to_follow_from_its_inputs_is_new_each_time():
    for is_deterministic, built in ((True, ["m"]), (False, ["m", "child"])):
        this = World(graph("src.raw >> m >> child"))
        this.evidence["m"] = Evidence(is_deterministic=is_deterministic)
        this.build()
        this.missing.add("m")
        assert this.build() == built


def test_nor_is_one_that_reads_a_view_or_a_seed_of_that_kind():
    for arrows in ("src.raw >> view:m >> view:v >> t >> child", "seed:m >> child"):
        read = "t" if "t >>" in arrows else "m"
        for is_deterministic, built in ((True, [read]), (False, [read, "child"])):
            this = World(graph(arrows))
            this.evidence["m"] = Evidence(is_deterministic=is_deterministic)
            this.build()
            this.missing.add(read)
            assert this.build() == built


# What dbt does not know


def untracked(arrows):
    this = World(graph(arrows))
    this.evidence["m"] = Evidence(untracked=("raw.hard",))
    this.build()
    assert this.build() == []
    return this


def test_what_dbt_does_not_know_counts_as_updated_every_hour_and_in_every_job():
    this = untracked("src.raw >> m >> child")
    assert this.decision("m").eligible_at == this.now + timedelta(hours=1)
    assert this.decision("m", mode=Mode.JOB).message == "New changes detected: raw.hard"
    this.now += timedelta(hours=1)
    assert message(this) == "New changes detected: raw.hard"
    assert this.build() == ["m", "child"]
    assert this.build() == []


def test_how_often_is_the_models_own_setting():
    this = untracked("src.raw >> m")
    this.ask("m", untracked_interval=timedelta(hours=6))
    this.now += timedelta(hours=5)
    assert this.build() == []
    this.now += timedelta(hours=1)
    assert this.build() == ["m"]


def test_what_dbt_does_not_know_passes_through_views():
    this = untracked("src.raw >> view:m >> view:v >> child >> grandchild")
    this.now += timedelta(hours=1)
    assert this.build() == ["child", "grandchild"]


def test_new_data_of_the_unknown_waits_like_any_other():
    this = untracked("src.raw >> m")
    this.ask("m", build_after=timedelta(hours=4))
    this.now += timedelta(hours=2)
    assert message(this).startswith("New changes detected. Did not meet build_after of 4h")


def test_environment_variables_under_names_that_nothing_spells_out_are_unknown_unless_dbt_is_watched():
    for reads, built in ((None, ["m"]), (TracedReads({}), [])):
        this = World(graph("src.raw >> m"))
        this.evidence["m"] = Evidence(reads, is_deterministic=True)
        this.edit("m", **{"env_var: *": "-"})
        this.build()
        this.now += timedelta(hours=1)
        assert this.build() == built


def test_a_test_of_what_dbt_does_not_know_is_run_again():
    this = World(graph("src.raw >> m"))
    this.add_test("t", "m")
    this.evidence["t"] = Evidence(untracked=("raw.hard",))
    this.build()
    assert this.verdicts["t"].status is VerdictStatus.PASS
    assert not this.plan().tests["t"].runs
    this.now += timedelta(hours=1)
    assert this.plan().tests["t"].message == "Reads what dbt does not know; last run 1h ago"
