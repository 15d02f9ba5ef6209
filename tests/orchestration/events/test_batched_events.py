"""What is stored many at once is what Dagster stores one by one: on SQLite, on PostgreSQL and in memory."""

from __future__ import annotations

import uuid
from collections import Counter

import dagster as dg
import pytest

from dagster_sao.orchestration.events import batched_events
from dagster_sao.orchestration.events.batched_events import store_step_events
from dagster_sao.orchestration.private.dagster_internals import expect_no_check_results, listen_to_run
from tests.support.postgres_instance import write_instance

KEYS = [dg.AssetKey(["shop", name]) for name in ("orders", "customers", "areas")]
OF_ASSETS = {dg.DagsterEventType.ASSET_OBSERVATION, dg.DagsterEventType.ASSET_CHECK_EVALUATION}
UNIQUE, NOT_NULL = (dg.AssetCheckKey(KEYS[0], name) for name in ("unique", "not_null"))
CONTENTS = [
    *(
        dg.AssetObservation(key, description="No change", metadata={"why": f"{n} sources"})
        for n, key in enumerate(KEYS)
    ),
    dg.AssetCheckEvaluation(asset_key=KEYS[0], check_name="unique", passed=True, metadata={"rows": 3}),
    dg.AssetCheckEvaluation(
        asset_key=KEYS[0],
        check_name="not_null",
        passed=False,
        severity=dg.AssetCheckSeverity.WARN,
        description="2 rows",
    ),
]


@pytest.fixture(params=["sqlite", "postgresql", "in memory"])
def instance(request, tmp_path):
    if request.param == "in memory":
        with dg.DagsterInstance.ephemeral() as instance:
            yield instance
        return
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}")
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres_server")
        server.ask("create database step_events_instance")
        write_instance(tmp_path, server, "step_events_instance")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance
    if request.param == "postgresql":
        server.ask("drop database step_events_instance with (force)")


def run(instance, report, *, run_id=None):
    """Execute a step over assets with checks that says what `report` makes of its contents."""

    @dg.multi_asset(
        name="models",
        specs=[dg.AssetSpec(key, skippable=True) for key in KEYS],
        check_specs=[dg.AssetCheckSpec(key.name, asset=key.asset_key) for key in (UNIQUE, NOT_NULL)],
        can_subset=True,
    )
    def models(context):
        yield from report(context)

    job = dg.Definitions(assets=[models], jobs=[dg.define_asset_job("all")]).resolve_job_def("all")
    return job.execute_in_process(instance=instance, run_id=run_id)


def stored(instance, run_id):
    """Return what the run's log says of assets, without what differs from run to run."""
    entries = [record.event_log_entry for record in instance.get_records_for_run(run_id, of_type=OF_ASSETS).records]
    assert all(entry.run_id == run_id and entry.timestamp > 0 for entry in entries)
    return [
        entry._replace(
            run_id="", timestamp=0.0, dagster_event=entry.dagster_event._replace(pid=None, logging_tags=None)
        )
        for entry in entries
    ]


def across_runs(instance, run_id):
    """Return what questions about assets and checks find of a run."""
    observed = [instance.fetch_observations(key, limit=10).records for key in KEYS]
    checks = [instance.event_log_storage.get_asset_check_execution_history(key, limit=10) for key in (UNIQUE, NOT_NULL)]
    return (
        [[record.asset_observation for record in records if record.run_id == run_id] for records in observed],
        [[record.status for record in records if record.run_id == run_id] for records in checks],
        {key: instance.has_asset_key(key) for key in KEYS},
    )


def test_it_is_stored_as_dagster_does_and_in_the_result(instance, monkeypatch):
    monkeypatch.setattr(batched_events, "_AT_ONCE", 2)
    by_dagster = run(instance, lambda _context: iter(CONTENTS))
    by_us = run(instance, lambda context: store_step_events(context, CONTENTS))
    assert len(stored(instance, by_us.run_id)) == len(CONTENTS)
    assert stored(instance, by_us.run_id) == stored(instance, by_dagster.run_id)
    assert across_runs(instance, by_us.run_id) == across_runs(instance, by_dagster.run_id)
    types = [Counter(event.event_type for event in result.all_events) for result in (by_us, by_dagster)]
    assert types[0] == types[1]


def test_who_listens_to_the_run_hears_of_it(instance):
    heard, run_id = [], str(uuid.uuid4())
    listen_to_run(instance, run_id, heard.append)
    result = run(instance, lambda context: store_step_events(context, CONTENTS), run_id=run_id)
    said = [event for event in result.all_events if event.event_type in OF_ASSETS]
    assert [event for event in heard if event.event_type in OF_ASSETS] == said
    assert len(said) == len(CONTENTS)


def test_nothing_is_nothing(instance):
    result = run(instance, lambda context: store_step_events(context, []))
    assert (result.success, stored(instance, result.run_id)) == (True, [])


def test_checks_that_end_without_a_result_of_their_own_are_no_missing_outputs(instance):
    def report(context):
        expect_no_check_results(context)
        context.log.info("said by the step")
        return store_step_events(context, CONTENTS)

    logs = [instance.all_logs(run(instance, one).run_id) for one in (report, lambda _context: iter(()))]
    missing = [any("did not yield or return" in entry.user_message for entry in log) for log in logs]
    # The second is what Dagster says otherwise.
    assert missing == [False, True]
    assert any(entry.user_message == "said by the step" for entry in logs[0])
