"""`loaded_at_query` and `loaded_at_field`, on a real DuckDB through a real manifest."""

from __future__ import annotations

import time
from contextlib import closing
from datetime import datetime, timezone

import duckdb
import pytest
from dbt.cli.main import dbtRunner
from dbt.exceptions import ParsingError

from dagster_sao.warehouse import ProbeKind, SourceProber, WarehouseError
from dagster_sao.warehouse.errors import StatementError

LATEST = "2026-02-01T00:00:00"

TOKENS = {
    "fields.exact": LATEST,
    "fields.filtered": "2026-01-01T10:00:00.123456",
    "fields.expression": "2026-01-03T04:05:06.7Z",
    "fields.nanoseconds": "2026-01-01T10:00:00.123456789",
    "fields.zoned": "2026-01-01T10:00:00.5Z",
    "fields.date": "2026-01-02T00:00:00",
    "fields.iso_text": "2026-01-03T04:05:06.7Z",
    "fields.empty": "empty",
    "queries.this": LATEST,
    "queries.var": "2026-01-01T10:00:00.123456",
    "queries.macro": LATEST,
    "queries.semicolon": LATEST,
    "queries.comment": LATEST,
    "queries.cte": LATEST,
    "queries.values": LATEST,
    "queries.from_first": LATEST,
    "queries.union": LATEST,
    "queries.null_value": "empty",
    "inherited.field": "2026-01-02T00:00:00",
    "inherited.query_wins": LATEST,
    "inherited.nearer_field": LATEST,
    "inherited.without_threshold": "2026-01-02T00:00:00",
}

ERRORS = {
    "fields.number": "returned a number, not a timestamp. Return a date or timestamp",
    "fields.text": "returned a text, not a timestamp",
    "fields.endless": "returned a text, not a timestamp",
    "fields.no_column": 'failed: Binder Error: Referenced column "loaded_when" not found',
    "fields.no_table": "does not exist in the warehouse. Create it, or correct the source's schema and identifier",
    "fields.escaping": "holds several statements",
    "fields.grouping": "returned 2 rows instead of 1",
    "queries.no_row": "returned no row. Return one row with one timestamp",
    "queries.two_rows": "returned more than one row",
    "queries.two_columns": "returned 2 columns",
    "queries.number": "returned a number, not a timestamp",
    "queries.text": "returned a text, not a timestamp",
    "queries.syntax": "has a parenthesis without its partner. Correct its SQL",
    "queries.garbage": "failed: Parser Error: syntax error",
    "queries.delete": "is a DELETE statement and is never run",
    "queries.cte_delete": "is a DELETE statement and is never run",
    "queries.create": "is a CREATE statement and is never run",
    "queries.two_statements": "holds several statements",
    "queries.escaping": "has a parenthesis without its partner",
    "queries.unclosed": "cannot be read as SQL",
    "queries.blank": "is empty",
    "queries.introspective": "queries the warehouse in its Jinja (run_query), which a probe never does",
    "queries.no_macro": "dbt cannot render: 'no_such_macro' is undefined",
    "queries.no_jinja": "dbt cannot render: unexpected end of template",
    "queries.no_table": "does not exist in the warehouse",
    "queries.other_table": "failed: Catalog Error: Table with name absent does not exist!",
}

COARSE = {
    "fields.date": "is a date or a midnight",
    "fields.midnight": "is a date or a midnight",
    "fields.never_filled": "is NULL although the table has rows",
    "fields.hidden": "is NULL although the table has rows",
    "fields.future": "is more than a day in the future",
    "queries.day": "is a date or a midnight",
    "queries.unfilled": "is NULL although the table has rows",
}
"""Values that stay while the data changes."""

KINDS = {"fields": ProbeKind.FIELD, "queries": ProbeKind.QUERY}


@pytest.fixture(scope="module")
def everything(tmp_path_factory, manifest):
    """All good and bad sources in one look."""
    import shutil

    from tests.warehouse.conftest import PROJECT, Shop

    folder = tmp_path_factory.mktemp("everything") / "shop"
    shutil.copytree(PROJECT, folder)
    shop = Shop(folder, manifest)
    shop.write((folder / "warehouse.sql").read_text())
    return shop.observe(*{*TOKENS, *ERRORS, *COARSE})


@pytest.mark.parametrize(("label", "token"), TOKENS.items())
def test_the_token_is_the_exact_timestamp(everything, label, token):
    assert (everything[label].token, everything[label].error) == (token, None)


@pytest.mark.parametrize(("label", "message"), ERRORS.items())
def test_a_bad_source_says_what_is_wrong_and_harms_no_other(everything, label, message):
    seen = everything[label]
    assert seen.token is None
    assert seen.error.startswith(f"{label} (models/sources.yml) ")
    assert message in seen.error
    assert "\n" not in seen.error
    assert seen.kind is KINDS[label.split(".")[0]]


@pytest.mark.parametrize(("label", "why"), COARSE.items())
def test_a_value_that_stays_while_the_data_changes_is_said_and_untracked_too(everything, label, why):
    seen = everything[label]
    assert seen.counts_as_untracked
    assert seen.token
    assert seen.warning.startswith(f"{label} (models/sources.yml) has a {seen.kind} that {why}")


@pytest.mark.parametrize("label", ["fields.empty", "queries.null_value", "fields.filtered", "fields.zoned"])
def test_an_empty_table_and_a_time_of_day_are_tracked(everything, label):
    assert (everything[label].warning, everything[label].counts_as_untracked) == (None, False)


def test_a_table_that_is_filled_without_its_loaded_at_is_no_longer_tracked(shop):
    prober = SourceProber(shop.session())
    assert not shop.observe("fields.empty", prober=prober)["fields.empty"].counts_as_untracked
    shop.write("insert into raw.empty values (null)")
    assert shop.observe("fields.empty", prober=prober)["fields.empty"].counts_as_untracked


def test_loaded_at_is_in_utc(everything):
    assert everything["fields.zoned"].loaded_at == datetime(2026, 1, 1, 10, 0, 0, 500000, tzinfo=timezone.utc)
    assert everything["fields.date"].loaded_at == datetime(2026, 1, 2, tzinfo=timezone.utc)
    assert everything["fields.empty"].loaded_at is None


def test_the_token_does_not_depend_on_the_time_zone_of_the_machine(shop, monkeypatch):
    tokens = set()
    for zone in ("UTC", "America/New_York", "Asia/Kathmandu"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        tokens.add(shop.observe("fields.zoned")["fields.zoned"].token)
    monkeypatch.undo()
    time.tzset()
    assert tokens == {"2026-01-01T10:00:00.5Z"}


def test_no_look_writes(shop):
    shop.observe(*TOKENS, *ERRORS)
    with closing(duckdb.connect(str(shop.database))) as connection:
        assert connection.execute("select count(*) from raw.orders").fetchone() == (2,)


def test_a_change_below_a_microsecond_changes_the_token(shop):
    prober = SourceProber(shop.session())
    before = shop.observe("fields.nanoseconds", prober=prober)["fields.nanoseconds"].token
    shop.write("update raw.orders set nano_at = timestamp_ns '2026-01-01 10:00:00.123456788' where id = 1")
    assert shop.observe("fields.nanoseconds", prober=prober)["fields.nanoseconds"].token != before


def test_a_token_that_goes_backwards_is_another_token(shop):
    before = shop.observe("fields.exact")["fields.exact"].token
    shop.write("delete from raw.orders where id = 2")
    after = shop.observe("fields.exact")["fields.exact"].token
    assert after != before
    shop.write("delete from raw.orders")
    assert shop.observe("fields.exact")["fields.exact"].token == "empty"


def test_a_known_bad_source_costs_the_others_nothing(shop):
    prober = SourceProber(shop.session())
    good = [label for label in TOKENS if label.startswith("fields")]
    shop.observe(*good, "fields.no_column", prober=prober)
    halving = len(shop.opened)
    shop.observe(*good, "fields.no_column", prober=prober)
    # One for the good ones, one for the bad one alone, one to see whether its table exists.
    assert len(shop.opened) - halving <= 3
    shop.write("alter table raw.orders add column loaded_when timestamp")
    assert shop.observe("fields.no_column", prober=prober)["fields.no_column"].token == "empty"


def test_constant_queries_are_rendered_once_and_others_at_every_look(shop, monkeypatch):
    session = shop.session()
    rendered = []
    render = session.render
    monkeypatch.setattr(session, "render", lambda uid, text: (rendered.append(text), render(uid, text))[1])
    prober = SourceProber(session)
    for _ in range(2):
        shop.observe("queries.this", "queries.macro", "queries.values", prober=prober)
    assert sum("this }}" in text for text in rendered) == 1
    assert sum("latest" in text for text in rendered) == 2
    assert len(rendered) == 3


def test_variables_of_the_session_reach_the_query(shop):
    prober = SourceProber(shop.session(variables={"kind": "b"}))
    assert shop.observe("queries.var", prober=prober)["queries.var"].token == LATEST


def test_a_look_ends_at_its_deadline_and_the_rest_is_missing(shop):
    assert shop.observe(*TOKENS, deadline=time.monotonic() - 1) == {}
    assert shop.opened == []
    assert len(shop.observe(*TOKENS, deadline=time.monotonic() + 60)) == len(TOKENS)


def test_no_connection_is_open_while_the_caller_works(shop):
    for label in ("queries.this", "fields.exact", "plain.orders"):
        looking = SourceProber(shop.session()).observe([shop.source(label)])
        next(looking)
        shop.write("create or replace table raw.other (id int)")


def test_a_warehouse_that_is_down_is_one_error_for_all(shop, monkeypatch):
    session = shop.session()

    def refuse() -> None:
        msg = "Connection refused"
        raise OSError(msg)

    monkeypatch.setattr(session._adapter, "open", refuse)
    with pytest.raises(WarehouseError, match="Connection refused"):
        shop.observe("fields.exact", prober=SourceProber(session))


@pytest.mark.parametrize("level", ["source", "table"])
def test_dbt_itself_refuses_query_and_field_on_one_level(tmp_path, level):
    """Nothing of it reaches a manifest, so nothing here has to look for it."""
    both = "config: {loaded_at_field: x, loaded_at_query: select 1}"
    (tmp_path / "models").mkdir()
    (tmp_path / "dbt_project.yml").write_text("name: p\nprofile: p\nflags: {send_anonymous_usage_stats: false}")
    (tmp_path / "profiles.yml").write_text("p: {target: d, outputs: {d: {type: duckdb}}}")
    (tmp_path / "models" / "s.yml").write_text(
        f"sources: [{{name: s, {both if level == 'source' else 'tables: [{name: t, ' + both + '}]'}"
        f"{', tables: [{name: t}]' if level == 'source' else ''}}}]"
    )
    result = dbtRunner().invoke(["--quiet", "parse", "--project-dir", str(tmp_path), "--profiles-dir", str(tmp_path)])
    assert isinstance(result.exception, ParsingError)
    assert "Cannot specify both loaded_at_field and loaded_at_query" in str(result.exception)


def test_an_arm_that_a_connection_loses_does_not_hide_that_the_warehouse_went_down(shop, monkeypatch):
    session = shop.session()
    monkeypatch.setattr(
        session, "execute", lambda *_: (_ for _ in ()).throw(StatementError("server closed the connection"))
    )
    opens = iter([None])

    def once() -> None:
        if next(opens, "down") == "down":
            msg = "Connection refused"
            raise OSError(msg)

    monkeypatch.setattr(session._adapter, "open", once)
    with pytest.raises(WarehouseError, match="Connection refused"):
        shop.observe("fields.exact", "fields.date", prober=SourceProber(session))
