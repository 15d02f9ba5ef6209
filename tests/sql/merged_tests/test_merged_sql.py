"""Which tests are merged, into which SQL, and which are left alone."""

from __future__ import annotations

import pytest
import sqlglot

from dagster_sao.sql import merged_tests
from dagster_sao.sql.dialects import sqlglot_dialect
from dagster_sao.sql.merged_tests import merge
from tests.sql.merged_tests.random_macros import real_macros

ORDERS = '"db"."main"."orders"'
RECENT = f"(select * from {ORDERS} where day > date '2020-01-01' -- this year\n) dbt_subquery"
PARTNER = "select 1 from {} where false"


def queries_of(*sql):
    return [merged_tests.TestQuery(str(n), text) for n, text in enumerate(sql)]


def merged(*sql, adapter="duckdb", **limits):
    return merge(queries_of(*sql), adapter, **limits)


def only(*sql, adapter="duckdb"):
    (query,) = merged(*sql, adapter=adapter)
    assert query.keys == tuple(str(n) for n in range(len(sql)))
    return query.sql


def test_conditions_on_rows_share_one_scan():
    macros = real_macros()
    assert only(
        macros["not_null"](ORDERS, "id"),
        macros["accepted_values"](RECENT, "lower(status)", ["open", "it''s"]),
        f"select id, amount from {ORDERS} -- negative\nwhere amount < 0 or /* old */ amount is null",
    ) == (
        """\
select
  count(case when id is null then 1 end) as c0,
  count(case when day > date '2020-01-01' then case when (lower(status)) not in (
    'open','it''s'
) then 1 end end) as c1,
  count(case when amount < 0 or amount is null then case when (id) is null then 1 else 1 end end) as c2
from "db"."main"."orders\""""
    )


def test_duplicates_are_counted():
    macros = real_macros()
    nulls_too = f"with a as (select id from {ORDERS} where day > 1 group by id having count(*) > 1) select * from a"
    assert only(macros["unique"](ORDERS, "id"), macros["unique"](RECENT, "a + b"), nulls_too, adapter="postgres") == (
        """\
select
  count(id) - count(distinct id) as c0,
  count(case when day > date '2020-01-01' then a + b end) - count(distinct case when day > date '2020-01-01' then a + b end) as c1,
  count(case when day > 1 then 1 end) - count(distinct case when day > 1 then id end) - case when count(case when day > 1 then 1 end) > count(case when day > 1 then id end) then 1 else 0 end as c2
from "db"."main"."orders\""""
    )


def test_duplicates_under_a_collation_that_a_count_ignores_are_an_alarm():
    sql = only(real_macros()["unique"](ORDERS, "code"), PARTNER.format(ORDERS))
    assert "count(code) - count(distinct code) + count(case when concat(case when false then code end, 'a') = " in sql


def test_several_columns_are_counted_as_rows_where_that_pays():
    pair = f"with a as (select id, day from {ORDERS} group by id, day having count(*) > 1) select * from a"
    assert "count(*) - count(distinct row(id, day)) + " in only(pair, PARTNER.format(ORDERS))
    assert not merged(pair, PARTNER.format(ORDERS), adapter="postgres")


def test_where_counts_are_not_known_the_group_by_of_one_test_is_taken():
    macros = real_macros()
    sql = [macros["unique"](ORDERS, "id"), macros["not_null"](ORDERS, "id"), macros["unique"](ORDERS, "code")]
    (query,) = merged(*sql, adapter="snowflake")
    assert query.keys == ("0", "1")
    assert query.sql == (
        """\
select
  count(case when sao_n0 > 1 then 1 end) as c0,
  count(case when sao_n1 > 0 then 1 end) as c1
from (
select
  count(sao_r0) as sao_n0,
  count(sao_r1) as sao_n1
from (
select
  id as sao_k0,
  case when id is not null then 1 end as sao_r0,
  case when id is null then 1 end as sao_r1
from "db"."main"."orders"
) sao_rows
group by sao_k0
) sao_groups"""
    )


def test_a_relationship_is_a_join_that_loses_no_row():
    assert only(real_macros()["relationships"](ORDERS, "customer", "customers", "id"), PARTNER.format(ORDERS)) == (
        """\
select
  count(case when customer is not null then case when sao_match0.sao_value0 is null then 1 end end) as c0,
  count(case when false then 1 end) as c1
from "db"."main"."orders"
left join (
select
  distinct to_field as sao_value0
from (
select id as to_field
    from customers
) sao_parent0
) sao_match0 on customer = sao_match0.sao_value0"""
    )


def test_only_the_rows_that_some_test_reads_are_read():
    macros = real_macros()
    assert only(macros["not_null"](RECENT, "id"), macros["not_null"](RECENT, "day")).endswith(
        "\nwhere day > date '2020-01-01'"
    )
    other = f"(select * from {ORDERS} where a or b) dbt_subquery"
    assert only(macros["not_null"](RECENT, "id"), macros["not_null"](other, "id")).endswith(
        "\nwhere (day > date '2020-01-01') or (a or b)"
    )
    assert "where" not in only(macros["not_null"](RECENT, "id"), macros["not_null"](ORDERS, "day"))


def test_an_expression_is_evaluated_only_where_its_test_does():
    keyed = real_macros()["unique"](RECENT, "cast(code as int)")
    sql = only(keyed, PARTNER.format(ORDERS), adapter="snowflake")
    assert (
        "  case when day > date '2020-01-01' then case when cast(code as int) is not null then cast(code as int) end end as sao_k0,\n"
        in sql
    )


@pytest.mark.parametrize(
    "sql",
    [
        "select count(*) as n from t where a > 0",
        "select total(a) from t where b",
        "select max(a) over () from t where b",
        "select unnest(a) from t where b",
        "select * exclude (a) from t where b",
        "select distinct on (a) b from t where c",
        "select a from t where b limit 1",
        "select a from t where b order by 1",
        "select a from t where b qualify c",
        "select a from t where b union select a from u",
        "select a from t where b in (select b from u)",
        "select a from t where exists (from u)",
        "select a from t, u where b",
        "select a from t join u using (b) where c",
        "select a from t as x (c, d) where c",
        "select a from t tablesample (1)",
        "select a from read_csv('t') where b",
        "select a from 't.csv' where b",
        "select a from t x where x.b",
        "select a from t x where x is null",
        "select a from (select * from t where b) x where x.c",
        "select a from (select * from t where b) where c",
        "select a from (select * from t where b) x where t.c > 1",
        "select a from t group by b having count(*) > 1",
        "select a from t group by a having count(*) > 2",
        "select a as b, b as a, count(*) from t group by a, b having count(*) > 1",
        "select count(*) from t group by a limit 0",
        "select count(*) from t group by a qualify b",
        "select a from t 'x' where b",
        "select a, count(*) from t group by 1 having count(*) > 1",
        "select a, count(*) from t group by rollup (a) having count(*) > 1",
        "with x as (select distinct a from t) select a, count(*) from x group by a having count(*) > 1",
        "with x as (select a as b from t) select * from x where a",
        "with x as (select a as b from t) select * from x where b and f(b)",
        "with x as (select a as b, c as b from t) select * from x where b",
        "with x as (select 1 from u where c limit 1), y as (select * from t where x) select * from y",
        "with x as (select * from y), y as (select * from t where a) select * from x",
        "with x as (select nothing from t), y as (select * from t where a) select * from y",
        "with recursive x as (select * from t) select * from x where a",
        "with x (b) as (select a from t) select * from x where b",
        "with x as (select a as b from t), y as (select c from x) select x.b from x left join y on x.b = y.c where y.c is null",
        "with x as (select a as b from t), y as (select c from u) select b from x left join y on x.b < y.c where y.c is null",
        "with x as (select a as b from t), y as (select c from u) select b from x left join y on x.b = y.c where x.b is null",
        "with x as (select a as b from t), y as (select c from u) select b from x join y on x.b = y.c where y.c is null",
        "with x as (select a as b from t), y as (select a as b from u) select b from x left join y on x.b = y.b where y.b is null",
        "with x as (select a as b from t), y as (select c from u) select b from x as y left join y on y.b = y.c where y.c is null",
        "with x as (select a as b from t), y as (select c from u) select b from x left join y z on x.b = y.c where y.c is null",
        "with x as (select a as b from t), y as (select c from u) select sum(b) from x left join y on x.b = y.c where y.c is null",
        'with x as (select a from t where b limit 1) select a from "x" where c',
        "select a as b from t where b > 1",
        "select a from t where columns(*) is null",
        "select a from (select * from t where b) x where rowid = 1",
        "select /*+ parallel */ a from t where b",
        "select a from t where b = 'it\\'s'",
        "select a from t where {{ b }}",
        "select a from t where (b",
        "select a from t where b)",
        "select a from t where b; select 1",
        "delete from t where b",
        "select 1",
        "",
    ],
)
def test_what_is_not_understood_stays_alone(sql):
    assert not merged(sql, PARTNER.format("t"))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT a FROM t WHERE b IS NULL",
        "select a from t as x where b",
        "select distinct a from t where b",
        "select a from t where a is distinct from b",
        "select a from t where extract(year from b) = 2020",
        "select a, b, count(*) from t where c group by a, b",
        "with x as (select * from t), y as (select * from x where b) select a from y where c",
        "with x as (select * from t where a) select * from x x where b",
        "select t.a from t where t.b",
        "select rowid from t where rowid is null",
        "with x as (select a as b from t), y as (select c from u) select v.b from x v left outer join y as w on v.b = w.c where w.c is null",
        "with x as (select a as b from t), y as (select 1 as b union all select 2) select b.b from x b left join y c on b.b = c.b where c.b is null",
    ],
)
def test_what_is_understood_is_merged(sql):
    assert only(sql, PARTNER.format("t"))


def test_only_tests_of_the_same_relation_are_merged():
    sql = ["select 1 from t where a", "select 1 from u where a", "select 1 from t where b", 'select 1 from "t" where a']
    assert [query.keys for query in merged(*sql)] == [("0", "2")]


def test_limits_split_a_group():
    sql = [f"select 1 from t where a{n}" for n in range(5)]
    assert [query.keys for query in merged(*sql, max_columns=2)] == [("0", "1"), ("2", "3")]
    assert [len(query.keys) for query in merged(*sql, max_bytes=900)] == [3, 2]
    assert all(len(query.sql) <= 900 for query in merged(*sql, max_bytes=900))
    assert not merged(*sql, max_bytes=10)


def test_few_tests_of_a_query_hold_values_in_memory():
    macros = real_macros()
    sql = [*(macros["unique"]("t", f"a{n}") for n in range(3)), *(macros["not_null"]("t", f"a{n}") for n in range(2))]
    assert [query.keys for query in merged(*sql, max_distinct=2)] == [("0", "1", "3", "4")]


@pytest.mark.parametrize("adapter", ["unheard_of", "sqlite", "mysql"])
def test_nothing_is_merged_in_sql_that_is_not_known(adapter):
    assert merged("select 1 from t where a", "select 1 from t where b", adapter=adapter) == ()


@pytest.mark.parametrize(
    "adapter",
    [
        "athena",
        "bigquery",
        "databricks",
        "duckdb",
        "fabric",
        "postgres",
        "redshift",
        "snowflake",
        "spark",
        "sqlserver",
        "trino",
    ],
)
def test_merged_sql_is_that_of_the_database(adapter):
    macros = real_macros()
    recent = "(select * from t where day > 20200101) dbt_subquery"
    sql = only(
        macros["unique"](recent, "a + b"),
        macros["not_null"]("t", "a"),
        macros["accepted_values"](recent, "a", [1, 2], quote=False),
        macros["relationships"]("t", "a", "u", "id"),
        adapter=adapter,
    )
    assert sqlglot.parse_one(sql, dialect=sqlglot_dialect(adapter)).named_selects == ["c0", "c1", "c2", "c3"]
