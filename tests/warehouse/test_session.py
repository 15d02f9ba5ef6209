"""The session: opens, releases, waits for writers, lives beside dbt, and never shows a secret."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing, contextmanager
from pathlib import Path

import duckdb
import pytest
from dbt.adapters.duckdb.connections import DuckDBConnectionManager
from dbt.adapters.factory import FACTORY
from dbt.cli.main import dbtRunner

import dagster_sao.warehouse
from dagster_sao.warehouse import SourceProber, StatementError, WarehouseBusyError, WarehouseError, WarehouseSession
from dagster_sao.warehouse.session import _BUSY_RETRY_SECONDS

WRITER = """
import sys, duckdb
connection = duckdb.connect(sys.argv[1])
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def another_process_writes(database):
    command = [sys.executable, "-c", WRITER, str(database)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "ready\n"
        yield writer
        writer.stdin.close()


def slept(session, *, until=None):
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        if until is not None and len(waits) == 2:
            until()

    session._sleep = sleep
    return waits


def test_importing_the_package_imports_no_dbt_dagster_or_driver():
    # The package itself is for Dagster's users and imports it: look at what is below alone.
    root = Path(dagster_sao.warehouse.__file__).parents[1]
    program = (
        "import sys, types; sys.modules['dagster_sao'] = package = types.ModuleType('dagster_sao');"
        f"package.__path__ = [{str(root)!r}];"
        "import dagster_sao.warehouse;"
        "print([m for m in sys.modules if m.split('.')[0] in {'dbt', 'dagster', 'dagster_dbt', 'duckdb', 'jinja2'}])"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout == "[]\n"


def test_after_a_look_another_process_can_write(shop):
    session = shop.session()
    with session.connection():
        assert session.execute("select count(*) from raw.orders") == [(2,)]
    with another_process_writes(shop.database):
        pass


def test_an_in_memory_database_does_not_stay_either(shop):
    session = shop.session(target="memory")
    with session.connection():
        session.execute("create table left_over (id int)")
    with session.connection(), pytest.raises(StatementError, match="does not exist"):
        session.execute("select * from left_over")


def test_a_look_cannot_write(shop):
    session = shop.session()
    with session.connection(), pytest.raises(StatementError, match="read-only"):
        session.execute("create table raw.hacked (id int)")


def test_rows_come_as_the_driver_gives_them(shop):
    session = shop.session()
    with session.connection():
        assert session.execute("select '2026-01-01', '01', null, 1.50::decimal(9, 2)::varchar") == [
            ("2026-01-01", "01", None, "1.50")
        ]
        assert session.execute("select * from range(5)", limit=2) == [(0,), (1,)]


def test_a_writer_in_another_process_is_waited_for_and_then_reported_as_busy(shop):
    session = shop.session()
    waits = slept(session)
    with another_process_writes(shop.database), pytest.raises(WarehouseBusyError, match=r"shop\.duckdb is in use"):
        list(SourceProber(session).observe(shop.sources("fields.exact")))
    assert waits == list(_BUSY_RETRY_SECONDS)


def test_a_writer_that_ends_in_time_is_not_noticed(shop):
    session = shop.session()
    with another_process_writes(shop.database) as writer:
        waits = slept(session, until=lambda: (writer.stdin.close(), writer.wait()))
        assert shop.observe("fields.exact", prober=SourceProber(session))["fields.exact"].token
    assert waits == list(_BUSY_RETRY_SECONDS[:2])


def test_a_writer_in_this_process_is_busy_too(shop):
    session = shop.session()
    slept(session)
    with closing(duckdb.connect(str(shop.database))), pytest.raises(WarehouseBusyError), session.connection():
        pass
    with session.connection():
        assert session.execute("select 1") == [(1,)]


def test_an_attached_database_with_a_writer_is_busy_too(shop):
    lake = shop.folder / "lake.duckdb"
    with closing(duckdb.connect(str(lake))) as connection:
        connection.execute("create table events (id int)")
    session = shop.session(target="attached")
    slept(session)
    with another_process_writes(lake), pytest.raises(WarehouseBusyError), session.connection():
        pass


def test_a_busy_tick_keeps_what_it_said_before_and_the_next_one_recovers(shop):
    (shop.folder / "data" / "customers.csv").write_text("x\n")
    session = shop.session()
    slept(session)
    prober = SourceProber(session)
    sources = shop.sources("fields.exact", "files.customers")
    seen = []
    with another_process_writes(shop.database), pytest.raises(WarehouseBusyError):
        seen.extend(prober.observe(sources))
    assert len(list(prober.observe(sources))) == 2


@pytest.mark.parametrize("keep_open", [True, False])
def test_a_dbt_invocation_in_this_process_does_not_break_the_session_nor_the_reverse(shop, keep_open, monkeypatch):
    profiles = shop.folder / "profiles.yml"
    text = profiles.read_text()
    profiles.write_text(
        text.replace("path: shop.duckdb", f"keep_open: {str(keep_open).lower()}, path: {shop.database}", 1)
    )
    # Sources of a dbt-duckdb plugin are loaded by parsing once dbt has connected in this process.
    (shop.folder / "models" / "sources.yml").write_text("sources: [{name: plain, tables: [{name: orders}]}]")
    monkeypatch.setattr(DuckDBConnectionManager, "_ENV", None)
    session = shop.session()
    prober = SourceProber(session)
    labels = ("fields.exact", "queries.macro", "plain.orders")
    first = shop.observe(*labels, prober=prober)
    for _ in range(2):
        arguments = ["--project-dir", str(shop.folder), "--profiles-dir", str(shop.folder), "--target", "duck"]
        result = dbtRunner().invoke(["--quiet", "run", *arguments])
        assert result.success, result.exception or result.result
        assert shop.observe(*labels, prober=prober) == first


def test_the_adapter_is_not_in_the_global_factory(shop):
    FACTORY.reset_adapters()
    session = shop.session()
    with session.connection():
        session.execute("select 1")
    assert FACTORY.adapters == {}


def test_two_sessions_look_at_once(shop):
    one, two = shop.session(), shop.session()
    with one.connection(), two.connection():
        assert one.execute("select 1") == two.execute("select 1")


def test_a_statement_outside_of_a_connection_is_a_mistake_of_ours(shop):
    with pytest.raises(RuntimeError, match="outside"):
        shop.session().execute("select 1")


def test_a_closed_session_says_so(shop):
    session = shop.session()
    session.close()
    with pytest.raises(WarehouseError, match="closed"), session.connection():
        pass


def opening(shop, **kwargs):
    arguments = {"project_dir": shop.folder, "profiles_dir": shop.folder, "manifest": {"metadata": {}}, **kwargs}
    with pytest.raises(WarehouseError) as caught:
        WarehouseSession.open(**arguments)
    message = str(caught.value)
    assert "hunter2" not in message
    assert "\n" not in message
    assert message.endswith(".")
    return message


def test_a_missing_project_or_profile_names_the_folder(shop, tmp_path):
    assert "There is no dbt_project.yml in" in opening(shop, project_dir=tmp_path)
    assert "There is no profiles.yml in" in opening(shop, profiles_dir=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "nowhere"}, "does not have a target named 'nowhere'"),
        ({"profile": "nobody"}, "Could not find profile named 'nobody'"),
        ({"target": "broken"}, "cannot be used"),
        ({"target": "badpass"}, "'wrong-port' is not of type 'integer'"),
        ({"target": "unset"}, "Env var required but not provided: 'SHOP_NOT_SET'"),
        (
            {"target": "unknown"},
            "needs the dbt adapter nosuchdb, which is not installed. Run `pip install dbt-nosuchdb`",
        ),
    ],
)
def test_a_broken_profile_is_one_sentence_with_a_remedy(shop, arguments, message):
    assert message in opening(shop, **arguments)


def test_a_profile_that_is_no_yaml_is_not_quoted(shop):
    (shop.folder / "profiles.yml").write_text("shop:\n  outputs:\n    password: 'hunter2\n  target: : x\n")
    assert "is not valid YAML near line" in opening(shop)


def test_a_manifest_of_another_adapter_is_refused(shop):
    message = opening(shop, target="duck", manifest={"metadata": {"adapter_type": "postgres"}})
    assert "parsed for postgres" in message


@pytest.mark.parametrize("source", ["profile", "environment"])
def test_a_host_that_cannot_be_reached_is_one_sentence_without_the_password(shop, monkeypatch, source):
    pytest.importorskip("dbt.adapters.postgres")
    if source == "environment":
        monkeypatch.setenv("SHOP_PASSWORD", "hunter2-from-environment")
    session = WarehouseSession.open(
        project_dir=shop.folder, profiles_dir=shop.folder, target="down", manifest={"metadata": {}}
    )
    with pytest.raises(WarehouseError) as caught, session.connection():
        pass
    message = str(caught.value)
    assert "Cannot connect to postgres with target `down` of profile `shop`" in message
    assert "hunter2" not in message
    assert "\n" not in message


def test_a_database_error_does_not_show_the_password(shop):
    pytest.importorskip("dbt.adapters.postgres")
    session = WarehouseSession.open(
        project_dir=shop.folder, profiles_dir=shop.folder, target="down", manifest={"metadata": {}}
    )
    assert session.redact("tried hunter2-secret as postgres://u:other@host") == "tried *** as postgres://u:***@host"


@pytest.mark.parametrize("where", ["connecting", "a statement"])
def test_a_driver_that_quotes_the_password_does_not_get_it_past_us(shop, monkeypatch, where):
    pytest.importorskip("dbt.adapters.postgres")
    session = WarehouseSession.open(
        project_dir=shop.folder, profiles_dir=shop.folder, target="down", manifest={"metadata": {}}
    )

    def quote(*_):
        msg = "bad dsn: user=loader password=hunter2-secret"
        raise OSError(msg)

    def accept(*_):
        return []

    monkeypatch.setattr(session._adapter, "open", quote if where == "connecting" else lambda: None)
    monkeypatch.setattr(session._adapter, "run", accept)
    with pytest.raises((WarehouseError, StatementError)) as caught, session.connection():  # noqa: PT012  # either of both
        monkeypatch.setattr(session._adapter, "run", quote)
        session.execute("select 1")
    assert "bad dsn: user=loader password=***" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_the_working_directory_and_the_flags_of_dbt_stay_as_they_were(shop, tmp_path):
    import dbt.flags

    flags = dbt.flags.get_flags()
    session = shop.session()
    with session.connection():
        pass
    assert Path.cwd() == tmp_path
    assert dbt.flags.get_flags() is flags
