"""Where verdicts are kept: in the instance's database, beside the events, for every process."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import dagster as dg
import pytest
import sqlalchemy as sa

from dagster_sao.core.code.fingerprint import Fingerprint
from dagster_sao.core.state.state import Verdict, VerdictStatus
from dagster_sao.orchestration.private.dagster_internals import database_engine
from dagster_sao.orchestration.state import verdicts as module
from dagster_sao.orchestration.state.verdicts import VerdictError, VerdictTable
from tests.orchestration.shops import NOW
from tests.support.postgres_instance import write_instance

PASSED = Verdict(VerdictStatus.PASS, NOW, "run 1", Fingerprint({"sql": "1"}), {"model.shop.orders": "v1"})
FAILED = replace(PASSED, status=VerdictStatus.FAIL, failures=3, run_id="run 2")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def home(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("verdicts")
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres_server")
        server.ask("create database verdicts")
        return write_instance(folder / "home", server, "verdicts")
    (folder / "dagster.yaml").write_text("telemetry: {enabled: false}")
    return folder


@pytest.fixture
def instance(home):
    with dg.DagsterInstance.from_config(str(home)) as opened:
        module._VERDICTS.drop(database_engine(opened), checkfirst=True)
        yield opened


def test_nothing_is_known_and_nothing_written_before_the_first_verdict(instance):
    assert VerdictTable(instance, "shop").read() == {}
    assert not sa.inspect(database_engine(instance)).has_table(module._VERDICTS.name)


def test_a_verdict_is_seen_by_a_process_that_reads_later_and_by_one_that_read_before(instance):
    before = VerdictTable(instance, "shop")
    before.read()
    VerdictTable(instance, "shop").write({"a": PASSED, "b": FAILED})
    assert before.read() == VerdictTable(instance, "shop").read() == {"a": PASSED, "b": FAILED}


def test_a_new_verdict_takes_the_place_of_the_last(instance):
    table = VerdictTable(instance, "shop")
    table.write({"a": FAILED})
    assert table.read() == {"a": FAILED}
    VerdictTable(instance, "shop").write({"a": PASSED})
    assert table.read() == VerdictTable(instance, "shop").read() == {"a": PASSED}


def test_a_forgotten_verdict_is_gone_for_every_process(instance):
    other = VerdictTable(instance, "shop")
    other.write({"a": PASSED, "b": PASSED})
    other.read()
    VerdictTable(instance, "shop").forget(["a", "unknown"])
    assert other.read() == VerdictTable(instance, "shop").read() == {"b": PASSED}


def test_a_test_with_other_arguments_takes_the_place_of_its_namesake(instance):
    """Else the old answer would stand again, and not be shown, when the arguments are changed back."""
    table = VerdictTable(instance, "shop")
    before, after, other = "test.shop.ids.1", "test.shop.ids.2", "test.shop.others.1"
    table.write({before: PASSED, other: PASSED}, {before, other})
    table.write({after: FAILED}, {after})
    assert VerdictTable(instance, "shop").read() == {after: FAILED, other: PASSED}


def test_projects_and_environments_are_kept_apart(instance):
    VerdictTable(instance, "shop").write({"a": PASSED})
    VerdictTable(instance, "shop.ci").write({"a": FAILED})
    assert VerdictTable(instance, "shop").read() == {"a": PASSED}
    assert VerdictTable(instance, "shop.ci").read() == {"a": FAILED}


def test_verdicts_survive_a_restart_and_the_run_that_gave_them(home):
    with dg.DagsterInstance.from_config(str(home)) as instance:
        run_id = instance.create_run_for_job(_job()).run_id
        VerdictTable(instance, "shop").write({"a": replace(PASSED, run_id=run_id)})
        instance.delete_run(run_id)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert set(VerdictTable(instance, "shop").read()) == {"a"}


def _job() -> dg.JobDefinition:
    @dg.job
    def empty():
        pass

    return empty


def test_only_what_is_new_is_read(instance, monkeypatch):
    table = VerdictTable(instance, "shop")
    table.write({str(number): PASSED for number in range(450)})
    assert len(table.read()) == 450
    parsed = []
    monkeypatch.setattr(module, "verdict_from_json", lambda record: parsed.append(record["test"]))
    table.read()
    assert parsed == []
    VerdictTable(instance, "shop").write({"7": FAILED})
    table.read()
    assert parsed == ["7"]


def test_a_table_that_was_emptied_is_noticed(instance):
    table = VerdictTable(instance, "shop")
    table.write({"a": PASSED})
    table.read()
    with database_engine(instance).begin() as connection:
        connection.execute(sa.delete(module._VERDICTS))
    assert table.read() == {}


def test_what_another_version_wrote_counts_as_never_run(instance):
    table = VerdictTable(instance, "shop")
    table.write({"a": PASSED})
    with database_engine(instance).begin() as connection:
        connection.execute(sa.update(module._VERDICTS).values(record='{"test": "a", "layout": 99}'))
    assert VerdictTable(instance, "shop").read() == {}


def test_many_writers_at_once_lose_nothing(instance):
    from concurrent.futures import ThreadPoolExecutor

    tables = [VerdictTable(instance, "shop") for _ in range(6)]
    tables[0].prepare()

    def write(number):
        later = replace(PASSED, at=NOW + timedelta(seconds=number), run_id=f"run {number}")
        tables[number % 6].write({"shared": later, f"own {number}": later})

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(24)))
    found = VerdictTable(instance, "shop").read()
    assert set(found) == {"shared", *(f"own {number}" for number in range(24))}


def test_a_database_that_does_not_answer_is_named(instance, monkeypatch):
    table = VerdictTable(instance, "shop")
    table.write({"a": PASSED})
    monkeypatch.setattr("dagster_sao.orchestration.leases.tables._FIRST_PAUSE_SECONDS", 0.001)
    with database_engine(instance).begin() as connection:
        connection.execute(sa.text(f"drop table {module._VERDICTS.name}"))
    with pytest.raises(
        VerdictError, match=r"The verdicts cannot be read in the Dagster instance's database: .*verdicts"
    ):
        VerdictTable.read(_opened(table, instance))


def _opened(table, instance):
    """Return a table that was found before it was dropped."""
    table._engine = database_engine(instance)
    return table
