"""Write one query that reads a relation once and counts what several tests would find in it.

A condition stands in a CASE within the guards before it, so that it is evaluated only for rows that the test reads. Duplicates
are found by the same GROUP BY as in the test itself: `count(distinct …)` has another notion of equal values in some databases
(DuckDB 1 ignores the collation of a column there). If several tests look for duplicates, each has a grouping set.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dagster_sao.sql.merged_tests.pieces import Pieces, contains, text_of
from dagster_sao.sql.merged_tests.shapes import Duplicates, Rows, Shape


def sql_of(shapes: Sequence[Shape]) -> str:
    """Return the query for tests of one relation. Its column `c0` is 0 if the first test finds nothing, and so on."""
    scopes = _scopes(shapes)
    tests = [_Test(index, shape, is_scoped=len(scopes) == 1) for index, shape in enumerate(shapes)]
    source = [f"from {text_of(rows_of(shapes[0]).relation)}", *(line for test in tests for line in test.join())]
    if scopes:
        source.append("where " + " or ".join(scopes if len(scopes) == 1 else [f"({scope})" for scope in scopes]))
    grouped = [test for test in tests if test.keys]
    if not grouped:
        return _query([f"count({test.flag()}) as c{test.index}" for test in tests], *source)
    inner = _query([column for test in tests for column in test.columns()], *source)
    sets = [f"({', '.join(test.key_names())})" for test in grouped]
    # The sets are told apart by the keys that they leave out.
    marks = [f"grouping({test.key_names()[0]}) as g{test.index}" for test in grouped] if len(sets) > 1 else []
    groups = _query(
        [*marks, *(f"count(sao_r{test.index}) as n{test.index}" for test in tests)],
        f"from (\n{inner}\n) sao_rows",
        f"group by grouping sets ({', '.join(sets)})" if marks else f"group by {sets[0][1:-1]}",
    )
    first = grouped[0].index
    return _query(
        [test.count(test.index if test.keys else first, has_sets=bool(marks)) for test in tests],
        f"from (\n{groups}\n) sao_groups",
    )


def rows_of(shape: Shape) -> Rows:
    """Return the rows in which a test looks."""
    return shape.rows if isinstance(shape, Duplicates) else shape


def _scopes(shapes: Sequence[Shape]) -> list[str]:
    """Return the conditions that dbt put around the relation, if each test has one: no other rows need be read."""
    scopes = [rows_of(shape).scope for shape in shapes]
    return list(dict.fromkeys(text_of(scope) for scope in scopes if scope is not None)) if None not in scopes else []


@dataclass(frozen=True, slots=True)
class _Test:
    """What one test adds to the query."""

    index: int
    shape: Shape
    is_scoped: bool
    """Whether the query reads no other rows than those of the test's scope."""

    @property
    def rows(self) -> Rows:
        return rows_of(self.shape)

    @property
    def keys(self) -> tuple[Pieces, ...]:
        """The expressions whose values must not occur twice."""
        return self.shape.keys if isinstance(self.shape, Duplicates) else ()

    @property
    def guards(self) -> list[str]:
        return [text_of(guard) for guard in self.rows.guards[1 if self.is_scoped else 0 :]]

    def flag(self) -> str:
        """Return an expression that is null for all rows but those that count."""
        if not self.rows.guards and not self.rows.parent and not self._unread():
            return "*"
        return self._value()

    def join(self) -> Iterator[str]:
        """Yield the join that gives each row its match in the second relation, or null. No row is lost."""
        parent = self.rows.parent
        if parent is not None:
            query = _query(
                [f"distinct {parent.column} as sao_value{self.index}"],
                f"from (\n{parent.query}\n) sao_parent{self.index}",
            )
            yield f"left join (\n{query}\n) sao_match{self.index} on {self._guarded(parent.value)} = {self._match}"

    def columns(self) -> Iterator[str]:
        """Yield the columns that are grouped and counted."""
        for name, key in zip(self.key_names(), self.keys, strict=True):
            yield f"{self._guarded(key)} as {name}"
        yield f"{self._value()} as sao_r{self.index}"

    def key_names(self) -> list[str]:
        """Return the names of the columns that are grouped."""
        return [f"sao_k{self.index}_{number}" for number in range(len(self.keys))]

    def count(self, within: int, *, has_sets: bool) -> str:
        """Return the column of the test over the groups of one set."""
        condition = f"n{self.index} > {1 if self.keys else 0}"
        if has_sets:
            condition = f"g{within} = 0 and {condition}"
        return f"count(case when {condition} then 1 end) as c{self.index}"

    def _value(self) -> str:
        conditions = self.guards if self.rows.parent is None else [*self.guards, f"{self._match} is null"]
        unread = " or ".join(f"({text_of(expression)}) is null" for expression in self._unread())
        return _nested(conditions, f"case when {unread} then 1 else 1 end" if unread else "1")

    @property
    def _match(self) -> str:
        return f"sao_match{self.index}.sao_value{self.index}"

    def _guarded(self, expression: Pieces) -> str:
        """Return an expression that is null where the test does not evaluate it; names cannot fail."""
        text = text_of(expression)
        return text if all(piece.is_name for piece in expression) else _nested(self.guards, text)

    def _unread(self) -> list[Pieces]:
        """Return the expressions that the database would not see otherwise, and in which it may find a mistake."""
        parent = self.rows.parent
        read = [*self.rows.guards, *self.keys, *([parent.value] if parent else [])]
        return [
            pieces
            for pieces in self.rows.unread
            if any(piece.is_name for piece in pieces) and not any(contains(other, pieces) for other in read)
        ]


def _nested(conditions: Sequence[str], value: str) -> str:
    for condition in reversed(conditions):
        value = f"case when {condition} then {value} end"
    return value


def _query(columns: Sequence[str], *rest: str) -> str:
    return "\n".join(["select", ",\n".join(f"  {column}" for column in columns), *rest])
