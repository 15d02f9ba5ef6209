"""dbt with fewer queries answers every test as dbt does that runs each, on random projects: and a broken rule is found."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from dbt_dagster_sao.data_tests import efficient
from dbt_dagster_sao.data_tests.handover import How
from tests.support.postgres_server import database, shop_profile
from tests.trace.answers import Answers, DuckDB, dbt, everything, forget, write
from tests.trace.random_project import random_project

FEW, MANY = (1001,), int(os.environ.get("DAGSTER_SAO_EQUAL_PROJECTS", "200"))
SHARE_ON_POSTGRES = 5
"""One project of so many is tried on PostgreSQL too, in the slow test."""
MERGED_OF_EACH = 10
LENIENT, SMALL = 16, {"models": 5, "tests_per_relation": 7}
MEDIUM = {"models": 9, "tests_per_relation": 6}


class Postgres:
    """A database of its own on a server."""

    adapter = "postgres"

    def __init__(self, server, name, ask):
        self.profile = shop_profile(server, name, threads=4)
        self._ask = ask

    def execute(self, *statements):
        """Return the rows of the last statement."""
        found = None
        for statement in statements:
            found = self._ask(statement)
        return found


@contextmanager
def on_duckdb(seed, folder):
    yield DuckDB(folder)


def on_postgres(server):
    @contextmanager
    def world(seed, _):
        name = f"equal_{seed}"
        with database(server, name) as ask:
            yield Postgres(server, name, ask)

    return world


@dataclass(frozen=True)
class Built:
    """A project that dbt has built by itself."""

    seed: int
    folder: Path
    warehouse: Any
    arguments: Sequence[str]
    plain: Answers

    def differences(self):
        """Return what differs when it is built with fewer queries, and how its tests were answered then."""
        forget(self.warehouse)
        request = everything(self.folder, proves=True).to_json()
        fewer = dbt(self.folder, self.warehouse, "build", *self.arguments, request=request)
        differences = self.plain.differences(fewer)
        how = Counter(answer.how for answer in fewer.how.values())
        statuses = dict(self.plain.statuses())
        print(
            f"seed {self.seed} {self.arguments}: {statuses}, {dict(how)}, {len(self.plain.stored)} stored, {differences}"
        )
        return differences, how


@contextmanager
def built(seed, world, **size):
    with TemporaryDirectory() as name:
        folder = Path(name).resolve()
        with world(seed, folder) as warehouse:
            project = random_project(seed, warehouse.adapter, **size)
            write(folder, {**project.files, "profiles.yml": warehouse.profile})
            warehouse.execute(*project.statements)
            plain = dbt(folder, warehouse, "build", *project.arguments)
            assert plain.results
            yield Built(seed, folder, warehouse, project.arguments, plain)


def check(seeds, world):
    counts = Counter()
    for seed in seeds:
        with built(seed, world, **MEDIUM) as project:
            differences, how = project.differences()
        assert not differences
        counts += how
    return counts


def test_fewer_queries_give_the_same_answers():
    assert check(FEW, on_duckdb)[How.MERGED] > MERGED_OF_EACH * len(FEW)


def test_fewer_queries_give_the_same_answers_on_postgres(postgres_server):
    assert check(FEW, on_postgres(postgres_server))[How.MERGED] > MERGED_OF_EACH * len(FEW)


def test_fewer_queries_give_the_same_answers_where_few_tests_hold_what_is_below(lenient):
    differences, how = lenient.differences()
    assert not differences
    assert how[How.MERGED] > MERGED_OF_EACH


@pytest.mark.slow
@pytest.mark.rare
def test_fewer_queries_give_the_same_answers_in_many_projects(postgres_server):
    seeds = range(1000, 1000 + MANY)
    check(seeds, on_duckdb)
    check(seeds[::SHARE_ON_POSTGRES], on_postgres(postgres_server))


# Each takes an answer that is not certain. Not one may survive the few projects.


@pytest.fixture(scope="module")
def lenient():
    """A small project in which few tests hold what is below them."""
    with built(LENIENT, on_duckdb, **SMALL) as project:
        yield project


def take_every_column_for_zero(patch):
    original = efficient._row
    patch.setattr(efficient, "_row", lambda *arguments: [0 for _ in original(*arguments)])


def forget_the_conditions(patch):
    patch.setattr(efficient, "answer_at_zero", lambda *_, **__: (False, False))


def with_config(**others):
    original = efficient.answer_at_zero

    def answer_at_zero(test, **options):
        return original({**test, "config": {**test["config"], **others}}, **options)

    return lambda patch: patch.setattr(efficient, "answer_at_zero", answer_at_zero)


@pytest.mark.parametrize(
    "mutate",
    [
        take_every_column_for_zero,
        forget_the_conditions,
        pytest.param(with_config(error_if="!= 0"), id="error_if"),
        pytest.param(with_config(warn_if="!= 0"), id="warn_if"),
        pytest.param(with_config(fail_calc="count(*)"), id="fail_calc"),
        pytest.param(with_config(store_failures=False), id="store_failures"),
    ],
)
def test_an_answer_that_is_not_certain_is_found(monkeypatch, lenient, mutate):
    mutate(monkeypatch)
    assert lenient.differences()[0]
