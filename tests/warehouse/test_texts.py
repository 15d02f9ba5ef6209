"""The pure helpers: what counts as one query, as a timestamp, as a secret."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_sao.sql.dialects import sqlglot_dialect
from dagster_sao.warehouse.errors import reason
from dagster_sao.warehouse.queries.timestamps import parse_timestamp
from dagster_sao.warehouse.read_only import NotAQueryError, single_query
from dagster_sao.warehouse.redaction import _Redactor, learn, secrets_in

QUERIES = [
    ("duckdb", "select 1", "select 1"),
    ("duckdb", " select ';' ;; ", " select ';'"),
    ("postgres", "select max(x) from t; -- the end", "select max(x) from t"),
    ("snowflake", "select max(x) from t at(offset => -60)", None),
    ("bigquery", "select max(x) from `a-b`.c.d for system_time as of current_timestamp()", None),
    ("tsql", "select max(x) from t with (nolock)", None),
    ("duckdb", "(select 1) union all (select 2)", None),
    ("postgres", "select some_function(variadic weird ?? syntax) from t", None),  # the warehouse decides
]
NO_QUERIES = [
    "",
    ";",
    "-- only a comment",
    "insert into t values (1)",
    "update t set x = 1",
    "delete from t",
    "merge into t using s on true when matched then delete",
    "truncate t",
    "drop table t",
    "create table t as select 1",
    "create or replace view t as select 1",
    "alter table t add column x int",
    "copy t to 'file'",
    "attach 'x' as y",
    "pragma table_info(t)",
    "set threads = 1",
    "call proc()",
    "vacuum",
    "grant select on t to u",
    "explain analyze delete from t",
    "select 1; select 2",
    "select 1; drop table t",
    "select 1) ; drop table t; select (1",
    "select 1) union (select 2",
    "select 1 /* ) */ ) from (select 1",
    "select (1",
    "select 'open",
    'select "open',
    "select 1 /* open",
    "select 1 into new_table",
    "with x as (select 1) delete from t",
    "with x as (select 1) insert into t select * from x",
]


@pytest.mark.parametrize(("dialect", "sql", "expected"), QUERIES)
def test_one_query_is_accepted_as_written(dialect, sql, expected):
    assert single_query(sql, dialect) == (expected or sql)


@pytest.mark.parametrize("dialect", ["postgres", "duckdb", "snowflake", None])
@pytest.mark.parametrize("sql", NO_QUERIES)
def test_anything_else_is_refused(sql, dialect):
    with pytest.raises(NotAQueryError):
        single_query(sql, dialect)


@pytest.mark.parametrize("sql", [
    "with x as (delete from t returning *) select * from x",
    "with x as (insert into t values (1) returning *) select * from x",
    "select * from (with x as (update t set a = 1 returning *) select * from x) y",
])  # fmt: skip
def test_a_query_that_writes_inside_is_refused_where_the_dialect_has_it(sql):
    with pytest.raises(NotAQueryError):
        single_query(sql, "postgres")


@pytest.mark.parametrize(
    "adapter", ["duckdb", "postgres", "snowflake", "bigquery", "databricks", "redshift", "trino", "sqlserver"]
)
def test_every_common_adapter_has_a_dialect(adapter):
    assert sqlglot_dialect(adapter) is not None


@pytest.mark.parametrize("text", [
    "", "x", "42", "1767225600", "20260101", "12:00:00", "infinity", "-infinity", "true", "2026-13-01", "2026-01-01T25:00:00",
    "0044-03-15 (BC)", "Jan  1 2026 12:00AM", "0001-01-01 00:00:00+05", "2026-01-01 00:00:00.5.5", "2026-01-01 00:00 Mars",
    "2026-01-01 00:00 Mars/Olympus",
])  # fmt: skip
def test_what_is_no_timestamp_is_none(text):
    assert parse_timestamp(text) is None


# Without a zone, as most tables have them.
MOMENTS = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1))  # noqa: DTZ001
OFFSETS = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(MOMENTS, OFFSETS)
def test_the_text_of_an_instant_is_the_same_in_every_zone(moment, zone):
    instant = moment.replace(tzinfo=timezone.utc)
    there, here = parse_timestamp(str(instant.astimezone(zone))), parse_timestamp(instant.isoformat())
    assert there == here
    assert here.utc == instant


@given(MOMENTS, st.integers(0, 999), st.integers(0, 999))
def test_no_digit_is_lost(moment, one, two):
    first, second = (
        parse_timestamp(f"{moment.isoformat(timespec='microseconds')}{digits:03}") for digits in (one, two)
    )
    assert (first.text == second.text) == (one == two)


TARGET = {
    "host": "db.example.com",
    "user": "loader",
    "password": "p@ss/word",
    "pass": "x",
    "private_key": "-----BEGIN-----\nMIIEvQIBADANBg\n-----END-----",
    "settings": {"s3_secret_access_key": "wJalrXUtnFEMI"},
    "secrets": [{"type": "s3", "secret": "deep-secret", "region": "eu"}],
    "token": "{{ env_var('WAREHOUSE_TOKEN') }}",
    "port": 5432,
}
LEAKS = [
    (
        "password authentication failed for p@ss/word at db.example.com",
        "password authentication failed for *** at db.example.com",
    ),
    ("dsn postgresql://loader:p%40ss%2Fword@db", "dsn postgresql://loader:***@db"),
    ("bad password x in example", "bad password *** in example"),
    ("key MIIEvQIBADANBg is bad", "key *** is bad"),
    ("wJalrXUtnFEMI, deep-secret in eu", "***, *** in eu"),
    ("token-value and env-secret-value", "*** and ***"),
    ("attach 'postgres:dbname=a password=unknown host=b'", "attach 'postgres:dbname=a password=*** host=b'"),
    (
        "GET https://api.io/v1?sig=a&access_token=abc%20d&page=2",
        "GET https://api.io/v1?sig=***&access_token=***&page=2",
    ),
    ("https://ghp_abcdef123@github.com/org", "https://***@github.com/org"),
    ("Authorization: Bearer abc.def", "Authorization: ***"),
    ('{"password": "abc", "port": 1}', '{"password": ***, "port": 1}'),
    (
        "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN RSA PRIVATE KEY-----***-----END RSA PRIVATE KEY-----",
    ),
    ("the token: raw.orders has new data", "the token: raw.orders has new data"),
]


@pytest.mark.parametrize(("text", "shown"), LEAKS)
def test_no_credential_is_shown(text, shown):
    environment = {"WAREHOUSE_TOKEN": "token-value", "DBT_ENV_SECRET_X": "env-secret-value"}
    assert _Redactor(secrets_in(TARGET, environment))(text) == shown


_SECRETS = st.lists(
    st.text(st.characters(exclude_characters="*"), min_size=6, max_size=20).filter(str.strip), max_size=4
)


@given(_SECRETS, st.text(max_size=30), st.data())
def test_no_secret_survives_and_masking_twice_is_masking_once(secrets, around, data):
    masks = _Redactor(secrets)
    pieces = data.draw(st.lists(st.sampled_from([*secrets, around, " ", "password=", "://u:", "@h"]), max_size=8))
    text = masks("".join(pieces))
    assert not [secret for secret in secrets if secret in text]
    assert masks(text) == text


@pytest.mark.parametrize("said", [
    "p%40ss%2Fw%23rd%201%26%C3%A9", "p%40ss/w%23rd%201%26%C3%A9", "p%40ss%2fw%23rd%201%26%c3%a9", "p@ss/w%23rd+1%26é",
    "p%2540ss%252Fw%2523rd%25201%2526%25C3%25A9", "p@ss/w#rd 1&amp;é", "p@ss/w#rd 1&é",
])  # fmt: skip
def test_a_secret_is_masked_however_a_url_or_a_page_spells_it(said):
    assert _Redactor(["p@ss/w#rd 1&é"])(f"cannot reach x{said}y") == "cannot reach x***y"


def test_a_secret_that_is_not_unicode_is_masked():
    """Bytes of an environment variable that are not UTF-8 come as halves of characters."""
    assert _Redactor(["hunter\udcff2"])("password is hunter\udcff2") == "password is ***"


def test_a_secret_that_is_cut_off_is_not_shown_in_part():
    learn(["planted-secret-of-some-length"])
    said = reason(ValueError("x " * 140 + "planted-secret-of-some-length"))
    assert "planted" not in said


def test_a_password_that_is_also_the_user_hides_no_names():
    assert list(secrets_in({"user": "postgres", "password": "postgres"}, {})) == []


@pytest.mark.parametrize(("said", "line"), [
    ("Database Error\n  relation does not exist\n  LINE 1: select 1 as arm\n          ^", "relation does not exist"),
    ("Runtime Error in source x (models/s.yml)\n  Catalog Error: no\n\nLINE 3: x", "Catalog Error: no"),
    ("plain.", "plain"),
    ("", "ValueError"),
])  # fmt: skip
def test_a_reason_is_one_line_without_our_sql(said, line):
    assert reason(ValueError(said)) == line
