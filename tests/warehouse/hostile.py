"""Values of `loaded_at_query` and `loaded_at_field` that a probe must survive: by name, which databases, and the value."""

from __future__ import annotations

BOTH = frozenset({"duckdb", "postgres"})
DUCKDB, POSTGRES = frozenset({"duckdb"}), frozenset({"postgres"})

# `@OUT@` is a path that must not come to exist, `raw.victim` a table that must not change, `raw.hidden` has `SECRET_ROW`.
SECRET_ROW = "row-hunter2-secret"

# Asking or writing while Jinja is rendered.
JINJA = {
    "run_query": "select now() {% set x = run_query('commit; drop table raw.victim; commit') %}",
    "run_query_of_dbt": "select now() {% set x = dbt.run_query('drop table raw.victim') %}",
    "copy_in_jinja": "select now() {% set x = run_query(\"copy (select 1) to '@OUT@'\") %}",
    "statement": "{% call statement('x') %}drop table raw.victim{% endcall %} select now()",
    "adapter_execute": "{% do adapter.execute('drop table raw.victim', auto_begin=False) %} select now()",
    "adapter_by_item": "{% do adapter['execute']('drop table raw.victim') %} select now()",
    "adapter_by_filter": "{% do (adapter | attr('execute'))('drop table raw.victim') %} select now()",
    "adapter_of_context": "{% do context['adapter'].drop_schema(this) %} select now()",
    "add_query": "{% do adapter.add_query('drop table raw.victim') %} select now()",
    "drop_relation": "{% do adapter.drop_relation(this) %} select now()",
    "macro_that_asks": "{{ asks() }}",
    "macro_that_drops": "{{ drop_relation(this) }} select now()",
    "adapter_commit": "{% do adapter.commit() %} select now()",
    "columns": "select now() -- {{ adapter.get_columns_in_relation(this) }}",
    "relation_of_api": "{% do load_relation(this) %} select now()",
    "write": "{% do write('x') %} select now()",
    "private_adapter": "{% do adapter._adapter.execute('drop table raw.victim') %} select now()",
    "classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "secret_variable": "select '{{ env_var(\"DBT_ENV_SECRET_PLANTED\") }}'",
    "endless_text": "select '{{ 'x' * 100000 }}'",
    "endless_loop": "{% for i in range(10 ** 12) %}x{% endfor %}",
    "no_unicode": "select '{{ '\\ud800' }}'",
}
# Statements that are not one SELECT, or a SELECT that does more than read.
STATEMENTS = {
    "drop_after": "select now(); drop table raw.victim",
    "commit_first": "select now()) as x; commit; drop table raw.victim; select (now()",
    "carriage_return": "select now() -- \r) as x; drop table raw.victim; select (now()",
    "dollar_name": "select 1 as a$$ ) as x ; drop table raw.victim; select ( 1 as b$$",
    "dollar_tag": "select $a$ ; $b$ ; $a$",
    "backslash": "select E'\\'; drop table raw.victim; --'",
    "nested_comment": "select now() /* /* */ ) as x; drop table raw.victim; select (now() /* */ */",
    "only_a_comment": "-- now()",
    "zero": "select now() \x00 ; drop table raw.victim",
    "insert": "insert into raw.victim values (9)",
    "insert_inside": "with x as (insert into raw.victim values (9) returning *) select now() from x",
    "merge": "merge into raw.victim using raw.victim v on true when matched then delete",
    "into": "select now() as t into raw.made",
    "create": "create table raw.made as select now() as t",
    "explain": "explain analyze delete from raw.victim",
    "set": "set threads = 1",
    "reset": "set default_transaction_read_only = off",
    "attach": "attach '@OUT@' as other",
    "copy": "copy raw.victim to '@OUT@'",
    "export": "export database '@OUT@'",
    "install": "install httpfs",
    "load": "load httpfs",
    "pragma": "pragma database_list",
    "call": "call pragma_version()",
    "checkpoint": "checkpoint",
    "vacuum": "vacuum",
    "sequence": "select nextval('raw.counter')",
    "many_parentheses": "select " + "(" * 2500 + "now()" + ")" * 2500,
    "many_not": "select " + "not " * 3000 + "true",
    "many_cases": "select " + "case when true then " * 1500 + "now()" + " end" * 1500,
}
POSTGRES_ONLY = {
    "setval": "select setval('raw.counter', 99)",
    "quoted_setval": "select \"setval\"('raw.counter', 99)",
    "escaped_name": "select U&\"s\\0065tval\"('raw.counter', 99)",
    "set_config": "select set_config('default_transaction_read_only', 'off', false)",
    "terminate": "select pg_terminate_backend(pg_backend_pid())",
    "large_object": "select lo_from_bytea(0, 'x')",
    "file": "select pg_read_file('/etc/hostname')",
    "copy_program": "copy (select 1) to program 'touch @OUT@'",
    "xml": "select query_to_xml('drop table raw.victim', true, true, '')",
    "dblink": "select * from dblink('host=127.0.0.1', 'select 1') as t(a int)",
    "advisory_lock": "select pg_advisory_lock(1)",
    "notify": "select pg_notify('x', 'y')",
    "function_that_writes": "select raw.wipe()",
    "function_that_raises": "select raw.tells()",
    "bytes": "select convert_from('\\xff', 'UTF8')",
}
DUCKDB_ONLY = {
    "query_function": "select * from query('select now()')",
    "error_function": "select error(name) from raw.hidden",
    "postgres_execute": "select * from postgres_execute('x', 'drop table raw.victim')",
}
# Answers that would show what a probe may not tell, or that cannot be counted with.
ANSWERS = {
    "row": "select name from raw.hidden",
    "row_as_time": "select cast(name as timestamp) from raw.hidden",
    "row_as_number": "select cast(name as integer) from raw.hidden",
    "far_future": "select cast('9999-12-31 23:59:59' as timestamp)",
    "endless_time": "select cast('infinity' as timestamp)",
    "before_christ": "select cast('0044-03-15 (BC)' as timestamp)",
    "overflow": "select cast(99999999999999999999 as bigint)",
    "list": "select array[1, 2]",
}
QUERIES = {
    **dict.fromkeys([*JINJA, *STATEMENTS, *ANSWERS], BOTH),
    **dict.fromkeys(POSTGRES_ONLY, POSTGRES),
    **dict.fromkeys(DUCKDB_ONLY, DUCKDB),
}
TEXTS = {**JINJA, **STATEMENTS, **POSTGRES_ONLY, **DUCKDB_ONLY, **ANSWERS}
FIELDS = {
    "field_leaves": "loaded_at) from raw.victim; drop table raw.victim; --",
    "field_calls": "nextval('raw.counter')",
    "field_hidden": "(select cast(name as timestamp) from raw.hidden)",
}
UNHARMFUL = frozenset({"far_future", "many_not", "many_cases", "many_parentheses"})
"""Which may give a token."""
