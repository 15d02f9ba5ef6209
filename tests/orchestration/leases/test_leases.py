"""One writer per relation: the lease table in real instances, on SQLite and on PostgreSQL."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from types import SimpleNamespace

import dagster as dg
import pytest
import sqlalchemy as sa

from dagster_sao.core.code.fingerprint import Fingerprint
from dagster_sao.core.decision.decide import Action, Decision, Reason
from dagster_sao.core.manifest.build_settings import NO_SETTINGS
from dagster_sao.core.state.state import FailedAttempt, LastBuild, StateSnapshot
from dagster_sao.orchestration.leases import leases as module
from dagster_sao.orchestration.leases import tables
from dagster_sao.orchestration.leases.leases import Claim, LeaseError, Leases
from dagster_sao.orchestration.leases.writers import RunWriters, WriterTable
from dagster_sao.orchestration.private.dagster_internals import database_engine
from tests.support.lease_claimer import RELATIONS, claim_in_threads
from tests.support.postgres_instance import write_instance
from tests.support.processes import PROCESSES

TABLE = module._LEASES


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def home(request, tmp_path_factory):
    """The folder of an instance with a database of its own."""
    folder = tmp_path_factory.mktemp("instance")
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres_server")
        server.ask("create database leases_instance")
        write_instance(folder, server, "leases_instance")
    else:
        (folder / "dagster.yaml").write_text("telemetry: {enabled: false}")
    return folder


@pytest.fixture
def instance(home):
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance
        execute(instance, sa.delete(TABLE))


def execute(instance, statement):
    with database_engine(instance).begin() as connection:
        result = connection.execute(statement)
        return result.all() if result.returns_rows else None


def expire(instance, run_id):
    """Let the leases of a run have run out: what 60 seconds without a heartbeat lead to."""
    execute(instance, sa.update(TABLE).where(TABLE.c.run_id == run_id).values(expires_at=1.0))


def expiry(instance):
    """Return when each lease ends, signs of life left out."""
    return [at for (at,) in execute(instance, sa.select(TABLE.c.expires_at).where(~module._IS_SIGN))]


def test_what_is_claimed_is_held_until_it_is_released(instance):
    one, two = Leases(instance, "one"), Leases(instance, "two")
    assert one.claim(["a", "b"]) == Claim(frozenset("ab"), {})
    assert two.claim(["b", "c"]) == Claim(frozenset("c"), {"b": "one"})
    assert two.holders(["a", "b", "c"]) == {"a": "one", "b": "one"}
    assert (one.held, two.held) == (frozenset("ab"), frozenset("c"))
    one.release(["b"])
    assert two.claim(["a", "b"]) == Claim(frozenset("b"), {"a": "one"})
    one.release()
    two.release()
    assert expiry(instance) == []


def test_two_processes_of_one_run_are_two_owners(instance):
    first, second = Leases(instance, "run"), Leases(instance, "run")
    first.claim(["a"])
    assert second.claim(["a"]) == Claim(frozenset(), {"a": "run"})
    second.release()
    assert second.holders(["a"]) == {"a": "run"}


def test_a_claim_of_what_is_held_already_and_of_nothing_changes_nothing(instance):
    leases = Leases(instance, "run")
    leases.claim(["a"])
    assert leases.claim(["a"]) == leases.claim([]) == Claim(frozenset(), {})
    assert leases.held == {"a"}


def test_thousands_of_relations_are_claimed_and_released_at_once(instance):
    relations = [f"{number:064}" for number in range(2500)]
    one, two = Leases(instance, "one"), Leases(instance, "two")
    assert len(one.claim(relations).granted) == 2500
    assert len(two.claim(relations).held_by) == len(two.holders(relations)) == 2500
    assert one.renew()
    one.release()
    assert expiry(instance) == []


def test_the_leases_of_a_dead_run_run_out(instance):
    dead, alive = Leases(instance, "dead"), Leases(instance, "alive")
    dead.claim(["a", "b"])
    assert alive.claim(["a"]).held_by == {"a": "dead"}
    expire(instance, "dead")
    assert alive.holders(["a", "b"]) == {}
    assert alive.claim(["a"]) == Claim(frozenset("a"), {})


def test_a_lease_lasts_a_minute_by_the_clock_of_the_database(instance):
    Leases(instance, "run").claim(["a"])
    with database_engine(instance).begin() as connection:
        seconds = expiry(instance)[0] - module._now(connection)
    assert module.LEASE_SECONDS - 30 < seconds <= module.LEASE_SECONDS


def set_ahead(instance, run_id):
    """Let the leases of a run have been taken before the database's clock was set back by a day."""
    is_his = TABLE.c.run_id == run_id
    execute(instance, sa.update(TABLE).where(is_his).values(expires_at=TABLE.c.expires_at + 86400))


@pytest.mark.parametrize("look", ["claim", "holders"])
def test_a_lease_from_before_the_clock_was_set_back_lasts_no_longer_than_another(instance, look):
    dead, alive = Leases(instance, "dead"), Leases(instance, "alive")
    dead.claim(["a"])
    set_ahead(instance, "dead")
    # Its owner may be alive, so it is not over at once.
    assert getattr(alive, look)(["a"]) == (Claim(frozenset(), {"a": "dead"}) if look == "claim" else {"a": "dead"})
    with database_engine(instance).begin() as connection:
        assert expiry(instance)[0] <= module._now(connection) + module.LEASE_SECONDS


def test_a_sign_of_life_from_before_the_clock_was_set_back_lapses_like_another(instance):
    Leases(instance, "dead")._show("alive dead")
    set_ahead(instance, "dead")
    assert module.lapsed_signs(instance) == {}
    (at,) = (at for (at,) in execute(instance, sa.select(TABLE.c.expires_at)))
    with database_engine(instance).begin() as connection:
        assert at <= module._now(connection) + module.LEASE_SECONDS


def test_a_process_that_was_frozen_learns_what_it_lost_when_it_asks(instance):
    frozen, other = Leases(instance, "frozen"), Leases(instance, "other")
    frozen.claim(["a", "b", "c"])
    expire(instance, "frozen")
    # Nobody took them meanwhile: they are still its own, and last a minute more.
    assert frozen.keep(["b", "not held"])
    assert other.claim(["a", "b"]) == Claim(frozenset("a"), {"b": "frozen"})
    assert frozen.keep(["b"])
    assert not frozen.keep(["a", "b"])
    assert not frozen.keep(["c"])


def test_a_renewed_lease_lasts_longer(instance):
    leases, other = Leases(instance, "run"), Leases(instance, "other")
    assert leases.renew()
    leases.claim(["a", "b"])
    other.claim(["c"])
    expire(instance, "run")
    expire(instance, "other")
    assert leases.renew()
    assert other.claim(["a", "b"]).held_by == {"a": "run", "b": "run"}
    assert not other.renew()


def test_what_another_run_took_over_is_lost(instance):
    late, quick = Leases(instance, "late"), Leases(instance, "quick")
    late.claim(["a", "b"])
    expire(instance, "late")
    assert quick.claim(["a"]).granted == {"a"}
    assert not late.renew()
    late.release()
    assert quick.renew()


def test_a_lease_that_could_not_be_released_runs_out_though_its_run_goes_on(instance, monkeypatch):
    leases, other = Leases(instance, "run"), Leases(instance, "other")
    leases.claim(["a", "b"])
    with monkeypatch.context() as broken:
        broken.setattr(TABLE, "name", "no_such_table")
        leases.release(["a"])
    expire(instance, "run")
    assert leases.renew()
    assert other.claim(["a", "b"]) == Claim(frozenset("a"), {"b": "run"})


class Alarm:
    """What the heartbeat calls when leases are lost."""

    def __init__(self):
        self.said, self.rang = [], threading.Event()

    def __call__(self, sentence):
        self.said.append(sentence)
        self.rang.set()


def test_the_heartbeat_renews_until_the_end_and_then_releases(instance, monkeypatch):
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.01)
    renewed, alarm = threading.Event(), Alarm()
    leases = Leases(instance, "run")
    renew = leases.renew
    monkeypatch.setattr(leases, "renew", lambda: (renew(), renewed.set())[0])
    leases.claim(["a"])
    with leases.heartbeat(alarm):
        expire(instance, "run")
        renewed.clear()
        assert renewed.wait(30)
        assert Leases(instance, "other").claim(["a"]).held_by == {"a": "run"}
    assert (leases.held, expiry(instance), alarm.said) == (frozenset(), [], [])


def test_the_heartbeat_releases_also_when_the_run_fails(instance):
    leases = Leases(instance, "run")

    def fail():
        with leases.heartbeat(Alarm()):
            leases.claim(["a"])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert expiry(instance) == []


def test_the_run_is_told_that_another_took_over(instance, monkeypatch):
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.01)
    alarm = Alarm()
    leases = Leases(instance, "late")
    leases.claim(["a"])
    expire(instance, "late")
    Leases(instance, "quick").claim(["a"])
    with leases.heartbeat(alarm):
        assert alarm.rang.wait(30)
    assert alarm.said == ["The leases of this run ran out, so that another run may be building its models by now."]
    assert Leases(instance, "third").holders(["a"]) == {"a": "quick"}


def test_the_run_is_told_when_the_database_does_not_answer(instance, monkeypatch):
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.01)
    monkeypatch.setattr(module, "LEASE_SECONDS", 0.05)
    alarm = Alarm()
    leases = Leases(instance, "run")
    leases.claim(["a"])
    with leases.heartbeat(alarm):
        monkeypatch.setitem(tables.NOW, database_engine(instance).dialect.name, "select 1 from no_such_table")
        assert alarm.rang.wait(30)
    (said,) = alarm.said
    assert said.startswith("The leases cannot be renewed in the Dagster instance's database: ")
    assert "no_such_table" in said
    with pytest.raises(LeaseError, match=r"leases cannot be taken in the Dagster instance's database: .*no_such"):
        leases.claim(["b"])


def test_many_threads_and_processes_never_hold_one_relation_at_once(home, tmp_path):
    # The table is not there yet, so they also create it at once.
    with dg.DagsterInstance.from_config(str(home)) as instance:
        TABLE.drop(database_engine(instance), checkfirst=True)
        claimers = [PROCESSES.Process(target=claim_in_threads, args=(home, tmp_path, seed)) for seed in range(3)]
        for claimer in claimers:
            claimer.start()
        for claimer in claimers:
            claimer.join(240)
        assert [claimer.exitcode for claimer in claimers] == [0, 0, 0]
        assert Leases(instance, "last").claim(RELATIONS).granted == frozenset(RELATIONS)


def test_a_relation_that_all_want_at_once_goes_to_one(instance):
    owners = [Leases(instance, str(number)) for number in range(8)]
    together = threading.Barrier(len(owners))

    def claim(leases):
        together.wait()
        # In no order of their own.
        return leases.claim(["a", "b", "c"]).granted

    with ThreadPoolExecutor(len(owners)) as pool:
        for _ in range(10):
            granted = list(pool.map(claim, owners))
            assert sorted(relation for each in granted for relation in each) == ["a", "b", "c"]
            for leases in owners:
                leases.release()


def test_a_table_that_another_process_creates_in_the_same_instant_is_used(instance, monkeypatch):
    engine = database_engine(instance)
    Leases(instance, "first")
    create = TABLE.create
    monkeypatch.setattr(TABLE, "create", lambda engine, checkfirst: create(engine, checkfirst=False))
    tables._create(engine, TABLE)
    TABLE.drop(engine)
    monkeypatch.setattr(TABLE, "create", create)
    assert Leases(instance, "second").claim(["a"]).granted == {"a"}


def test_a_role_that_may_not_create_tables_is_told_what_to_do(postgres_server, tmp_path):
    postgres_server.ask("create database strict_instance")
    owner = write_instance(tmp_path / "owner", postgres_server, "strict_instance")
    with dg.DagsterInstance.from_config(str(owner)):
        postgres_server.ask(
            "create role clerk login password 'hunter2-secret'",
            "grant select, insert, update, delete on all tables in schema public to clerk",
            "revoke create on schema public from public",
            database="strict_instance",
        )
    home = write_instance(tmp_path / "clerk", postgres_server, "strict_instance", user="clerk", creates_tables=False)
    with dg.DagsterInstance.from_config(str(home)) as instance, pytest.raises(LeaseError) as raised:
        Leases(instance, "run")
    assert str(raised.value) == (
        "The table dagster_sao_leases cannot be created in the Dagster instance's database: permission denied for schema"
        " public LINE 2: CREATE TABLE dagster_sao_leases ( ^. Let its role create tables, or create it once with a role"
        " that may."
    )


def test_an_instance_in_memory_has_leases_too():
    with dg.DagsterInstance.ephemeral() as instance:
        one, two = Leases(instance, "one"), Leases(instance, "two")
        assert one.claim(["a"]).granted == {"a"}
        assert two.claim(["a"]).held_by == {"a": "one"}


def test_a_storage_without_a_database_is_refused():
    with pytest.raises(LeaseError, match="keeps its runs in no database of its own"):
        Leases(SimpleNamespace(run_storage=object()), "run")


def test_what_ends_a_lease_knows_whether_it_was_still_held(instance):
    late, quick = Leases(instance, "late"), Leases(instance, "quick")
    late.claim(["a", "b"])
    expire(instance, "late")
    quick.claim(["a"])
    told = []
    for leases in (late, quick):
        leases.release(then=lambda _connection, released: told.append(set(released)))
    assert told == [set(), {"a"}]


def test_nothing_is_written_under_a_lease_that_was_lost(instance):
    late = Leases(instance, "late")
    late.claim(["a"])
    written = []
    late.write({"a"}, written.append)
    expire(instance, "late")
    Leases(instance, "quick").claim(["a"])
    with pytest.raises(LeaseError, match="ran out"):
        late.write({"a"}, written.append)
    assert len(written) == 1


def shop(*names):
    """A project with these tables."""
    nodes = {
        name: SimpleNamespace(relation_name=f'"db"."main"."{name}"', is_view=False, settings=NO_SETTINGS)
        for name in names
    }
    graph = SimpleNamespace(adapter_type="postgres", nodes=nodes)
    return SimpleNamespace(warehouse="host 5432", project=SimpleNamespace(graph=graph))


def test_the_last_writer_is_noted_with_the_lease(instance):
    loaded, state, now = shop("a", "b", "c"), StateSnapshot(), datetime.now(timezone.utc)
    decisions = dict.fromkeys("abc", Decision(Action.BUILD, Reason.NEW_DATA, ""))

    def attempt(project):
        leases = Leases(instance, f"run of {project}")
        leases.claim("abc")
        writers = RunWriters(instance, loaded, leases, {name: name for name in "abc"}, project, f"run of {project}")
        writers.begin("abc", decisions, state)
        return writers

    first = attempt("shop")
    ids = {name: first.attempt_id(name) for name in "abc"}
    there = WriterTable(instance, "shop").read(loaded)
    assert {name: (writer.attempt_id, writer.is_own, writer.is_open) for name, writer in there.items()} == {
        name: (ids[name], True, True) for name in "abc"
    }
    first.built("a", LastBuild(now, now, Fingerprint({}), {}, "version", "run", attempt_id=ids["a"]))
    failure = FailedAttempt(now, 2, "code")
    first.end({"b": failure}, ["c"])
    seen = WriterTable(instance, "shop.big").read(loaded)
    assert {name for name, writer in seen.items() if writer is not None} == {"a", "b"}
    assert (seen["a"].data_version, seen["a"].elsewhere, seen["a"].is_open) == ("version", "shop", False)
    assert (seen["b"].failure, seen["b"].is_own, seen["b"].run_id) == (failure, False, "run of shop")
    # What dbt left untouched has the writer that it had.
    attempt("shop.big").end({}, "abc")
    assert WriterTable(instance, "shop.big").read(loaded) == seen


@pytest.mark.parametrize("built", [[], ["twin"]], ids=["both untouched", "one of them built"])
def test_two_nodes_with_one_relation_leave_its_last_writer(instance, built):
    loaded, state, now = shop("a", "twin"), StateSnapshot(), datetime.now(timezone.utc)
    loaded.project.graph.nodes["twin"].relation_name = loaded.project.graph.nodes["a"].relation_name
    loaded.warehouse = f"host of twins {len(built)}"
    decisions = dict.fromkeys(["a", "twin"], Decision(Action.BUILD, Reason.NEW_DATA, ""))

    def attempt(run_id, nodes):
        leases = Leases(instance, run_id)
        leases.claim(nodes)
        writers = RunWriters(instance, loaded, leases, {"a": "a", "twin": "twin"}, "shop", run_id)
        writers.begin(nodes, decisions, state)
        return writers

    first = attempt("first", ["a"])
    first.built("a", LastBuild(now, now, Fingerprint({}), {}, "version", "run"))
    second = attempt("second", ["a", "twin"])
    for uid in built:
        second.built(uid, LastBuild(now, now, Fingerprint({}), {}, "other", "run"))
    second.end({}, ["a", "twin"])
    assert expiry(instance) == []
    writer = WriterTable(instance, "shop").read(loaded)["a"]
    assert (writer.run_id, writer.data_version) == (("second", "other") if built else ("first", "version"))


def test_a_file_is_opened_once_and_closed_with_the_last_heartbeat(tmp_path, monkeypatch):
    original, opened = sqlite3.connect, []
    monkeypatch.setattr(
        sqlite3.dbapi2, "connect", lambda *given, **options: opened.append(1) or original(*given, **options)
    )
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        leases = Leases(instance, "run")
        with leases.heartbeat(lambda _why: None):
            assert leases.claim(["a", "b", "c"]).granted == {"a", "b", "c"}
            before = len(opened)
            for relation in "abc":
                assert leases.keep([relation])
                leases.release([relation])
            assert len(opened) == before
            assert leases._engine.pool.checkedin() == 1
        assert leases._engine.pool.checkedin() == 0
