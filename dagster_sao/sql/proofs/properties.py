"""The values of proofs: properties of rows, where they hold, and the answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dagster_sao.sql.proofs.facts import Rows


@dataclass(frozen=True, slots=True)
class Unique:
    """No two rows agree on the columns.

    `nulls_equal=False` ignores rows with a NULL in one of them, as dbt's `unique` does. `nulls_equal=True` takes two NULLs for
    equal, as GROUP BY and `dbt_utils.unique_combination_of_columns` do.
    """

    columns: tuple[str, ...]
    nulls_equal: bool = False

    def __str__(self) -> str:
        name = "unique_combination_of_columns" if self.nulls_equal else "unique"
        return f"{name}({', '.join(self.columns)})"


@dataclass(frozen=True, slots=True)
class NotNull:
    """No row has a NULL in the column."""

    column: str

    def __str__(self) -> str:
        return f"not_null({self.column})"


@dataclass(frozen=True, slots=True)
class AcceptedValues:
    """Each value of the column, NULL aside, equals one of these literals, written as dbt's macro writes them."""

    column: str
    values: frozenset[str]
    quoted: bool

    def __str__(self) -> str:
        return f"accepted_values({self.column})"


@dataclass(frozen=True, slots=True)
class Relationship:
    """Each value of the column, NULL aside, is a value of the parent's column. `parent` is a relation's key."""

    column: str
    parent: str
    parent_column: str

    def __str__(self) -> str:
        return f"relationships({self.column})"


Property = Unique | NotNull | AcceptedValues | Relationship


@dataclass(frozen=True, slots=True)
class Known:
    """A property that holds of a relation's rows."""

    property: Property
    source: str
    """The id of the test that shows it; empty where the database enforces it."""
    label: str
    """What a reader sees, such as `passed 12:03, run 4f2a`."""


@dataclass(frozen=True, slots=True)
class Relation:
    """A relation that a query reads."""

    name: str
    """As proofs show it, such as `stg_orders`."""
    columns: tuple[str, ...] | None = None
    """All of its columns in order, spelled as the catalog spells them, where known."""
    known: tuple[Known, ...] = ()
    types: Mapping[str, str] | None = None
    """The type of each column as the catalog spells both, where known.

    A text type without a collation promises that equal texts are the same. So any other collation, even the database's default,
    must be part of the type; otherwise leave out the column's type.
    """
    rows: Rows | None = None
    """What its own query proves of its rows, if it holds exactly the rows that this query gave."""


@dataclass(frozen=True, slots=True)
class Proof:
    """A property holds."""

    text: str
    premises: frozenset[str]
    """The `source` of every `Known` that the proof uses."""


@dataclass(frozen=True, slots=True)
class NotProvable:
    """The property cannot be proven."""

    reason: str
