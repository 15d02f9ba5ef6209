"""What a compiled query reads, and whether it is proven to be deterministic."""

from __future__ import annotations

import pytest

from dagster_sao.sql.compiled_sql import SqlReads, read_compiled, read_statements, relation_key, relations_in_template

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
    assert read_statements(statements, "duckdb") == SqlReads(frozenset(relations), is_deterministic)
