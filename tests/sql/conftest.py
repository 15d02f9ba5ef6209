"""The databases on which random SQL runs: the `DATABASES` of each module of tests are classes of its own."""

from __future__ import annotations

from contextlib import closing

import pytest


@pytest.fixture(scope="module")
def on_duckdb(request):
    in_memory, _ = request.module.DATABASES
    with closing(in_memory()) as database:
        yield database


@pytest.fixture(scope="module")
def on_postgres(request, postgres_server):
    _, on_server = request.module.DATABASES
    with closing(on_server(postgres_server)) as database:
        yield database


@pytest.fixture(params=["duckdb", "postgres"])
def database(request):
    return request.getfixturevalue(f"on_{request.param}")
