"""Random small tables, and random data tests of them as macros write them, on a real database."""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import dataclass, field

from dagster_sao.sql import merged_tests
from tests.sql.merged_tests.random_macros import RandomMacros

GROUPS_PER_TABLE = 8
_COLUMNS = "id int, k int, s varchar(9), c {ci}, d date, f double precision"
# `k` is a table with a column of its name, and `c` is compared without regard to case.
_TABLES = (
    f"create table t ({_COLUMNS}); create table k ({_COLUMNS}); create table p (id bigint, s varchar(9), c {{ci}});"
)


class DuckDB:
    """A DuckDB in memory."""

    adapter = "duckdb"
    alarms = re.compile(r"\bc\b.*having count\(\*\) > 1", re.DOTALL)
    """Tests whose column need not be 0: a count of distinct values may not know the collation of `c`."""

    def __init__(self):
        import duckdb

        self._error, self._data_error = duckdb.Error, duckdb.DataError
        self._connection = duckdb.connect(config={"threads": 1})
        self.run(_TABLES.format(ci="varchar collate nocase"))

    def close(self):
        self._connection.close()

    def run(self, sql):
        self._connection.execute(sql)

    def is_mistake(self, found):
        """Return whether this is an error that the data are not to blame for.

        A database may evaluate a condition for rows that another one leaves out. Whether it does is its own choice.
        """
        return isinstance(found, self._error) and not isinstance(found, self._data_error)

    def row(self, sql):
        """Return the first row, or the error."""
        try:
            self._connection.execute(sql)
            return self._connection.fetchone()
        except self._error as error:
            return error


class Postgres(DuckDB):
    """A session of a PostgreSQL server, in a schema of its own."""

    adapter = "postgres"
    alarms = re.compile("(?!)")

    def __init__(self, server):
        import psycopg2

        self._error, self._data_error = psycopg2.Error, psycopg2.DataError
        self._session = server.connect()
        self._connection = self._session.cursor()
        self.run("create schema merged_tests; set search_path to merged_tests; set statement_timeout to 5000")
        self.run("create collation ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
        self.run(_TABLES.format(ci="varchar(9) collate ci"))

    def close(self):
        self._connection.execute("drop schema merged_tests cascade")
        self._session.close()


@dataclass
class Report:
    """What was tried."""

    groups: int = 0
    tests: int = 0
    merged: int = 0
    passed: int = 0
    errors: int = 0
    shapes: Counter[str] = field(default_factory=Counter)
    counterexample: str | None = None


class RandomTests:
    """Compares merged tests with single ones. One seed is one sequence."""

    def __init__(self, database, seed):
        self._database = database
        self._source = random.Random(seed)
        self._macros = RandomMacros(self._source, database.adapter)

    def run(self, groups: int) -> Report:
        """Try some groups, until a column says something else than its test."""
        report = Report()
        while report.groups < groups and report.counterexample is None:
            if report.groups % GROUPS_PER_TABLE == 0:
                self._fill()
            report.groups += 1
            self._try(report)
        return report

    def _fill(self):
        source = self._source
        nulls = source.choice([0.0, 0.0, 0.2, 0.5])
        size = source.choice([0, 1, 2, 3, 5, 8])
        wide = source.choice([3, 30, 1000])
        pools = {
            "int": [str(n) for n in range(wide)],
            "text": ["'a'", "'A'", "'b'", "'1'", "'2'", "''", "'a '"] + [f"'x{n}'" for n in range(wide)],
            "date": [f"date '2020-01-{1 + n % 28:02}'" for n in range(wide)],
            "float": ["0.0", "-0.0", "1.5", "cast('nan' as double precision)"] + [f"{n}.25" for n in range(wide)],
        }

        def value(kind):
            return "null" if source.random() < nulls else source.choice(pools[kind])

        def rows(kinds, count):
            return ", ".join(f"({', '.join(map(value, kinds))})" for _ in range(count))

        for table, kinds in (
            ("t", ["int", "int", "text", "text", "date", "float"]),
            ("k", ["int", "int", "text", "text", "date", "float"]),
            ("p", ["int", "text", "text"]),
        ):
            count = source.choice([0, 5, 40]) if table == "p" else size
            self._database.run(f"delete from {table}")
            if count:
                self._database.run(f"insert into {table} values {rows(kinds, count)}")

    def _try(self, report):
        relation = self._source.choice(["t", "t", "t", '"t"', "k"])
        tests = [self._macros.test(relation) for _ in range(self._source.choice([2, 2, 3, 4, 6, 9]))]
        queries = [merged_tests.TestQuery(f"{n} {shape}", sql) for n, (shape, sql) in enumerate(tests)]
        report.tests += len(queries)
        by_key = {query.key: query.sql for query in queries}
        limit = self._source.choice([1, 2, 4, 4, 4])
        for merged in merged_tests.merge(queries, self._database.adapter, max_distinct=limit):
            self._compare(merged, by_key, report)

    def _compare(self, merged, by_key, report):
        found = self._database.row(merged.sql)
        singles = {key: self._database.row(f"select count(*) from (\n{by_key[key]}\n) x") for key in merged.keys}
        failed = {key for key, single in singles.items() if isinstance(single, Exception)}
        report.errors += isinstance(found, Exception)
        if isinstance(found, Exception):
            wrong = [] if failed else list(merged.keys)
        else:
            report.merged += len(merged.keys)
            report.passed += found.count(0)
            report.shapes.update(key.split()[1] for key in merged.keys)
            columns = zip(merged.keys, found, strict=True)
            wrong = [key for key, column in columns if self._is_wrong(column, singles[key], by_key[key])]
        if wrong:
            single = "\n".join(f"{by_key[key]}\n-- gives {singles[key]}" for key in wrong)
            report.counterexample = f"{merged.sql}\n-- gives {found} for {merged.keys}, but\n{single}"

    def _is_wrong(self, column, single, sql):
        if isinstance(single, Exception):
            return self._database.is_mistake(single)
        if column and self._database.alarms.search(sql):
            return False
        return (column == 0) is not (single[0] == 0)
