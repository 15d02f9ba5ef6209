"""The event log as state: reading it at once or bit by bit gives the same state, on SQLite files and in memory."""

from __future__ import annotations

import shutil
from datetime import datetime, timedelta, timezone

import dagster as dg
import pytest
from dagster._core.definitions.observe import observe as observe_assets
from dagster._core.instance.utils import RUNLESS_RUN_ID
from dagster._core.test_utils import create_run_for_test

from dagster_sao.core.state.state import FailureKind
from dagster_sao.orchestration.events.event_schema import BUILD_KEY, DECISION_KEY, FAILURE_KEY, HISTORY_KEY
from dagster_sao.orchestration.private import dagster_internals
from dagster_sao.orchestration.state import event_log
from dagster_sao.orchestration.state.event_log import EventLogState
from tests.orchestration.shops import NOW, ORDERS, RAW, STG, Log, load_project, shop_manifest

LATER = datetime(2100, 1, 1, tzinfo=timezone.utc)
"""After the end of every run."""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return load_project(tmp_path_factory.mktemp("shop"), shop_manifest())


@pytest.fixture(scope="module")
def empty_home(tmp_path_factory):
    """An instance's folder with its databases made, which takes seconds."""
    folder = tmp_path_factory.mktemp("home")
    with dg.DagsterInstance.local_temp(str(folder)) as instance:
        instance.report_runless_asset_event(dg.AssetMaterialization("anything"))
    return folder


@pytest.fixture(params=["in memory", "sqlite"])
def instance(request, tmp_path, empty_home):
    if request.param == "in memory":
        with dg.DagsterInstance.ephemeral() as instance:
            yield instance
    else:
        shutil.copytree(empty_home, tmp_path / "home")
        with dg.DagsterInstance.local_temp(str(tmp_path / "home")) as instance:
            yield instance


@pytest.fixture
def log(instance, project):
    return Log(instance, project)


@pytest.fixture
def tail(log):
    """A process that has read the log from the start, and reads on after each step."""
    state = EventLogState(log.instance, log.project.name)
    state.snapshot(log.project.load().keys, NOW)
    return lambda: state.snapshot(log.project.load().keys, NOW)


def same(tail, log):
    """Return the state, which a process that runs and one that starts now read alike."""
    read_on, read_anew = tail(), EventLogState(log.instance, log.project.name).snapshot(log.project.load().keys, NOW)
    assert (read_on.builds, read_on.sources, read_on.failures) == (
        read_anew.builds,
        read_anew.sources,
        read_anew.failures,
    )
    return read_anew


def test_an_empty_log_is_an_empty_state(tail, log):
    state = same(tail, log)
    assert (state.builds, state.sources, state.failures) == ({}, {}, {})


def test_a_build_is_read_back_as_it_was_recorded(tail, log):
    log.token("1")
    build = log.build(STG, ORDERS, at=NOW)
    state = same(tail, log)
    assert state.builds[ORDERS] == build
    assert state.sources[RAW].token == "1"


def test_the_latest_build_counts(tail, log):
    log.build(ORDERS, at=NOW)
    tail()
    build = log.build(ORDERS, at=NOW + timedelta(minutes=1))
    assert same(tail, log).builds[ORDERS] == build


def test_the_latest_token_counts_with_its_history(tail, log):
    log.token("1")
    history = [["1", NOW.isoformat()], ["2", NOW.isoformat()]]
    log.materialize(RAW, tags={"dagster/data_version": "2"}, metadata={HISTORY_KEY: dg.MetadataValue.json(history)})
    state = same(tail, log).sources[RAW]
    assert (state.token, [token for token, _ in state.history]) == ("2", ["1", "2"])


def test_a_source_that_an_asset_loads_without_a_data_version_changes_with_each_load(tail, log):
    log.materialize(RAW)
    first = same(tail, log).sources[RAW].token
    log.materialize(RAW)
    assert same(tail, log).sources[RAW].token != first


@pytest.fixture
def loader(project):
    """Return the state of a project whose raw.orders a Dagster asset loads, with a process that reads on."""
    key = project.load().keys.by_unique_id[RAW]

    def follow(log):
        tail = EventLogState(log.instance, project.name, loaded_by_dagster={key})

        def token():
            keys = project.load().keys
            anew = EventLogState(log.instance, project.name, loaded_by_dagster={key}).snapshot(keys, NOW)
            assert anew.sources == tail.snapshot(keys, NOW).sources
            return anew.sources[RAW].token if RAW in anew.sources else None

        return key, token

    return follow


def load(instance, key, **options):
    """Materialize an asset, as Dagster records it."""
    version, partition = options.pop("version", None), options.pop("partition", None)

    @dg.asset(key=key, **options)
    def orders():
        return dg.MaterializeResult(data_version=dg.DataVersion(version) if version else None)

    assert dg.materialize([orders], instance=instance, partition_key=partition).success


DAYS = dg.StaticPartitionsDefinition(["mon", "tue"])


@pytest.mark.parametrize(
    ("loads", "moves"),
    [
        ([{"code_version": "1"}, {"code_version": "1"}], True),
        ([{}, {}], True),
        ([{"version": "a"}, {"version": "a"}], False),
        ([{"version": "a"}, {"version": "b"}], True),
        ([{"version": "a", "code_version": "1"}, {"version": "a", "code_version": "2"}], False),
        (
            [{"version": "a", "partitions_def": DAYS, "partition": day} for day in ("mon", "tue")],
            True,
        ),
    ],
)
def test_a_load_by_dagster_is_new_data_unless_the_user_says_which_version_it_is(loader, log, loads, moves):
    key, token = loader(log)
    load(log.instance, key, **loads[0])
    first = token()
    load(log.instance, key, **loads[1])
    assert (token() != first) is moves


def test_it_is_known_when_each_of_the_last_loads_came(project, loader, log):
    key, token = loader(log)
    loads = []
    for _ in range(3):
        load(log.instance, key)
        loads.append(token())
    state = EventLogState(log.instance, project.name, loaded_by_dagster={key}).snapshot(project.load().keys, NOW)
    assert [loaded for loaded, _ in state.history(RAW)] == loads
    assert state.history(RAW)[-1][1] == state.sources[RAW].recorded_at


def test_an_observed_version_is_new_data_once(loader, log):
    key, token = loader(log)
    version = "1"

    @dg.observable_source_asset(key=key)
    def orders():
        return dg.DataVersion(version)

    def observe():
        assert observe_assets([orders], instance=log.instance).success
        return token()

    load(log.instance, key, code_version="1")
    loaded = token()
    first = observe()
    assert first != loaded
    assert observe() == first
    version = "2"
    assert observe() != first
    seen = token()
    log.observe(RAW, {"rows": 3})
    assert token() == seen
    load(log.instance, key, code_version="1")
    assert token() != seen


def test_an_observed_source_need_not_be_materialized(loader, log):
    key, token = loader(log)
    observation = dg.AssetObservation(key, tags={"dagster/data_version": "1"})
    log.instance.report_runless_asset_event(observation)
    assert token() == "1"


def test_an_observed_version_is_found_behind_many_observations_without_one(loader, log):
    key, token = loader(log)
    log.instance.report_runless_asset_event(dg.AssetObservation(key, tags={"dagster/data_version": "1"}))
    for rows in range(150):
        log.observe(RAW, {"rows": rows})
    assert token() == "1"


def test_a_model_of_another_project_is_new_data_when_its_version_moves(loader, log):
    key, token = loader(log)

    def build(version, environment, mended_by=""):
        record = {"layout": 1, "environment": environment, "mended_by": mended_by}
        log.instance.report_runless_asset_event(
            dg.AssetMaterialization(
                key,
                tags={"dagster/data_version": version},
                metadata={BUILD_KEY: dg.MetadataValue.json(record)},
            )
        )
        return token()

    first = build("a", "")
    assert build("a", "") == first
    # A version of another environment may be that of rows which are not here yet.
    elsewhere = build("b", "dev")
    assert elsewhere not in {first, build("b", "")}
    # After a failed attempt, say: what was read in between is not known.
    mended = build("a", "", "attempt 1")
    assert mended != first
    assert build("a", "", "attempt 1") == mended


def test_wiping_what_an_asset_loads_is_new_data(loader, log):
    """The wiped events may have told of data that nobody has read."""
    key, token = loader(log)
    load(log.instance, key)
    loaded = token()
    log.wipe(RAW)
    wiped = token()
    assert None is not wiped != loaded
    assert token() == wiped
    load(log.instance, key)
    assert token() not in {wiped, loaded}


def test_a_failure_is_read_back_as_it_was_recorded(tail, log):
    failure = log.fail(ORDERS, at=NOW)
    assert same(tail, log).failures == {ORDERS: failure}


def test_a_success_after_a_failure_ends_it(tail, log):
    log.fail(ORDERS, at=NOW)
    tail()
    log.build(ORDERS, at=NOW + timedelta(minutes=5))
    state = same(tail, log)
    assert state.failures == {}
    assert ORDERS in state.builds


def test_a_failure_after_a_success_counts_and_leaves_the_build(tail, log):
    build = log.build(ORDERS, at=NOW)
    failure = log.fail(ORDERS, at=NOW + timedelta(minutes=5))
    state = same(tail, log)
    assert (state.builds[ORDERS], state.failures[ORDERS]) == (build, failure)


def test_what_a_run_left_without_a_word_was_interrupted(tail, log):
    log.build(STG, ORDERS, at=NOW)
    run_id = log.start_run(STG, ORDERS)
    log.say(run_id, STG, {DECISION_KEY: "reused"})
    assert same(tail, log).failures == {}, "it may still go on"
    log.end_run(run_id)
    state = same(tail, log)
    assert {uid: failure.kind for uid, failure in state.failures.items()} == {ORDERS: FailureKind.INTERRUPTED}
    assert ORDERS in state.builds


def test_what_another_run_has_built_since_was_not_interrupted(tail, log):
    """However late the end of the run is known: it ended when its leases did."""
    log.build(STG, ORDERS, at=NOW)
    run_id = log.start_run(STG, ORDERS)
    log.build(STG, at=NOW + timedelta(seconds=1))
    log.end_run(run_id)
    state = same(tail, log)
    assert set(state.failures) == {ORDERS}
    assert state.builds[STG].ended_at == NOW + timedelta(seconds=1)


def test_what_a_run_gave_to_dbt_after_it_waited_for_it_was_interrupted(tail, log):
    log.build(STG, ORDERS, at=NOW)
    run_id = log.start_run(STG)
    log.say(run_id, ORDERS, {DECISION_KEY: "waits"})
    log.say(run_id, STG, {DECISION_KEY: "reused"})
    log.start_dbt(run_id, ORDERS)
    log.end_run(run_id)
    assert set(same(tail, log).failures) == {ORDERS}


def test_a_run_that_ends_before_dbt_starts_leaves_everything_as_it_was(tail, log):
    log.build(ORDERS, at=NOW)
    run_id = create_run_for_test(log.instance, status=dg.DagsterRunStatus.STARTED).run_id
    log.end_run(run_id)
    assert same(tail, log).failures == {}


def test_a_build_after_an_interruption_makes_it_good(tail, log):
    log.end_run(log.start_run(ORDERS))
    tail()
    log.build(ORDERS, at=LATER)
    assert same(tail, log).failures == {}


def test_a_failure_is_remembered_however_old_it_is(log):
    failure = log.fail(ORDERS, at=NOW - timedelta(days=400))
    assert log.snapshot().failures == {ORDERS: failure}


def test_a_run_whose_failures_were_made_good_is_not_read_again(log, monkeypatch):
    state = EventLogState(log.instance, log.project.name)
    keys = log.project.load().keys
    ended_well = log.start_run(STG)
    interrupted = log.start_run(ORDERS, STG)
    for run_id in (ended_well, interrupted):
        log.end_run(run_id)
    state.snapshot(keys, NOW)
    log.build(STG, at=LATER)
    state.settle(keys, NOW, ended_well)
    assert set(log.snapshot().failures) == {ORDERS}, "not all of it was made good"
    log.build(ORDERS, at=LATER)
    state.settle(keys, NOW)
    monkeypatch.setattr(type(log.instance), "get_records_for_run", no_run_is_read(log.instance))
    assert log.snapshot().failures == {}


def no_run_is_read(instance):
    read = type(instance).get_records_for_run

    def read_wipes_only(self, run_id, *args, **options):
        assert run_id == RUNLESS_RUN_ID
        return read(self, run_id, *args, **options)

    return read_wipes_only


def test_wiping_resets_a_node_and_nothing_else(tail, log):
    log.token("1")
    log.build(STG, ORDERS, at=NOW)
    log.fail(ORDERS, at=NOW + timedelta(minutes=1))
    tail()
    log.wipe(ORDERS)
    state = same(tail, log)
    assert (set(state.builds), state.failures) == ({STG}, {})
    assert state.sources[RAW].token == "1"


def test_wiping_ends_a_failure_that_no_build_preceded(tail, log):
    log.fail(ORDERS, at=NOW)
    tail()
    log.wipe(ORDERS)
    assert same(tail, log).failures == {}


def test_what_was_wiped_stays_so_when_reading_on(tail, log):
    log.token("1")
    log.build(STG, ORDERS, at=NOW)
    log.fail(STG, at=NOW + timedelta(minutes=1))
    for uid in (RAW, STG, ORDERS):
        log.wipe(uid)
    tail()
    log.observe(ORDERS, {"something": "else"})
    state = same(tail, log)
    assert (state.builds, state.sources, state.failures) == ({}, {}, {})


def test_wiping_resets_a_source(tail, log):
    log.token("1")
    tail()
    log.wipe(RAW)
    assert same(tail, log).sources == {}


def test_a_build_after_a_wipe_counts(tail, log):
    log.build(ORDERS, at=NOW)
    tail()
    log.wipe(ORDERS)
    build = log.build(ORDERS, at=NOW)
    assert same(tail, log).builds[ORDERS] == build


def test_a_materialization_of_somebody_else_resets_a_node(tail, log):
    """Who reported it by hand may have written the table; nobody knows from what."""
    log.build(ORDERS, at=NOW)
    tail()
    log.materialize(ORDERS)
    assert ORDERS not in same(tail, log).builds


@pytest.mark.parametrize("record", [{"layout": 2}, {"layout": 1}, [], {"layout": 1, "started_at": "x"}])
def test_a_record_of_another_version_resets_a_node(tail, log, record):
    log.materialize(ORDERS, metadata={BUILD_KEY: dg.MetadataValue.json(record)})
    assert ORDERS not in same(tail, log).builds


def test_garbage_in_other_peoples_events_costs_nothing(tail, log):
    log.materialize(RAW, metadata={HISTORY_KEY: dg.MetadataValue.json([["x"]])}, tags={"dagster/data_version": "1"})
    log.materialize(ORDERS, metadata={BUILD_KEY: "text"})
    log.observe(ORDERS, {FAILURE_KEY: 7})
    log.instance.report_runless_asset_event(dg.AssetMaterialization(dg.AssetKey(["not", "ours"])))
    state = same(tail, log)
    assert (state.sources[RAW].token, state.builds, state.failures) == ("1", {}, {})


def test_observations_that_are_no_failures_change_nothing(tail, log):
    failure = log.fail(ORDERS, at=NOW)
    log.observe(ORDERS, {"dagster_sao/decision": "hold"})
    assert same(tail, log).failures == {ORDERS: failure}


def test_another_manifest_is_read_from_the_start(log, tmp_path):
    log.build(ORDERS, at=NOW)
    state = EventLogState(log.instance, log.project.name)
    assert state.snapshot(log.project.load().keys, NOW).builds
    other = load_project(tmp_path / "other", shop_manifest())
    assert set(state.snapshot(other.load().keys, NOW).builds) == {ORDERS}


def test_reading_on_asks_for_what_is_new_only(log, tail, monkeypatch):
    log.build(at=NOW)
    tail()
    log.build(ORDERS, at=NOW + timedelta(minutes=1))
    monkeypatch.setattr(type(log.instance), "get_asset_records", lambda *_: pytest.fail("read everything again"))
    assert tail().builds[ORDERS].ended_at == NOW + timedelta(minutes=1)


def test_new_events_are_read_page_by_page(log, tail, monkeypatch):
    monkeypatch.setattr(dagster_internals, "_PAGE", 2)
    for minute in range(3):
        log.build(STG, ORDERS, at=NOW + timedelta(minutes=minute))
    log.fail(ORDERS)
    assert same(tail, log).builds[ORDERS].ended_at == NOW + timedelta(minutes=2)


def test_after_many_events_of_other_assets_the_last_ones_are_read_instead(log, tail, monkeypatch):
    few = 20
    monkeypatch.setattr(event_log, "_FEW_EVENTS", few)
    log.build(STG, ORDERS, at=NOW)
    log.token("1")
    for number in range(3 * few):
        log.instance.report_runless_asset_event(dg.AssetMaterialization(f"other_{number}"))
    seen = []

    def events_after(*args):
        for record in dagster_internals.events_after(*args):
            seen.append(record)
            yield record

    monkeypatch.setattr(event_log, "events_after", events_after)
    assert same(tail, log).sources[RAW].token == "1"
    assert len(seen) == few + 1
