"""Runs whose process was killed: who notices, and what becomes of them. Real processes, on SQLite and PostgreSQL."""

# No `from __future__ import annotations` here: Dagster reads the annotations of an asset.
import os

import dagster as dg
import pytest
import sqlalchemy as sa

from dagster_sao.orchestration.leases import leases as module
from dagster_sao.orchestration.leases.dead_runs import end_dead_runs
from dagster_sao.orchestration.leases.leases import Leases, sign_of_life
from dagster_sao.orchestration.private.dagster_internals import database_engine, step_key
from tests.support.polling import wait_for
from tests.support.postgres_instance import write_instance
from tests.support.processes import PROCESSES

LEASES = module._LEASES


@dg.asset
def alive(context: dg.AssetExecutionContext):
    with Leases(context.instance, context.run.run_id).heartbeat(lambda _why: None, step_key=step_key(context)):
        if context.run.tags.get("dies") == "with the run":
            os._exit(1)
    if context.run.tags.get("dies") == "later":
        os._exit(1)


@dg.asset
def careless(context: dg.AssetExecutionContext):
    """A step whose process died, and whose run went on."""
    Leases(context.instance, context.run.run_id)._show(sign_of_life(context.run.run_id, step_key(context)))
    raise dg.Failure("its process died")


@dg.asset
def patient(context: dg.AssetExecutionContext):
    with Leases(context.instance, context.run.run_id).heartbeat(lambda _why: None, step_key=step_key(context)):
        raise dg.RetryRequested(seconds_to_wait=600)


@dg.asset
def last():
    os._exit(1)


def execute(home, tags, names):
    assets = [asset for asset in (alive, careless, patient, last) if asset.key.path[-1] in names]
    with dg.DagsterInstance.from_config(str(home)) as instance:
        dg.materialize(assets, instance=instance, tags=tags, raise_on_error=False)


@pytest.fixture(params=["sqlite", "postgresql"])
def instance(request, tmp_path):
    if request.param == "postgresql":
        name = f"dead_runs_{os.urandom(4).hex()}"
        server = request.getfixturevalue("postgres_server")
        server.ask(f"create database {name}")
        write_instance(tmp_path, server, name)
    else:
        (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance


def start(instance, names, **tags):
    process = PROCESSES.Process(target=execute, args=(instance.root_directory, tags, names))
    process.start()
    return process


def run_to_its_end(instance, names, **tags):
    start(instance, names, **tags).join(120)
    return instance.get_run_records(limit=1)[0].dagster_run


def let_time_pass(instance, seconds):
    with database_engine(instance).begin() as connection:
        connection.execute(sa.update(LEASES).values(expires_at=LEASES.c.expires_at - seconds))


def signs(instance):
    with database_engine(instance).begin() as connection:
        return [relation for (relation,) in connection.execute(sa.select(LEASES.c.relation))]


def status(instance, run):
    return instance.get_run_by_id(run.run_id).status


def test_a_run_that_was_killed_is_ended_after_two_minutes(instance):
    run = run_to_its_end(instance, ["alive"], dies="with the run")
    assert status(instance, run) is dg.DagsterRunStatus.STARTED
    let_time_pass(instance, 2 * module.LEASE_SECONDS - 30)
    assert end_dead_runs(instance) == []
    let_time_pass(instance, 31)
    # What others claim in the meantime leaves the sign where it is.
    Leases(instance, "another").claim(["a"])
    assert end_dead_runs(instance) == [run.run_id]
    assert status(instance, run) is dg.DagsterRunStatus.FAILURE
    messages = [entry.dagster_event.message for entry in instance.all_logs(run.run_id) if entry.dagster_event]
    assert any("no heartbeat for two minutes" in (message or "") for message in messages)
    assert end_dead_runs(instance) == []


def test_a_run_that_is_canceled_and_killed_ends_as_canceled(instance):
    run = run_to_its_end(instance, ["alive"], dies="with the run")
    instance.report_run_canceling(run)
    let_time_pass(instance, 2 * module.LEASE_SECONDS + 1)
    assert end_dead_runs(instance) == [run.run_id]
    assert status(instance, run) is dg.DagsterRunStatus.CANCELED


def test_the_sign_of_a_run_that_ended_is_forgotten(instance):
    run = run_to_its_end(instance, ["alive"])
    assert signs(instance) == [sign_of_life(run.run_id, "alive")]
    let_time_pass(instance, 2 * module.LEASE_SECONDS + 1)
    assert end_dead_runs(instance) == []
    assert status(instance, run) is dg.DagsterRunStatus.SUCCESS
    assert signs(instance) == []


def test_a_run_that_was_killed_after_its_work_is_ended(instance):
    run = run_to_its_end(instance, ["alive"], dies="later")
    let_time_pass(instance, 2 * module.LEASE_SECONDS + 1)
    assert end_dead_runs(instance) == [run.run_id]


def test_a_run_whose_steps_have_all_ended_and_that_has_not_is_ended(instance):
    """Its worker was killed while a step process of its own went on."""
    run = run_to_its_end(instance, ["alive"])
    with database_engine(instance).begin() as connection:
        connection.execute(sa.text(f"update runs set status = 'STARTED' where run_id = '{run.run_id}'"))
    let_time_pass(instance, 2 * module.LEASE_SECONDS + 1)
    assert end_dead_runs(instance) == [run.run_id]
    assert status(instance, run) is dg.DagsterRunStatus.FAILURE


def test_a_run_that_does_other_things_by_now_is_left_alone(instance):
    """Whether its process is alive is not known to us once the step has ended."""
    run = run_to_its_end(instance, ["careless", "last"])
    assert signs(instance) == [sign_of_life(run.run_id, "careless")]
    let_time_pass(instance, 2 * module.LEASE_SECONDS + 1)
    assert end_dead_runs(instance) == []
    assert status(instance, run) is dg.DagsterRunStatus.STARTED
    assert signs(instance) == []


def test_a_run_whose_step_waits_to_be_tried_again_is_left_alone(instance):
    def waits():
        runs = instance.get_run_records(limit=1)
        return runs and instance.all_logs(runs[0].dagster_run.run_id, of_type=dg.DagsterEventType.STEP_UP_FOR_RETRY)

    process = start(instance, ["patient"])
    try:
        wait_for("the step to wait", waits, seconds=120)
        let_time_pass(instance, 2 * module.LEASE_SECONDS + 1)
        assert end_dead_runs(instance) == []
    finally:
        process.kill()
        process.join(30)


def test_a_step_that_is_tried_again_takes_over_the_sign(instance):
    first, second = Leases(instance, "run"), Leases(instance, "run")
    lost = []
    with first.heartbeat(lost.append, step_key="step"), second.heartbeat(lost.append, step_key="step"):
        let_time_pass(instance, 3 * module.LEASE_SECONDS)
        assert second.renew()
        assert not first.renew()
        assert end_dead_runs(instance) == []


def test_an_instance_without_a_database_has_no_runs_to_end():
    class NoDatabase:
        run_storage = object()

    assert end_dead_runs(NoDatabase()) == []
