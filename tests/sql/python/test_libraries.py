"""Which imports of Python code may read anything."""

from __future__ import annotations

import pytest

from dagster_sao.sql.python.libraries import libraries_of_python


@pytest.mark.parametrize(
    ("code", "libraries"),
    [
        ("import json, math, pandas as pd; from numpy import array; from __future__ import annotations", []),
        ("import acme", ["import acme"]),
        ("import acme.rates as r", ["import acme.rates"]),
        ("from acme.rates import of, by", ["import acme.rates"]),
        ("def model(dbt, session):\n    import requests\n    return dbt.ref('a')", ["import requests"]),
        ("try:\n    import torch\nexcept ImportError:\n    torch = None", ["import torch"]),
        ("from importlib import import_module as load; load('acme.rates')", ["import acme.rates"]),
        ("__import__('acme')", ["import acme"]),
        ("import urllib.parse; import urllib.request", ["import urllib.request"]),
        ("from urllib import parse, request", ["import urllib"]),
        (
            "import subprocess, socket; from http import HTTPStatus",
            ["import subprocess", "import socket", "import http"],
        ),
        ("from snowflake.snowpark import functions; from snowflake import snowpark", []),
        (
            "from snowflake import cortex; import snowflake.connector",
            ["import snowflake", "import snowflake.connector"],
        ),
        ("from google.cloud import bigquery, storage", ["import google.cloud"]),
        ("from google.cloud import bigquery", []),
        ("import pyarrow as pa; import pyarrow.dataset as ds", ["import pyarrow.dataset"]),
        ("from sklearn import linear_model; from sklearn.datasets import fetch_openml", ["import sklearn.datasets"]),
        ("from acme import *; from . import beside", ["import acme"]),
        ("pandasql = 1; import pandasql", ["import pandasql"]),
        ("not python (", []),
    ],
)
def test_what_is_not_known_to_compute_only(code, libraries):
    assert sorted(libraries_of_python(code)) == sorted(libraries)
