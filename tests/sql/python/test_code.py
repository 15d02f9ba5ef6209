"""What a Python model reads that dbt does not know."""

from __future__ import annotations

import pytest

from dagster_sao.sql.python.code import inputs_of_python


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
        ("spark.read.parquet('/x').filter(a)", ["parquet('/x')"]),
        ("spark.read.format('delta').option('a', 1).load('/x')", ["load('/x')"]),
        ("session.read.option('a', 1).csv('@stage/x')", ["csv('@stage/x')"]),
        ("spark.readStream.table('raw.a').filter(b); spark.read.table('raw.c')", ["raw.a", "raw.c"]),
        ("DeltaTable.forName(spark, 'x').toDF()", ["forName(spark)"]),
        ("dbutils.fs.head('/x')", ["head('/x')"]),
        ("session.call('p')", ["call('p')"]),
        ("bpd.read_gbq('a.b'); pl.scan_parquet(p)", ["read_gbq('a.b')", "scan_parquet(p)"]),
        ("session.query('select * from raw.a'); session.from_query('from raw.b')", ["raw.a", "raw.b"]),
        ("client.query(sql); client.query_and_wait(f'select {x}')", ["query(sql)", "query_and_wait(f'select {x}')"]),
        ("df.query(f'a > {x}'); df.query('a > ' + x); df.query(f'select {x}')", ["query(f'select {x}')"]),
        ("frame.query('f', 'select * from f join raw.a using (id)'); frame.query('f', sql)", ["raw.a", "query(sql)"]),
        ("session.view('raw.v'); array.view('int32'); tensor.view(-1, 2)", ["raw.v"]),
        ("from duckdb import sql, query as q; sql('from raw.a'); q('from raw.b')", ["raw.a", "raw.b"]),
        ("import pandas as pd; pd.concat(map(pd.read_csv, files))", ["pd.read_csv"]),
        ("from pandas import read_csv as rows; [*map(rows, files)]", ["rows"]),
        ("import os; lookup = os.getenv; [*map(open, files)]", ["os.getenv", "open"]),
        ("def model(dbt, session):\n    walk = dbt.ref('a').stat\n    return walk", []),
        ("import numpy as np; np.load(path); np.fromfile(path)", ["load(path)", "fromfile(path)"]),
        ("import xml.etree.ElementTree as ET; ET.parse(path); ET.fromstring(text)", ["parse(path)"]),
        ("from dateutil.parser import parse; parse(text); df.eval('a + b')", []),
        ("import zipfile, gzip; zipfile.ZipFile(path); gzip.decompress(data)", ["ZipFile(path)"]),
        ("from pathlib import Path; Path('x').exists()", ["exists()"]),
        ("def walk(tree): return tree\nwalk(a); b.walk(c)", ["walk(c)"]),
        ("exec(code); eval('1')", ["exec(code)", "eval('1')"]),
        ("from os import environ, environ as e; e['A']; environ.get('B')", ["os.environ"]),
        ("import os as system; system.environ.get('B')", ["os.environ"]),
        ("from pandas import read_csv as rows; rows(path)", ["read_csv(path)"]),
        ("from helpers import query, table; query(a); table(b); from math import sqrt; sqrt(4)", []),
        ("f.read(); a.get('b'); df.load(c); json.loads(d); read(e)", []),
    ],
)
def test_inputs_beside_refs_and_sources(code, inputs):
    assert sorted(inputs_of_python(code, "duckdb")) == sorted(inputs)
