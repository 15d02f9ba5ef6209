"""Records survive the way through JSON; a record that this version cannot read counts as none."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from dagster_sao.core.code.evidence import Evidence, TracedReads
from dagster_sao.core.code.fingerprint import Fingerprint
from dagster_sao.core.state.state import FailedAttempt, FailureKind, LastBuild, SourceState, Verdict, VerdictStatus
from dagster_sao.orchestration.events.record_json import (
    build_from_json,
    build_to_json,
    failure_from_json,
    failure_to_json,
    history_to_json,
    source_state,
    verdict_from_json,
    verdict_to_json,
)
from dbt_dagster_sao.data_tests.handover import How
from tests.orchestration.shops import NOW

BUILD = LastBuild(
    started_at=NOW,
    ended_at=NOW + timedelta(seconds=3.25),
    fingerprint=Fingerprint({"sql": "1", "macro: x": "2"}, compiled="3"),
    consumed={"source.shop.raw.orders": "7"},
    data_version="v",
    run_id="run",
    column_signature="s",
    view_bindings={"model.shop.stg": "m"},
    view_leaf_versions={"source.shop.raw.orders": "7"},
    evidence=Evidence(TracedReads({"var: x": "1"}), ("file.csv",), definition="d"),
    history=(("u", NOW - timedelta(hours=1)), ("v", NOW)),
)
BARE = LastBuild(NOW, NOW, Fingerprint({}), {}, "v", "run")
FAILURE = FailedAttempt(NOW, 3, "f", {"a": "1"}, FailureKind.INTERRUPTED)
VERDICT = Verdict(VerdictStatus.FAIL, NOW, "run", Fingerprint({"sql": "1"}), {"model.shop.stg": "v"}, 7, 3, "code")


def through_json(value):
    return json.loads(json.dumps(value))


@pytest.mark.parametrize("build", [BUILD, BARE], ids=["full", "bare"])
def test_a_build_survives_the_way_through_json(build):
    assert build_from_json(through_json(build_to_json(build, invocation_id="i"))) == build


@pytest.mark.parametrize(
    "failure",
    [FAILURE, FailedAttempt(NOW, 1, "f", {}), FailedAttempt(NOW, 1, left="v")],
    ids=["interrupted", "build", "left"],
)
def test_a_failure_survives_the_way_through_json(failure):
    assert failure_from_json(through_json(failure_to_json(failure))) == failure


def test_empty_parts_are_not_stored():
    assert set(build_to_json(BARE)) == {"layout", "started_at", "ended_at", "data_version", "run_id"}


GARBAGE = [None, "", "text", 7, [], {}, {"layout": 1}, {"layout": 2}, {"layout": "1"}]
BROKEN = {
    "started_at": [None, 7, "yesterday", "2026-03-01T12:00:00"],
    "ended_at": ["", {}],
    "fingerprint": ["text", ["a"], 7],
    "consumed": ["text", ["a"], 7],
    "definition_inputs": [["a"]],
    "leaves": ["text"],
}


@pytest.mark.parametrize("record", GARBAGE)
def test_a_record_that_cannot_be_read_is_none(record):
    assert build_from_json(record) is None
    assert failure_from_json(record) is None


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in BROKEN.items() for v in values])
def test_a_build_with_a_broken_part_is_none(name, value):
    assert build_from_json({**through_json(build_to_json(BUILD)), name: value}) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [("failed_at", "x"), ("failed_at", "2026-03-01T12:00:00"), ("attempts", "many"), ("kind", "x"), ("consumed", [1])],
)
def test_a_failure_with_a_broken_part_is_none(name, value):
    assert failure_from_json({**through_json(failure_to_json(FAILURE)), name: value}) is None


def test_a_failed_test_that_an_earlier_version_recorded_is_no_failed_build():
    assert failure_from_json({**through_json(failure_to_json(FAILURE)), "kind": "test", "previous": None}) is None


PROVEN = replace(VERDICT, status=VerdictStatus.PASS, failures=0, how=How.PROVEN, proof="unique(id) holds")


@pytest.mark.parametrize(
    "verdict",
    [VERDICT, Verdict(VerdictStatus.PASS, NOW, "run", Fingerprint({})), PROVEN, replace(VERDICT, how=How.MERGED)],
)
def test_a_verdict_survives_the_way_through_json(verdict):
    assert verdict_from_json(through_json(verdict_to_json(verdict))) == verdict


@pytest.mark.parametrize("record", GARBAGE)
def test_a_verdict_that_cannot_be_read_is_none(record):
    assert verdict_from_json(record) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [("status", "x"), ("at", "x"), ("attempts", "many"), ("failures", "many"), ("versions", [1]), ("fingerprint", 7)],
)
def test_a_verdict_with_a_broken_part_is_none(name, value):
    assert verdict_from_json({**through_json(verdict_to_json(VERDICT)), name: value}) is None


def test_the_history_of_a_source_survives_the_way_through_json():
    history = (("a", NOW), ("b", NOW + timedelta(minutes=1)))
    assert source_state("b", NOW, through_json(history_to_json(history))) == SourceState("b", NOW, history)


def test_a_build_counts_though_its_history_cannot_be_read():
    assert build_from_json({**through_json(build_to_json(BUILD)), "history": [["v"]]}).history == ()


@pytest.mark.parametrize("history", [None, "text", [[1]], [["a", "yesterday"]], [7], {}])
def test_a_token_counts_though_its_history_cannot_be_read(history):
    assert source_state("a", NOW, history) == SourceState("a", NOW)


def test_a_build_keeps_the_keys_that_are_stored():
    record = build_to_json(replace(BUILD, manifest_code_mark="c"))
    assert (
        record.items()
        >= {
            "shape": "s",
            "definition_inputs": {"model.shop.stg": "m"},
            "leaves": {"source.shop.raw.orders": "7"},
            "planned_code": "c",
        }.items()
    )


def test_a_verdict_of_a_test_that_ran_is_written_as_before_and_one_from_before_is_of_such_a_test():
    assert not {"how", "proof"} & verdict_to_json(VERDICT).keys()
    assert verdict_from_json(through_json(verdict_to_json(VERDICT))).how is How.RUN


def test_a_verdict_that_was_found_in_an_unknown_way_is_none():
    assert verdict_from_json({**through_json(verdict_to_json(PROVEN)), "how": "guessed"}) is None
