"""Merge data tests that read the same relation into queries with one scan of it and a column for each test.

The merged query is made of slices of the tests' own SQL. A test whose shape is not understood is in no merged query, and runs alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dagster_sao.sql.dialects import DistinctCounts, distinct_counts, lexicon_of
from dagster_sao.sql.merged_tests.pieces import cut, text_of
from dagster_sao.sql.merged_tests.scan import rows_of, sql_of
from dagster_sao.sql.merged_tests.shapes import Duplicates, Shape, shape_of

_MAX_BYTES = 200_000
"""Every known database accepts a query of this size."""
MAX_COLUMNS = 100
_MAX_DISTINCT = 4
"""How many tests in one query may make the database hold all values of a column in memory."""
_SIZE_OF_COLUMNS = 200
"""How many bytes longer a test may be beside others than alone: the columns that pass its values on."""


@dataclass(frozen=True, slots=True)
class TestQuery:
    """One compiled data test."""

    key: str
    sql: str
    """The query that returns the failures."""


@dataclass(frozen=True, slots=True)
class MergedQuery:
    """One query in place of several tests."""

    sql: str
    """A query with one row, and a column for each test: `c0`, `c1` and so on."""
    keys: tuple[str, ...]
    """The test of each column, which is 0, and never NULL, if and only if that test would return no row.

    A column may give a false alarm, which the test itself then settles: where the database applies a collation in one comparison
    and not in another, and where two values of the parent of a `relationships` test equal one of the child.
    """


def merge(
    queries: Sequence[TestQuery],
    adapter: str,
    *,
    max_bytes: int = _MAX_BYTES,
    max_columns: int = MAX_COLUMNS,
    max_distinct: int = _MAX_DISTINCT,
) -> tuple[MergedQuery, ...]:
    """Return the merged queries of some tests. Each has at least two tests; a test that is in none must run alone.

    >>> tests = [
    ...     TestQuery("a", "select id from t where id is null"),
    ...     TestQuery("b", "select 1 from t where not(x > 0)"),
    ... ]
    >>> print(merge(tests, "duckdb")[0].sql)
    select
      count(case when id is null then 1 end) as c0,
      count(case when not(x > 0) then 1 end) as c1
    from t
    """
    lexicon, distinct = lexicon_of(adapter), distinct_counts(adapter)
    if lexicon is None:
        return ()
    by_relation: dict[str, list[_Test]] = {}
    for query in queries:
        pieces = cut(query.sql, lexicon)
        shape = None if pieces is None else shape_of(pieces)
        if shape is not None and _pays(shape, distinct):
            test = _Test(query.key, shape, len(sql_of([shape], distinct).encode()) + _SIZE_OF_COLUMNS)
            by_relation.setdefault(text_of(rows_of(shape).relation), []).append(test)
    limits = _Limits(max_bytes, max_columns, max_distinct, max_grouped=max_distinct if distinct else 1)
    return tuple(
        MergedQuery(sql_of([test.shape for test in group], distinct), tuple(test.key for test in group))
        for tests in by_relation.values()
        for group in limits.groups(tests)
        if len(group) > 1
    )


def _pays(shape: Shape, distinct: DistinctCounts | None) -> bool:
    return distinct is None or distinct.has_rows or not isinstance(shape, Duplicates) or len(shape.keys) == 1


@dataclass(frozen=True, slots=True)
class _Test:
    key: str
    shape: Shape
    size: int
    """The most bytes that it can add to a query."""

    @property
    def is_grouped(self) -> bool:
        return isinstance(self.shape, Duplicates)

    @property
    def is_distinct(self) -> bool:
        """Whether the values of a column must be held in memory."""
        return isinstance(self.shape, Duplicates) or self.shape.parent is not None


@dataclass(frozen=True, slots=True)
class _Limits:
    max_bytes: int
    max_columns: int
    max_distinct: int
    max_grouped: int

    def groups(self, tests: Sequence[_Test]) -> list[list[_Test]]:
        """Return the tests in groups within the limits: each test is in the first one with room."""
        groups: list[list[_Test]] = []
        for test in tests:
            group = next((group for group in groups if self._allow([*group, test])), None)
            if group is not None:
                group.append(test)
            elif self._allow([test]):
                groups.append([test])
        return groups

    def _allow(self, group: Sequence[_Test]) -> bool:
        return (
            len(group) <= self.max_columns
            and sum(test.is_distinct for test in group) <= self.max_distinct
            and sum(test.is_grouped for test in group) <= self.max_grouped
            and sum(test.size for test in group) <= self.max_bytes
        )
