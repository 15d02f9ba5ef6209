"""While a run writes its events, the files stay open, and hold what they would hold otherwise."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import psutil
import pytest
from dagster._core.storage.event_log.sqlite import sqlite_event_log

from dagster_sao.orchestration.private.open_files import kept_open

KEYS = [dg.AssetKey(name) for name in ("orders", "customers", "areas")]
CHECK = dg.AssetCheckKey(KEYS[1], "unique")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("instance")
    (folder / "dagster.yaml").write_text("telemetry: {enabled: false}")
    return folder


@pytest.fixture(scope="module")
def instance(folder):
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        yield instance


@pytest.fixture
def opened(monkeypatch):
    """Return the files that Dagster opens, each time it does."""
    original, found = sqlite_event_log.create_engine, []

    def create_engine(url, **options):
        found.append(Path(url).stem)
        return original(url, **options)

    monkeypatch.setattr(sqlite_event_log, "create_engine", create_engine)
    return found


def run(instance, *, keeps_open, during=lambda _number: None, fails=False):
    """Execute a step that builds assets, each of which reads the one before, with a check on the second."""

    @dg.multi_asset(
        specs=[
            dg.AssetSpec(key, deps=KEYS[number - 1 : number] if number else [], skippable=True)
            for number, key in enumerate(KEYS)
        ],
        check_specs=[dg.AssetCheckSpec(CHECK.name, asset=CHECK.asset_key)],
        can_subset=True,
    )
    def models(context):
        if keeps_open:
            with kept_open(instance, context.run.run_id):
                yield from events()
        else:
            yield from events()

    def events():
        for number, key in enumerate(KEYS):
            yield dg.MaterializeResult(key, data_version=dg.DataVersion(f"v{number}"), metadata={"rows": number})
            during(number)
        yield dg.AssetCheckResult(asset_key=CHECK.asset_key, check_name=CHECK.name, passed=True)
        if fails:
            raise ValueError

    return dg.materialize([models], instance=instance, raise_on_error=not fails)


def stored(instance, run_id):
    """Return what the instance knows of its last run, without what differs from run to run."""
    log = [entry.dagster_event and entry.dagster_event.event_type for entry in instance.all_logs(run_id)]
    records = {record.asset_entry.asset_key: record.asset_entry for record in instance.get_asset_records(KEYS)}
    assert {entry.last_run_id for entry in records.values()} == {run_id}
    tags = {
        (key, name): value
        for key, entry in records.items()
        for name, value in entry.last_materialization.tags.items()
        if "pointer" not in name and value != run_id
    }
    (check,) = instance.event_log_storage.get_asset_check_execution_history(CHECK, limit=1)
    assert check.event.dagster_event.event_specific_data.target_materialization_data.run_id == run_id
    return log, tags, check.status


def test_what_is_stored_is_the_same(instance):
    by_dagster = run(instance, keeps_open=False).run_id
    expected = stored(instance, by_dagster)
    by_us = run(instance, keeps_open=True).run_id
    assert stored(instance, by_us) == expected
    former = instance.fetch_materializations(KEYS[0], limit=5).records
    assert [record.run_id for record in former][:2] == [by_us, by_dagster]


def test_dagster_opens_no_file_to_store_an_event(instance, opened):
    counts = []
    run(instance, keeps_open=True, during=lambda _number: counts.append(len(opened)))
    assert counts[-1] == counts[0]
    counts.clear()
    run(instance, keeps_open=False, during=lambda _number: counts.append(len(opened)))
    assert counts[-1] - counts[0] > 5 * len(KEYS)


def test_the_files_are_closed_at_the_end_also_after_an_error(instance, folder):
    during = []
    result = run(instance, keeps_open=True, during=lambda _: during.append(open_files(folder)), fails=True)
    assert not result.success
    assert any(during)
    assert open_files(folder) == set()
    assert not {"_connect", "has_table"} & set(vars(instance.event_log_storage))


def open_files(folder):
    """Return the databases in a folder that this process has open."""
    found = (Path(file.path) for file in psutil.Process().open_files())
    return {path.name for path in found if path.suffix == ".db" and path.is_relative_to(folder / "history")}


def test_others_read_and_write_meanwhile(instance, folder):
    seen = []

    def during(number):
        with dg.DagsterInstance.from_config(str(folder)) as other:
            seen.append(other.get_latest_materialization_event(KEYS[number]) is not None)
            other.report_runless_asset_event(dg.AssetMaterialization(f"other_{number}"))
        seen.append(instance.get_latest_materialization_event(dg.AssetKey(f"other_{number}")) is not None)

    assert run(instance, keeps_open=True, during=during).success
    assert seen == [True] * 6


def test_a_replaced_file_is_not_written_any_more(instance, folder):
    def during(number):
        if number == 0:
            (index,) = folder.rglob("index.db")
            content = index.read_bytes()
            index.rename(index.with_suffix(".old"))
            for companion in ("-wal", "-shm"):
                Path(f"{index}{companion}").unlink(missing_ok=True)
            index.write_bytes(content)

    result = run(instance, keeps_open=True, during=during)
    assert result.success
    last = instance.fetch_materializations(KEYS[2], limit=1).records
    assert [record.run_id for record in last] == [result.run_id]


def test_another_instance_stays_as_it_is():
    with dg.DagsterInstance.ephemeral() as instance:
        assert run(instance, keeps_open=True).success


def test_a_second_run_in_the_process_uses_the_files_of_the_first(instance):
    storage = instance.event_log_storage
    with kept_open(instance, "first"):
        connect = storage._connect
        with kept_open(instance, "second"):
            assert storage._connect == connect
        assert storage._connect == connect
    assert "_connect" not in vars(storage)
