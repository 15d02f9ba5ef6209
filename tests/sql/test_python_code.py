"""What a Python model reads that dbt does not know."""

from __future__ import annotations

import pytest

from dagster_sao.sql.python_code import inputs_of_python


@pytest.mark.parametrize(
    ("code", "inputs"),
    [
        ("dbt.ref('a'); dbt.source('raw', 'b'); dbt.config.get('x')", []),
        ("session.table('RAW.Rates')", ["raw.rates"]),
        ("session.sql('select * from raw.a join raw.b using (id)')", ["raw.a", "raw.b"]),
        ("session.sql(f'select * from {name}')", ["sql(f'select * from {name}')"]),
        ("df = dbt.ref('a'); duckdb.sql('select * from df')", []),
        ("session.execute('insert into raw.log select 1')", []),
        ("pd.read_csv('rates.csv')", ["read_csv('rates.csv')"]),
        ("open(path).read()", ["open(path)"]),
        ("import os; os.environ['A']; os.getenv('B')", ["os.environ", "getenv('B')"]),
        ("df.query('a > 1'); df.filter(df.a > 1)", []),
        ("not python (", []),
    ],
)
def test_inputs_beside_refs_and_sources(code, inputs):
    assert sorted(inputs_of_python(code, "duckdb")) == sorted(inputs)
