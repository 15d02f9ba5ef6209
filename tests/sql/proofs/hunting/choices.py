"""What all parts of the grammar share: types, literals, columns in reach, and chance."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

INT, BIGINT, TEXT, DECIMAL, DOUBLE, DATE, BOOLEAN = (
    "int",
    "bigint",
    "text",
    "decimal(10,2)",
    "double precision",
    "date",
    "boolean",
)
ANY_CASE = "text with a collation"
TEXTS = {TEXT, ANY_CASE}
NUMBERS = {INT, BIGINT, DECIMAL, DOUBLE}
TYPES = [INT, INT, INT, BIGINT, TEXT, TEXT, ANY_CASE, ANY_CASE, DECIMAL, DOUBLE, DATE, BOOLEAN]
LITERALS = {
    INT: ["0", "1", "2", "3"],
    BIGINT: ["0", "1", "2"],
    TEXT: ["'a'", "'A'", "'b'", "'1'", "'01'", "''"],
    ANY_CASE: ["'a'", "'A'", "'b'", "''"],
    DECIMAL: ["0.0", "1.00", "1.50"],
    DOUBLE: ["0.0", "1.5"],
    DATE: ["date '2024-01-01'", "date '2024-01-15'", "date '2024-02-01'"],
    BOOLEAN: ["true", "false"],
}
NAMES = ["id", "k", "v", "s", "x", "y", "n"]


def may_hold_digits(name: str, type_: str) -> bool:
    """Return whether a column has texts that are digits, of which some are equal as numbers."""
    return type_ == TEXT and name in {"id", "k"}


@dataclass(frozen=True)
class Ref:
    """A column in reach: how it is written, its name, and its type where that is known."""

    sql: str
    name: str
    type: str


@dataclass
class Made:
    """A query and its columns."""

    sql: str
    columns: list[tuple[str, str]]


@dataclass
class Choices:
    """Makes choices. `tables` maps a table's SQL to its columns."""

    random: Random
    tables: dict[str, list[tuple[str, str]]]
    is_duckdb: bool
    parents: list[tuple[str, str, str, str]] = field(default_factory=list)
    """Tables and columns whose values are those of another table's column."""
    keys: set[tuple[str, str]] = field(default_factory=set)
    """Tables and columns without a value that occurs twice."""
    queries: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    aliases: int = 0

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def pick(self, items):
        return self.random.choice(items)

    def literal(self, type_: str) -> str:
        return self.pick(LITERALS.get(type_, ["1"]))

    def table(self) -> tuple[str, list[tuple[str, str]]]:
        """Return a table and its columns."""
        return self.pick(list(self.tables.items()))

    def alias(self) -> str:
        """Return a name that no source of the query has."""
        self.aliases += 1
        return f"t{self.aliases}"


def refs_of(alias: str, columns) -> list[Ref]:
    """Return the columns of a source under its alias."""
    return [Ref(f"{alias}.{name}", name, type_) for name, type_ in columns]
