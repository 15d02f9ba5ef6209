"""What a compiled query reads, and whether it is proven to be deterministic."""

from __future__ import annotations

import pytest

from dagster_sao.sql.compiled_sql import SqlReads, read_compiled, read_statements, relation_key, relations_in_template
from dagster_sao.sql.normal_form import may_select_star

READS = [
    ('select * from "db"."raw"."orders" o join raw.items using (id)', {"db.raw.orders", "raw.items"}),
    ("select 1 from a, b where exists (select 1 from c) union all select 2 from d", {"a", "b", "c", "d"}),
    ("with a as (select 1) select * from a", set()),
    ("with a as (select * from a) select * from a", {"a"}),
    ('with A as (select 1), "B" as (select 1) select * from a, b', set()),
    ('with "a" as (select 1) select * from "A"', {"a"}),
    ("with recursive a as (select 1 as n union all select n + 1 from a where n < 3) select * from a", set()),
    ("with a as (select 1), b as (select * from a join c on true) select * from b", {"c"}),
    ("select * from x where id in (with x as (select 1 as id) select id from x)", {"x"}),
    ("select extract(year from d), trim(both from e) from t", {"t"}),
    ("select * from read_csv('a.csv')", {"read_csv('a.csv')"}),
    ("select * from 'a.parquet'", {"a.parquet"}),
    ("select * from duckdb_tables()", {"duckdb_tables()"}),
    ("select * from range(3), unnest([1, 2])", set()),
    ("select ??? from raw.a join (select 1) on ((", {"raw.a"}),
]


def test_a_quoted_name_is_no_common_table_expression_whose_name_is_folded_otherwise():
    """On PostgreSQL, "Orders" is another name than Orders, which is orders."""
    sql = 'with Orders as (select 1) select * from "Orders", ORDERS'
    assert read_compiled(sql, "postgres").relations == {"orders"}
    assert read_compiled(sql, "duckdb").relations == set()


@pytest.mark.parametrize(("sql", "relations"), READS)
def test_the_relations_of_a_query_are_found(sql, relations):
    assert read_compiled(sql, "duckdb").relations == relations


@pytest.mark.parametrize(
    "sql",
    [
        "select a, count(*), sum(b), max(c) from t where d between 1 and 2 group by a order by a",
        "select coalesce(a, lower(b)), date_trunc('day', c), cast(d as date), e::int from t",
        "select 1 as id union all select id from t",
        "select *, sum(x) over (partition by a order by b) from t",
    ],
)
def test_a_query_of_known_functions_is_proven(sql):
    assert read_compiled(sql, "duckdb").is_deterministic


@pytest.mark.parametrize(
    "expression",
    [
        "current_date", "now()", "random()", "uuid()", "nextval('s')", "current_user", "current_setting('a')", "getvariable('a')",
        "my_function(a)", "db.my_function(a)", "'now'::date", "cast('today' as timestamp)", "any_value(a)", "first(a)",
        "arg_max(a, b)", "list(a)", "string_agg(a, ',')", "row_number() over (partition by a)", "approx_count_distinct(a)",
        "lag(a) over (order by b)", "$1", "mode(a)", "version()", "txid_current()", "pg_backend_pid()",
        "sum(a) over (order by b rows unbounded preceding)", "rowid", "array(select a from u)", "a < 'today'", "' now '::date",
        "ctid", "user",
    ],
)  # fmt: skip
def test_what_may_give_other_rows_is_not_proven(expression):
    assert not read_compiled(f"select {expression} from t", "duckdb").is_deterministic


@pytest.mark.parametrize(
    "sql",
    ["select * from t limit 1", "select * from t tablesample (10 percent)", "select distinct on (a) * from t",
     "select * from t asof join u on t.a >= u.a", "select * from t positional join u",
     "select * from read_csv('a.csv')", "select 1; select 2", "delete from t", "select ???", ""],
)  # fmt: skip
def test_a_query_that_may_give_other_rows_is_not_proven(sql):
    assert not read_compiled(sql, "duckdb").is_deterministic


@pytest.mark.parametrize(
    ("dialect", "sql"),
    [
        ("bigquery", "select * from d.t for system_time as of timestamp_sub(x, interval 1 hour)"),
        ("bigquery", "select * from ml.generate_text(model `d.m`, table d.t)"),
        ("bigquery", "select * from vector_search(table d.base, 'e', table d.q)"),
        ("clickhouse", "select * from a any join b using x"),
        ("clickhouse", "select * from a asof join b using x"),
        ("clickhouse", "select * from a semi left join b using x"),
        ("clickhouse", "select quantile(0.5)(x) from a"),
        ("clickhouse", "select _part from a"),
        ("databricks", "select * from t timestamp as of '2026-01-01'"),
        ("databricks", "select timestamp 'today Europe/Berlin' from t"),
        ("databricks", "select secret('a', 'b') from t"),
        ("dremio", "select * from a at snapshot '1'"),
        ("mysql", "select utc_timestamp from a"),
        ("oracle", "select systimestamp from a"),
        ("oracle", "select * from a as of scn 123"),
        ("postgres", "select * from a where b < 'tomorrow 12:00'"),
        ("postgres", "select * from a where b < '12:00 today'"),
        ("postgres", "select x from a for update skip locked"),
        ("postgres", "select * from rows from (f(1)) t"),
        ("snowflake", "select * from a at(offset => -3600)"),
        ("snowflake", "select * from a match_recognize(order by x measures y as z pattern (b+) define b as true)"),
        ("snowflake", "select numbers.nextval from a"),
        ("sqlite", "select date() from a"),
        ("sqlite", "select a, b, max(c) from t group by a"),
        ("sqlite", "select a, max(c) from t"),
        ("sqlserver", "select stuff((select ',' + x from b for xml path('')), 1, 1, '') from a"),
        ("sqlserver", "select object_id('x') from a"),
        ("teradata", "select date as day from a"),
        ("trino", "select * from a for version as of 1"),
        ("trino", "with function f(x int) returns int return x select f(y) from a"),
        ("unheard_of", "select current date from a"),
    ],
)
def test_what_a_dialect_alone_makes_give_other_rows_is_not_proven(dialect, sql):
    assert not read_compiled(sql, dialect).is_deterministic


@pytest.mark.parametrize(
    ("dialect", "sql"),
    [
        ("bigquery", "select date, a.b.c from `p.d.t` t, unnest(t.items) as item where day(date) = 1"),
        ("clickhouse", "select a, count(*) from d.t final array join x left join u using (b) prewhere c group by a"),
        ("databricks", "select *, date(a), percentile(b, 0.5) over () from t lateral view explode(c) d"),
        ("postgres", "select 'now we all know', 'todays ' || a from only b"),
        (
            "snowflake",
            "select a:b.c, f.value from t, lateral flatten(input => x) f qualify rank() over (order by a) = 1",
        ),
        ("sqlite", "select a, lower(b) as l, d + 1, max(c) from t group by a, l, 3"),
        ("sqlserver", "select [a] from [b].[c] with (nolock) cross apply (select 1 as d) e"),
        ("trino", "select a from b anti join c on true natural join d"),
    ],
)
def test_ordinary_sql_of_a_dialect_is_proven(dialect, sql):
    assert read_compiled(sql, dialect).is_deterministic


@pytest.mark.parametrize(
    ("dialect", "sql", "relations"),
    [
        ("clickhouse", "with c as (select 1) select * from a where x in d.b and y not in c", {"a", "d.b"}),
        ("postgres", "select * from rows from (f(1), generate_series(1, 2)) t, a", {"f(1)", "a"}),
        ("snowflake", "select * from table('x.y.z')", {"'x.y.z'"}),
        ("snowflake", "select * from table(x.y.z)", {"x.y.z"}),
        ("snowflake", "select * from identifier('x.y.z')", {"identifier('x.y.z')"}),
        ("snowflake", "select * from table(result_scan(last_query_id()))", {"result_scan(last_query_id())"}),
        ("snowflake", "select * from a, table(flatten(input => x)), table(generator(rowcount => 1))", {"a"}),
        ("sqlite", "select * from a where x in b", {"a", "b"}),
        ("sqlserver", "select * from srv.db.dbo.t", {"srv.db.dbo.t"}),
        ("trino", "with function f(x int) returns int return x select f(y) from a", {"a"}),
    ],
)
def test_a_relation_is_found_wherever_a_dialect_names_it(dialect, sql, relations):
    assert read_compiled(sql, dialect).relations == relations


@pytest.mark.parametrize(
    ("sql", "relations"),
    [
        (
            "select ??? from raw.a x, raw.b as y , [raw].[c], lateral d, unnest(e) where f = 1, g",
            {"raw.a", "raw.b", "raw.c"},
        ),
        ("select ??? from raw.a x, x.items, a.more, raw.b", {"raw.a", "raw.b"}),
        (
            "with q as (select 1) select ??? from q, raw.a join openrowset(bulk 'x') o on 1 = 1",
            {"raw.a", "openrowset(…)"},
        ),
    ],
)
def test_the_relations_of_sql_that_cannot_be_parsed_are_found(sql, relations):
    assert read_compiled(sql, "duckdb").relations == relations


def test_names_are_compared_whatever_their_quotes_and_case():
    assert relation_key('"Db"."Raw"."Orders"', "duckdb") == "db.raw.orders"
    assert relation_key("`p`.`d`.`t`", "bigquery") == "p.d.t"
    assert relation_key("read_csv('a.csv')", "duckdb") == "read_csv('a.csv')"


@pytest.mark.parametrize(
    ("template", "relations"),
    [
        ("select * from {{ ref('a') }} join raw.b using (id)", {"raw.b"}),
        ("select * from {{ source('a', 'b') }} where exists (select 1 from {{ this }})", set()),
        ("{% if x %}select * from raw.a{% else %}select * from {{ ref('b') }}{% endif %}", {"raw.a"}),
        ("select * from {{ schema }}.b", set()),
    ],
)
def test_relations_that_a_template_spells_out(template, relations):
    assert relations_in_template(template, "duckdb") == relations


@pytest.mark.parametrize(
    ("statements", "relations", "is_deterministic"),
    [
        (["insert into m select * from raw.b"], {"raw.b"}, True),
        (["insert into m (a) with c as (select a from raw.b) select a from c"], {"raw.b"}, True),
        (["delete from m where a in (select a from raw.b)"], {"raw.b"}, True),
        (["update m set a = b.a from raw.b where m.id = b.id"], {"raw.b"}, True),
        (["merge into m using raw.b on m.id = b.id when matched then update set a = b.a"], {"raw.b"}, True),
        (["create temp table t as select * from raw.b", "insert into m select * from t", "drop table t"], {"raw.b"}, True),
        (["insert into audit.log select count(*) from audit.log"], set(), True),
        (["insert into audit.log select count(*) from audit.log", "insert into m select * from audit.log"], {"audit.log"}, True),
        (["create table if not exists t (a int)", "insert into m select * from t"], {"t"}, True),
        (["create or replace table t as select * from t", "insert into m select * from t"], {"t"}, True),
        (["insert into m select * from t", "create or replace table t as select 1 as a"], {"t"}, True),
        (["set variable x = (select max(a) from raw.b)"], {"raw.b"}, False),
        (["create index i on m (a)", "alter table m add column b int", "comment on table m is 'x'"], set(), True),
        (["truncate m", "drop table if exists raw.b", "begin", "vacuum m", "analyze m"], set(), True),
        (["insert into m values (now())"], set(), False),
        (["select my_function()"], set(), False),
        (["select 1"], set(), True),
        (["create or replace macro f() as (select max(a) from raw.b)"], {"raw.b"}, False),
        (["create or replace macro f(x) as x + 1"], set(), True),
        (["copy m from 'a.csv'"], {"a statement: copy m from"}, False),
        (["call p()"], {"a statement: call p()"}, False),
        (["insert into m select ??? from raw.b"], {"raw.b"}, False),
        ([], set(), True),
    ],
)  # fmt: skip
def test_statements_read_what_they_do_not_write(statements, relations, is_deterministic):
    found = read_statements(statements, "duckdb")
    assert (found.relations, found.is_deterministic) == (relations, is_deterministic)


def test_what_the_parser_of_sqlglot_fails_on_by_another_error_counts_as_not_understood():
    sql = "-> select '1' minute) currval('s') from a"
    assert read_compiled(sql, "sqlite") == SqlReads(frozenset({"a"}))
    assert may_select_star(sql, "sqlite")
