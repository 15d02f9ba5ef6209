"""Write one query that reads a relation once and counts what several tests would find in it.

A condition stands in a CASE within the guards before it, so that it is evaluated only for rows that the test reads. Duplicates
are found by `count(distinct …)` where it is known to treat the same values as equal as the GROUP BY of the test does, and else
by that GROUP BY itself, which is slower beside other tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dagster_sao.sql.dialects import DistinctCounts
from dagster_sao.sql.merged_tests.pieces import Pieces, binds_tighter, contains, text_of, words_of
from dagster_sao.sql.merged_tests.shapes import Duplicates, Rows, Shape


def sql_of(shapes: Sequence[Shape], distinct: DistinctCounts | None) -> str:
    """Return the query for tests of one relation. Its column `c0` is 0 if the first test finds nothing, and so on.

    Without `distinct`, at most one of the tests may look for duplicates.
    """
    scopes = _scopes(shapes)
    tests = [_Test(index, shape, is_scoped=len(scopes) == 1) for index, shape in enumerate(shapes)]
    source = [f"from {text_of(rows_of(shapes[0]).relation)}", *(line for test in tests for line in test.join())]
    if scopes:
        source.append("where " + " or ".join(scopes if len(scopes) == 1 else [f"({scope})" for scope in scopes]))
    keys = [name for test in tests for name in test.key_names()]
    if distinct is not None or not keys:
        return _query([f"{test.count(distinct)} as c{test.index}" for test in tests], *source)
    rows = _query([column for test in tests for column in test.columns()], *source)
    groups = _query(
        [f"count(sao_r{test.index}) as sao_n{test.index}" for test in tests],
        f"from (\n{rows}\n) sao_rows",
        f"group by {', '.join(keys)}",
    )
    return _query([test.count_of_groups() for test in tests], f"from (\n{groups}\n) sao_groups")


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
    """Whether the query reads only rows in the test's scope."""

    @property
    def rows(self) -> Rows:
        return rows_of(self.shape)

    @property
    def keys(self) -> tuple[Pieces, ...]:
        """The expressions whose values must not occur twice."""
        return self.shape.keys if isinstance(self.shape, Duplicates) else ()

    @property
    def guards(self) -> list[Pieces]:
        """The conditions that the query itself does not have yet."""
        return list(self.rows.guards[1 if self.is_scoped else 0 :])

    def join(self) -> Iterator[str]:
        """Yield the join that gives each row its match in the second relation, or NULL. No row is lost."""
        parent = self.rows.parent
        if parent is not None:
            query = _query(
                [f"distinct {parent.column} as sao_value{self.index}"],
                f"from (\n{parent.query}\n) sao_parent{self.index}",
            )
            value = _guarded(self.guards, parent.value)
            operand = value if binds_tighter(parent.value) else f"({value})"
            yield f"left join (\n{query}\n) sao_match{self.index} on {operand} = {self._match}"

    def count(self, distinct: DistinctCounts | None) -> str:
        """Return an aggregate over the rows that is 0 if the test finds nothing."""
        if distinct is None or not self.keys:
            return self._count_of_rows()
        if len(self.keys) > 1:
            row = f"row({', '.join(map(text_of, self.keys))})"
            found = f"{self._count_of_rows()} - count(distinct {_nested(self.guards, row)})"
        else:
            found = self._repeated(self.keys[0])
        alarm = " or ".join(_is_equal(key, pair) for key in self.keys for pair in distinct.pairs)
        return f"{found} + count(case when {alarm} then 1 end)" if alarm else found

    def columns(self) -> Iterator[str]:
        """Yield the columns that are grouped and counted."""
        for name, key in zip(self.key_names(), self.keys, strict=True):
            yield f"{_guarded(self.guards, key)} as {name}"
        yield f"{self._flag()} as sao_r{self.index}"

    def key_names(self) -> list[str]:
        """Return the names of the columns that are grouped."""
        return [f"sao_k{number}" for number in range(len(self.keys))]

    def count_of_groups(self) -> str:
        """Return the column of the test over the groups."""
        return f"count(case when sao_n{self.index} > {1 if self.keys else 0} then 1 end) as c{self.index}"

    def _repeated(self, key: Pieces) -> str:
        """Return how many rows repeat the value of an expression."""
        # Behind an operator, `is not null` may be about its last operand alone.
        not_null = [*words_of(key), "is", "not", "null"] if binds_tighter(key) else []
        guards = [guard for guard in self.guards if words_of(guard) != not_null]
        value = _nested(guards, text_of(key))
        if len(guards) < len(self.guards):
            return f"count({value}) - count(distinct {value})"
        rows = self._count_of_rows()
        # All nulls are one value.
        return f"{rows} - count(distinct {value}) - case when {rows} > count({value}) then 1 else 0 end"

    def _count_of_rows(self) -> str:
        is_each = not self.guards and not self.rows.parent and not self._unread()
        return "count(*)" if is_each else f"count({self._flag()})"

    def _flag(self) -> str:
        """Return an expression that is NULL except for the rows that count."""
        unread = " or ".join(f"({text_of(expression)}) is null" for expression in self._unread())
        value = f"case when {unread} then 1 else 1 end" if unread else "1"
        return _nested(
            self.guards, value if self.rows.parent is None else f"case when {self._match} is null then {value} end"
        )

    @property
    def _match(self) -> str:
        return f"sao_match{self.index}.sao_value{self.index}"

    def _unread(self) -> list[Pieces]:
        """Return the expressions that the merged query would leave out, though the database may find a mistake in them."""
        parent = self.rows.parent
        read = [*self.rows.guards, *self.keys, *([parent.value] if parent else [])]
        return [
            pieces
            for pieces in self.rows.unread
            if any(piece.is_name for piece in pieces) and not any(contains(other, pieces) for other in read)
        ]


def _guarded(guards: Sequence[Pieces], expression: Pieces) -> str:
    """Return an expression that is evaluated only for the rows of a test. A name cannot fail."""
    return text_of(expression) if all(piece.is_name for piece in expression) else _nested(guards, text_of(expression))


def _nested(guards: Sequence[Pieces], value: str) -> str:
    for guard in reversed(guards):
        value = f"case when {text_of(guard)} then {value} end"
    return value


def _is_equal(key: Pieces, pair: tuple[str, str]) -> str:
    """Return the condition that two strings are equal under the collation of an expression, whose value is not used."""
    one, other = (f"concat(case when false then {text_of(key)} end, '{text}')" for text in pair)
    return f"{one} = {other}"


def _query(columns: Sequence[str], *rest: str) -> str:
    return "\n".join(["select", ",\n".join(f"  {column}" for column in columns), *rest])
