"""What a user resets: no decision sees it, in this process or a later one, until the node is built or fails again."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import dagster as dg
import pytest

from dagster_sao.orchestration.private.dagster_internals import write_value
from dagster_sao.orchestration.state.read_state import read_state
from dagster_sao.orchestration.state.resets import Resets, read_resets, reset_nodes
from tests.orchestration.shops import NOW, ORDERS, STG, Log, load_project, shop_manifest


@pytest.fixture
def log(tmp_path):
    with dg.DagsterInstance.ephemeral() as instance:
        yield Log(instance, load_project(tmp_path, shop_manifest()))


def seen(log):
    """Return the state as a decision sees it."""
    return read_state(log.instance, log.project, log.project.load(), datetime.now(timezone.utc))


def reset_now(log, *uids):
    return reset_nodes(log.instance, log.project.state_name, uids, seen(log), NOW)


def test_a_reset_build_is_seen_no_more_and_others_are(log):
    log.build(ORDERS, STG)
    assert reset_now(log, ORDERS) == [ORDERS]
    assert set(seen(log).builds) == {STG}


def test_dagster_keeps_its_history(log):
    log.build(ORDERS)
    reset_now(log, ORDERS)
    assert ORDERS in log.snapshot().builds


def test_the_next_build_counts_again(log):
    log.build(ORDERS)
    reset_now(log, ORDERS)
    build = log.build(ORDERS)
    assert seen(log).builds == {ORDERS: build}


def test_the_next_build_counts_again_whatever_the_clocks_say(log):
    log.build(ORDERS, at=datetime.now(timezone.utc) + timedelta(days=1))
    reset_now(log, ORDERS)
    build = log.build(ORDERS)
    assert seen(log).builds == {ORDERS: build}


def test_a_reset_failure_holds_nothing_back(log):
    log.build(ORDERS)
    log.fail(ORDERS)
    reset_now(log, ORDERS)
    assert not seen(log).builds
    assert not seen(log).failures


def test_a_failure_after_it_counts(log):
    log.build(ORDERS)
    reset_now(log, ORDERS)
    log.fail(ORDERS)
    assert set(seen(log).failures) == {ORDERS}
    assert not seen(log).builds


def test_what_was_reset_stays_so_when_more_is(log):
    log.build(ORDERS)
    reset_now(log, ORDERS)
    log.fail(ORDERS)
    reset_now(log, ORDERS)
    assert not seen(log).builds
    assert not seen(log).failures


def test_there_is_nothing_to_reset_of_what_was_never_built(log):
    assert reset_now(log, ORDERS) == []
    assert read_resets(log.instance, log.project.state_name) == Resets()


def test_what_another_version_wrote_resets_nothing(log):
    log.build(ORDERS)
    for value in ("", "no JSON", "[]", '{"layout": 2, "nodes": {}}', '{"layout": 1, "nodes": {"a": {"b": 1}}}'):
        write_value(log.instance, f"dagster_sao/forgotten/{log.project.state_name}", value)
        assert set(seen(log).builds) == {ORDERS}


def test_a_reset_that_an_earlier_version_wrote_counts(log):
    build = log.build(ORDERS)
    entry = {"at": NOW.isoformat(), "build": f"{build.run_id} {build.ended_at.isoformat()}", "failure": ""}
    document = {"layout": 1, "nodes": {ORDERS: entry}}
    write_value(log.instance, f"dagster_sao/forgotten/{log.project.state_name}", json.dumps(document))
    assert not seen(log).builds


def test_another_environment_keeps_its_state(log):
    log.build(ORDERS)
    reset_nodes(log.instance, "shop.ci", [ORDERS], seen(log), NOW)
    assert set(seen(log).builds) == {ORDERS}
