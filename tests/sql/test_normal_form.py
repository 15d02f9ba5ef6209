"""Which SQL texts are the same code: pairs from files, and what may never fail."""

from __future__ import annotations

import pytest

from dagster_sao.sql.normal_form import macro_form, may_select_star, normal_form
from dagster_sao.sql.template import split_template
from dagster_sao.sql.volatility import is_volatile
from tests.sql.cases import read_cases

ADAPTERS = [
    "duckdb",
    "postgres",
    "snowflake",
    "bigquery",
    "redshift",
    "databricks",
    "spark",
    "sqlserver",
    "trino",
]


def params(file):
    return [pytest.param(case, id=f"{case.title} [{case.dialect}]") for case in read_cases(file)]


@pytest.mark.parametrize("case", params("same.sql"))
def test_what_does_not_count_keeps_the_form(case):
    one, other = case.texts
    assert normal_form(one, case.dialect) == normal_form(other, case.dialect)


@pytest.mark.parametrize("case", params("different.sql"))
def test_what_counts_changes_the_form(case):
    one, other = case.texts
    assert normal_form(one, case.dialect) != normal_form(other, case.dialect)


@pytest.mark.parametrize("case", params("odd.sql"))
def test_odd_sql_has_a_form_of_its_own_and_never_fails(case):
    (text,) = case.texts
    for look in (may_select_star, normal_form):
        look(text, case.dialect)
    is_volatile(text)
    macro_form(text)
    assert normal_form(text, case.dialect) == normal_form(text, case.dialect)
    assert normal_form(text, case.dialect) != normal_form(f"{text} x{len(text)}", case.dialect)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_every_adapter_has_forms(adapter):
    assert normal_form("select a\nfrom t -- why", adapter) == normal_form("/* why */ select a from t;", adapter)


@pytest.mark.parametrize("adapter", ["", "x", "mysql"])
def test_sql_of_an_unknown_adapter_counts_as_it_is_written(adapter):
    """MySQL names a column by the text of its expression, so even white space shows in the rows."""
    assert normal_form("select a+1", adapter) != normal_form("select a + 1", adapter)
    assert normal_form("{# why #}select a", adapter) == normal_form("{{ config(a=1) }}select a", adapter)


@pytest.mark.parametrize(
    "text",
    ["(" * 5000 + "1" + ")" * 5000, "select " + " + ".join(["1"] * 5000), "select " * 3000, "{{ " * 3000],
    ids=["deep", "long", "keywords", "braces"],
)
def test_huge_nesting_never_fails(text):
    assert normal_form(text, "duckdb") == normal_form(text, "duckdb")
    may_select_star(text, "duckdb")


def test_line_breaks_count_where_dbt_keeps_them():
    """Jinja makes one kind of line breaks of all; a text without tags is not rendered."""
    assert normal_form("select 'a\r\nb'", "duckdb") != normal_form("select 'a\nb'", "duckdb")
    assert normal_form("select\r\n'a'", "duckdb") == normal_form("select\n'a'", "duckdb")
    assert normal_form("select 'a\r\nb' {{ x }}", "duckdb") == normal_form("select 'a\nb' {{ x }}", "duckdb")


def test_rendered_sql_has_no_tags():
    one, other = "select '{{ a }}' -- {{ b }}", "select '{{ a }}'"
    assert normal_form(one, "duckdb", is_template=False) == normal_form(other, "duckdb", is_template=False)
    spaced = "select '{{  a }}'"
    assert normal_form(spaced, "duckdb", is_template=False) != normal_form(other, "duckdb", is_template=False)


# Macros print into what is not known, so only their Jinja comments do not count.


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("{% macro f() %}a{% endmacro %}", "{%- macro  f( ) -%}a{% endmacro %}", True),
        ("{% macro f() %}a{% endmacro %}", "{% macro f() %}{# why #}a{% endmacro %}", True),
        ("{% macro f() %}a{% endmacro %}", "{% macro f() %}a{#- why -#} {% endmacro %}", True),
        ("{% macro f() %}a  \nb{% endmacro %}", "{% macro f() %}a\nb{% endmacro %}", False),
        ("{% macro f() %}-- {{ x }} {{ y }}{% endmacro %}", "{% macro f() %}-- {{ x }}\n{{ y }}{% endmacro %}", False),
        ("{% macro f() %}a\n{% endmacro %}", "{% macro f() %}a{% endmacro %}", False),
        ("{% macro f() %}a b{% endmacro %}", "{% macro f() %}a {# why #} b{% endmacro %}", False),
        ("{% macro f() %}a {{- x }}{% endmacro %}", "{% macro f() %}a {{ x }}{% endmacro %}", False),
        ("{% macro f() %}{{ a }}{% endmacro %}", "{% macro f() %}{% a %}{% endmacro %}", False),
        ("{% macro f() %}a b{% endmacro %}", "{% macro f() %}a  b{% endmacro %}", False),
        ("{% macro f() %}a{% endmacro %}", "{% macro f() %}A{% endmacro %}", False),
        ("{% macro f(x) %}a{% endmacro %}", "{% macro f(y) %}a{% endmacro %}", False),
        ("{% macro f() %}{{ config(a=1) }}{% endmacro %}", "{% macro f() %}{{ config(a=2) }}{% endmacro %}", False),
        ("{% macro f( %}a", "{% macro f( %}b", False),
    ],
)
def test_macros_are_compared_by_their_text(one, other, is_same):
    assert (macro_form(one) == macro_form(other)) is is_same


# Stars


@pytest.mark.parametrize(
    ("text", "dialect", "expected"),
    [
        ("select * from t", "duckdb", True),
        ("select t.* from t", "duckdb", True),
        ("select a, (select max(b) from (select * from u)) from t", "duckdb", True),
        ("with x as (select * from t) select a from x", "duckdb", True),
        ("select * exclude (a) from t", "duckdb", True),
        ("select a from t union all select * from u", "duckdb", True),
        ("from t", "duckdb", True),
        ("from t select a", "duckdb", False),
        ("select columns('a.*') from t", "duckdb", True),
        ("select columns(c -> c like 'a%') from t", "duckdb", True),
        ("pivot t on a using sum(b)", "duckdb", True),
        ("unpivot t on columns(*) into name n value v", "duckdb", True),
        ("table t", "postgres", True),
        ("select t from t", "postgres", False),
        ("select count(*) from t", "duckdb", False),
        ("select count(*) filter (where a) from t", "duckdb", False),
        ("select a * b from t", "duckdb", False),
        ("select '*' from t -- select *", "duckdb", False),
        ("select a from {{ ref('t') }}", "duckdb", False),
        ("select * from {{ ref('t') }}", "duckdb", True),
        ("select a from {{ source('s', 't') }} where b > '{{ var(\"x\") }}'", "duckdb", False),
        ("select a from {{ this }}", "duckdb", False),
        ("{{ config(materialized='view') }} select a from t", "duckdb", False),
        ("{% set x = 1 %} select a from t", "duckdb", False),
        ("{% set x %} * {% endset %} select a from t", "duckdb", True),
        ("select {{ dbt_utils.star(ref('t')) }} from t", "duckdb", True),
        ("select {% if x %} a {% endif %} from t", "duckdb", True),
        ("select a from (", "duckdb", True),
        ("select {{ ", "duckdb", True),
        ("select * except (a) from t", "bigquery", True),
        ("select a from t natural join u", "duckdb", False),
    ],
)
def test_a_query_whose_columns_may_follow_its_parents_is_known(text, dialect, expected):
    assert may_select_star(text, dialect) is expected


# Volatility


@pytest.mark.parametrize(
    "text",
    [
        "select current_date",
        "select CURRENT_TIMESTAMP()",
        "select now()",
        "select Now ( )",
        "select random() from t",
        "select uuid()",
        "select gen_random_uuid()",
        "select 'now'::timestamp",
        "select cast('today' as date)",
        "select date 'today'",
        "select a from t tablesample (10 percent)",
        "select '{{ run_started_at }}'",
        "select '{{ invocation_id }}'",
        "{{ modules.datetime.datetime.now() }}",
        "select {{ dbt.current_timestamp() }}",
        "select getdate()",
        "select sysdate",
        "select nextval('s')",
        "select '--', random()",
        "select '/*', now() -- */",
        "select a -- why\n, now()",
        "select a from t using sample 10%",
    ],
)
def test_sql_that_gives_other_rows_at_another_time_is_volatile(text):
    assert is_volatile(text)


@pytest.mark.parametrize(
    "text",
    [
        "select a from t",
        "select now from t",
        "select today, random from t",
        "select a -- now()",
        "select a /* random()\n uuid() */ from t",
        "select a {# current_date #} from t",
        "select current_dates from t",
        "select date '2026-01-01'",
        "select 'today' as day",
        "select known(a), renown(b) from t",
        "select a -- don't call now()\n from t",
    ],
)
def test_sql_that_only_looks_so_is_not_volatile(text):
    assert not is_volatile(text)


# Templates


def test_jinja_inside_strings_and_comments_is_found():
    template = split_template("select '{{ var('a') }}' -- {{ var('b') }}\n{# {{ var('c') }} #}")
    assert list(template.calls("var")) == ["a", "b"]


def test_a_call_without_a_literal_name_is_known_as_such():
    template = split_template("{{ var(x) }} {{ var('a', var('b')) }} {{ var() }} {{ 'var' }}")
    assert list(template.calls("var")) == [None, "a", "b", None]
