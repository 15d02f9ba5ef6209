"""Small random tables with properties that hold of them, on a real database.

A world has one schema and several fillings of it. A property is known if it holds in each filling, and a proof must be right in each.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import combinations
from random import Random

from dagster_sao.sql.proofs import AcceptedValues, Known, NotNull, QueryProofs, Relation, Relationship, Unique
from dagster_sao.sql.proofs.column_types import family_of
from dbt_dagster_sao.data_tests.columns import comparable_types
from tests.sql.proofs.hunting.choices import (
    ANY_CASE,
    BIGINT,
    BOOLEAN,
    DATE,
    DECIMAL,
    DOUBLE,
    INT,
    NAMES,
    TEXT,
    TYPES,
    may_hold_digits,
)

FILLINGS = 2
VALUES = {
    INT: ["0", "1", "2", "3", "4", "5", "6", "7"],
    BIGINT: ["0", "1", "2", "3", "4", "5", "6", "7"],
    TEXT: ["'a'", "'b'", "'A'", "'1'", "'01'", "''", "'2'", "'c'"],
    # Each is another text than the others, whatever the case.
    ANY_CASE: ["'a'", "'b'", "''", "'c'", "'d'", "'1'", "'01'", "'e'"],
    DECIMAL: ["0.00", "1.00", "1.50", "2.00", "3.00", "2.50", "-1.00", "7.25"],
    DOUBLE: ["0.0", "1.0", "1.5", "'nan'", "2.5", "-1.0", "3.0", "7.0"],
    DATE: [f"'2024-0{1 + day // 2}-{(day % 2) * 14 + 1:02}'" for day in range(8)],
    BOOLEAN: ["true", "false"],
}
# Texts that are different, and equal as numbers.
DIGITS = ["'1'", "'01'", "'2'", "'02'", "'3'", "'03'", "'4'", "'04'"]
FEW = 3


@dataclass(frozen=True)
class ColumnPlan:
    name: str
    type: str
    unique: bool
    not_null: bool
    parent: tuple[str, str] | None = None


@dataclass
class World:
    tables: dict[str, list[ColumnPlan]]
    fillings: list[dict[str, list[tuple[str, ...]]]]
    """Rows of literals by table, in each filling."""
    pairs: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Two columns that are unique together."""
    lax: set[str] = field(default_factory=set)
    """The tables in which this ignores NULLs."""
    relations: dict[str, Relation] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    """Tables that are made of the others, each with its query."""

    @property
    def parents(self) -> list[tuple[str, str, str, str]]:
        """The columns whose values are those of another table."""
        return [(table, c.name, *c.parent) for table, columns in self.tables.items() for c in columns if c.parent]

    @property
    def keys(self) -> set[tuple[str, str]]:
        """The columns without a value that occurs twice."""
        return {(table, c.name) for table, columns in self.tables.items() for c in columns if c.unique}


def random_world(random: Random) -> World:
    tables: dict[str, list[ColumnPlan]] = {}
    for table in ("a", "b", "c")[: random.choice([2, 3, 3])]:
        columns = []
        for name in random.sample(NAMES, random.choice([2, 3, 3, 4])):
            type_ = random.choice([INT, INT, TEXT] if name in {"id", "k"} else TYPES)
            parents = [(t, c.name) for t, planned in tables.items() for c in planned if c.type == type_]
            parent = random.choice(parents) if parents and random.random() < 0.55 else None
            is_unique = random.random() < (0.7 if name == "id" else 0.35) and type_ != BOOLEAN
            columns.append(ColumnPlan(name, type_, is_unique, random.random() < 0.4, parent))
        tables[table] = columns
    world = World(tables, [])
    for table, columns in tables.items():
        if random.random() < 0.5:
            world.pairs[table] = tuple(random.sample([column.name for column in columns], 2))
            world.lax |= {table} if random.random() < 0.4 else set()
    for _ in range(FILLINGS):
        world.fillings.append(_filling(random, world))
    return with_relations(world, random)


def _filling(random: Random, world: World) -> dict[str, list[tuple[str, ...]]]:
    rows: dict[str, list[tuple[str, ...]]] = {}
    for table, columns in world.tables.items():
        size = random.choice([0, 1, 3, 4, 5, 6, 7])
        made: list[tuple[str, ...]] = []
        for _ in range(size):
            row = tuple(
                _value(random, world, rows, column, [before[i] for before in made]) for i, column in enumerate(columns)
            )
            if all(cell is not None for cell in row) and _fits(world, table, row, made):
                made.append(row)
        rows[table] = made
    return rows


def _value(random, world, rows, column: ColumnPlan, taken: list[str]):
    all_options = DIGITS if may_hold_digits(column.name, column.type) else VALUES[column.type]
    options = all_options[: random.choice([4, len(all_options)] if column.unique else [2, FEW, FEW, 6])]
    if column.parent:
        table, name = column.parent
        index = [planned.name for planned in world.tables[table]].index(name)
        options = [row[index] for row in rows[table] if row[index] != "null"]
    if not column.not_null and (random.random() < 0.3 or not options):
        return "null"
    if column.type == ANY_CASE:
        options, taken = [*options, "'A'", "'A'"] if not column.parent else options, [value.lower() for value in taken]
    options = [value for value in options if not column.unique or _plain(column, value) not in taken]
    return random.choice(options) if options else None if column.not_null else "null"


def _plain(column: ColumnPlan, value: str) -> str:
    return value.lower() if column.type == ANY_CASE else value


def _fits(world: World, table: str, row, made) -> bool:
    pair = world.pairs.get(table)
    if pair is None:
        return True
    indexes = [index for index, column in enumerate(world.tables[table]) if column.name in pair]
    if table in world.lax and any(row[index] == "null" for index in indexes):
        return True
    return all(any(row[index].lower() != other[index].lower() for index in indexes) for other in made)


def with_relations(world: World, random: Random) -> World:
    """Let the prover know a random part of what holds."""
    relations = {}
    for table, columns in world.tables.items():
        known = []
        for column in columns:
            options = []
            if column.unique:
                options.append(Unique((column.name,)))
            if column.not_null:
                options.append(NotNull(column.name))
            if column.unique and column.not_null:
                options.append(Unique((column.name,), nulls_equal=True))
            if column.parent:
                options.append(Relationship(column.name, *column.parent))
            found = {row[columns.index(column)] for filling in world.fillings for row in filling[table]} - {"null"}
            if column.type in {TEXT, ANY_CASE}:
                options.append(
                    AcceptedValues(column.name, frozenset(value.strip("'") for value in found) | {"a"}, quoted=True)
                )
            elif column.type in {INT, BIGINT}:
                options.append(AcceptedValues(column.name, frozenset(found) | {"0"}, quoted=False))
            known += [option for option in options if random.random() < 0.8]
        if table in world.pairs:
            known.append(Unique(world.pairs[table], nulls_equal=table not in world.lax))
        relations[table] = Relation(
            table,
            tuple(column.name for column in columns) if random.random() < 0.85 else None,
            tuple(Known(option, f"{table}.{number}", f"passed in {table}") for number, option in enumerate(known)),
            {column.name: column.type for column in columns} if random.random() < 0.85 else None,
        )
    return replace(world, relations=relations)


def fill(database, world: World) -> None:
    """Make the tables of a world."""
    types_of = {ANY_CASE: database.collation}
    for number, filling in enumerate(world.fillings):
        database.run(f"drop schema if exists w{number} cascade")
        database.run(f"create schema w{number}")
        for table, columns in world.tables.items():
            types = ", ".join(f"{column.name} {types_of.get(column.type, column.type)}" for column in columns)
            database.run(f"create table w{number}.{table} ({types})")
            if filling[table]:
                rows = ", ".join(f"({', '.join(row)})" for row in filling[table])
                database.run(f"insert into w{number}.{table} values {rows}")
        for table, sql in world.models.items():
            database.enter(number)
            database.run(f"create table {table} as {sql}")


def with_model(database, world: World, sql: str, random: Random) -> World:
    """Return a filled world with one more table, of which nothing but its query is known. Raises QueryError."""
    found = replace(world, models={"m": sql})
    fill(database, found)
    columns = {name: type_.lower() for name, type_ in database.types("m").items()}
    proofs = QueryProofs(sql, database.dialect, world.relations)
    names = tuple(columns) if random.random() < 0.8 else None
    types = {name: type_ for name, type_ in columns.items() if family_of(type_) not in {TEXT, None}}
    relation = Relation("m", names, (), types if random.random() < 0.8 else None, proofs.rows)
    if (certain := proofs.columns) is not None and random.random() < 0.5:
        own = comparable_types(certain, database.dialect, lambda query: database.run(query)[0])
        relation = replace(relation, columns=tuple(own), types={name: family for name, family in own.items() if family})
    return replace(found, relations={**world.relations, "m": relation})


def tests_of(columns: list[str], world: World):
    """Return the properties that a table with these columns could have."""
    found = []
    for column in columns:
        found += [Unique((column,)), NotNull(column), Unique((column,), nulls_equal=True)]
        for values in (["a", "b"], ["a", "b", "c"], ["1", "2"], [text.strip("'") for text in VALUES[TEXT]]):
            found.append(AcceptedValues(column, frozenset(values), quoted=True))
        for values in (["1"], ["0", "1", "2"], VALUES[INT], ["true"], ["true", "false"]):
            found.append(AcceptedValues(column, frozenset(values), quoted=False))
        found += [Relationship(column, table, planned.name) for table, plan in world.tables.items() for planned in plan]
        # Exactly what the data has, which is what a wrong proof would claim.
        found += [
            known.property
            for relation in world.relations.values()
            for known in relation.known
            if isinstance(known.property, AcceptedValues) and known.property.column == column
        ]
    for size in (2, 3):
        found += [Unique(pair, nulls_equal=True) for pair in combinations(columns[:5], size)]
    found += [Unique(pair) for pair in combinations(columns[:5], 2)]
    return list(dict.fromkeys(found))


def failures(claim) -> str:
    """Return dbt's query of the failures of a property of the table `made`."""
    if isinstance(claim, Unique):
        names = ", ".join(f'"{column}"' for column in claim.columns)
        where = (
            "" if claim.nulls_equal else " where " + " and ".join(f'"{column}" is not null' for column in claim.columns)
        )
        return f"select count(*) as n from (select {names} from made{where} group by {names} having count(*) > 1) x"
    if isinstance(claim, NotNull):
        return f'select count(*) as n from made where "{claim.column}" is null'
    if isinstance(claim, AcceptedValues):
        values = ", ".join(f"'{value}'" if claim.quoted else value for value in sorted(claim.values))
        return f'select count(*) as n from (select "{claim.column}" as f, count(*) from made group by 1) x where f not in ({values})'
    return (
        f'select count(*) as n from (select "{claim.column}" as f from made where "{claim.column}" is not null) child '
        f"left join (select {claim.parent_column} as t from {claim.parent}) parent on child.f = parent.t where parent.t is null"
    )
