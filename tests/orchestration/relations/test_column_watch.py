"""The notes about columns: each is about one build, and stays while columns cannot be listed."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import dagster as dg
import pytest

from dagster_sao.core.code.fingerprint import Fingerprint
from dagster_sao.core.project import Project
from dagster_sao.core.state.state import FailedAttempt, LastBuild, SourceState, StateSnapshot
from dagster_sao.orchestration.relations.column_watch import note_columns
from dagster_sao.orchestration.state.read_state import ProjectView
from dagster_sao.orchestration.state.relation_notes import read_columns
from dagster_sao.warehouse.relations.listing import Existence, Presence
from tests.core.graphs import graph

NOW = datetime(2026, 3, 1, tzinfo=timezone.utc)


class Noted:
    """A project whose relations are looked at."""

    def __init__(self, instance):
        self.instance, self.state_name = instance, "shop"
        self.project = Project(graph("src.raw >> stg >> view:clean"), {})
        self.builds, self.failures = {}, {}
        self.build("run 1", "stg", "clean")

    def build(self, run_id, *names, **details):
        at = NOW + timedelta(minutes=len(self.builds) + int(run_id[-1]))
        build = LastBuild(at, at, Fingerprint({}), {}, "v", run_id, **details)
        self.builds = {**self.builds, **dict.fromkeys(names, build)}

    @property
    def bare(self):
        sources = {"src.raw": SourceState("token", NOW)}
        return StateSnapshot(builds=dict(self.builds), sources=sources, failures=dict(self.failures))

    def look(self, *, meanwhile=(), building=(), **found):
        state = self.bare
        for run_id, *names in meanwhile:
            self.build(run_id, *names)
        existences = {name.replace("_", "."): existence for name, existence in found.items()}
        note_columns(ProjectView(self.instance, self, self, state, NOW), existences, lambda: (self.bare, building))
        return self.state

    @property
    def state(self):
        return read_columns(self.instance, "shop").added_to(self.bare, self.project)


def has(columns):
    return Existence(Presence.EXISTS, columns=columns)


HIDDEN = Existence(Presence.UNKNOWN, reason="permission denied")


@pytest.fixture
def noted():
    with dg.DagsterInstance.ephemeral() as instance:
        yield Noted(instance)


def test_a_view_is_bound_to_what_its_run_built_as_the_next_look_sees_it(noted):
    noted.look(stg=has("first"))
    assert noted.state.builds["clean"].columns == {"stg": "first"}
    noted.build("run 2", "stg")
    assert noted.state.columns == {}
    noted.look(stg=has("second"))
    assert noted.state.columns == {"stg": "second"}
    assert noted.state.builds["clean"].columns == {"stg": "first"}
    noted.build("run 3", "clean")
    assert noted.state.builds["clean"].columns == {}


def test_what_another_run_has_built_since_tells_nothing_of_what_a_view_was_created_on(noted):
    noted.build("run 2", "stg")
    noted.look(stg=has("second"))
    assert noted.state.columns == {"stg": "second"}
    assert noted.state.builds["clean"].columns == {}


def test_a_view_is_bound_to_what_another_run_had_built_for_it_as_the_next_look_sees_it(noted):
    noted.build("run 2", "stg")
    noted.build("run 3", "clean", parents_built_in={"stg": "run 2"})
    noted.look(stg=has("second"))
    assert noted.state.builds["clean"].columns == {"stg": "second"}


def test_a_look_may_have_seen_them_while_the_view_was_created(noted):
    noted.build("run 2", "stg")
    noted.look(stg=has("second"))
    noted.build("run 3", "clean", parents_built_in={"stg": "run 2"})
    noted.look(stg=has("second"))
    assert noted.state.builds["clean"].columns == {"stg": "second"}


def test_what_was_listed_before_the_view_was_created_is_known_without_another_look(noted):
    """Another run may plan in between."""
    noted.build("run 2", "stg")
    noted.look(stg=has("second"))
    noted.build("run 2", "clean")
    assert noted.state.builds["clean"].columns == {"stg": "second"}
    noted.look(stg=has("second"))
    noted.build("run 4", "stg")
    assert noted.state.builds["clean"].columns == {"stg": "second"}


def test_what_a_failed_build_left_tells_nothing_of_what_a_view_was_created_on(noted):
    noted.failures["stg"] = FailedAttempt(NOW, 1)
    noted.look(stg=has("second"))
    assert noted.state.builds["clean"].columns == {}


def test_columns_that_a_run_changes_during_a_look_are_not_taken_for_those_before_it(noted):
    noted.look(stg=has("second"), meanwhile=[("run 2", "stg")])
    assert noted.state.columns == {}
    noted.look(stg=has("third"), building={"stg"})
    assert noted.state.columns == {}
    assert noted.state.builds["clean"].columns == {}


def test_columns_of_a_source_that_cannot_be_seen_for_a_while_are_no_new_data(noted):
    before = noted.look(src_raw=has("first")).sources["src.raw"].version
    assert before != "token"
    hidden = noted.look(src_raw=HIDDEN)
    assert hidden.sources["src.raw"].version == before
    assert (hidden.columns, hidden.listed) == ({}, frozenset())
    again = noted.look(src_raw=has("first"))
    assert (again.columns, again.listed) == ({"src.raw": "first"}, {"src.raw"})
    assert noted.look(src_raw=has("second")).sources["src.raw"].version not in {before, "token"}
