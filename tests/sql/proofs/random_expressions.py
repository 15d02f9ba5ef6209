"""Random expressions and predicates over the columns in reach."""

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
TYPES = [INT, INT, INT, BIGINT, TEXT, TEXT, ANY_CASE, DECIMAL, DOUBLE, DATE, BOOLEAN]
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


@dataclass(frozen=True)
class Ref:
    """A column in reach: how it is written, its name, and its type where that is known."""

    sql: str
    name: str
    type: str


@dataclass
class Expressions:
    """Writes expressions. `tables` maps a table's SQL to its columns."""

    random: Random
    tables: dict[str, list[tuple[str, str]]]
    is_duckdb: bool
    parents: list[tuple[str, str, str, str]] = field(default_factory=list)
    """Tables and columns whose values are those of another table's column."""
    queries: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    aliases: int = 0

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def pick(self, items):
        return self.random.choice(items)

    def literal(self, type_: str) -> str:
        return self.pick(LITERALS.get(type_, ["1"]))

    def value(self, refs, depth: int = 1):
        """Return an expression and its type."""
        ref = self.pick(refs)
        if self.chance(0.5) or depth < 0:
            return ref.sql, ref.type
        inner, type_ = self.value(refs, depth - 1) if self.chance(0.3) else (ref.sql, ref.type)
        other = next(
            (found.sql for found in self.random.sample(refs, len(refs)) if found.type == type_), self.literal(type_)
        )
        test = self.predicate(refs, 0)
        options = [
            (f"coalesce({inner}, {self.literal(type_)})", type_),
            (f"coalesce({inner}, {other})", type_),
            (f"nullif({inner}, {self.literal(type_)})", type_),
            (f"case when {test} then {inner} else {self.pick([self.literal(type_), other, 'null'])} end", type_),
            (f"case when {inner} is null then {self.literal(type_)} else {inner} end", type_),
            (f"case when {inner} is not null then {inner} end", type_),
            (
                f"case {inner} when {self.literal(type_)} then 'a' when {self.literal(type_)} then 'b' else 'c' end",
                TEXT,
            ),
            (f"case when {test} then 'a' else 'b' end", TEXT),
            (self.literal(type_), type_),
            (f"greatest({inner}, {other})", type_),
            (f"({test})", BOOLEAN),
            (f"(select max({self.pick(['x.c', '1'])}) from (select 1 as c where {self.predicate(refs, -1)}) x)", INT),
        ]
        if type_ in NUMBERS:
            options += [
                (f"{inner} + 1", type_), (f"-{inner}", type_), (f"2 - {inner}", type_), (f"{inner} * 2", type_), (f"abs({inner})", type_),
                (f"{inner} + {other}", type_), (f"{inner} % 2", type_), (f"{inner} / 2", DECIMAL), (f"round({inner} / 2.0)", DOUBLE),
                (f"cast({inner} as bigint)", BIGINT), (f"cast({inner} as text)", TEXT), (f"cast({inner} as decimal(10,1))", DECIMAL),
                (f"cast({inner} as int)", INT), (f"cast({inner} as int)", INT), (f"cast({inner} as double precision)", DOUBLE),
            ]  # fmt: skip
        if type_ in TEXTS:
            options += [
                (f"lower({inner})", type_), (f"upper({inner})", type_), (f"length({inner})", BIGINT), (f"{inner} || 'x'", type_),
                (f"concat({inner}, {other})", type_), (f"md5({inner})", type_), (f"substring({inner}, 1, 1)", type_),
                (f"trim({inner})", type_), (f"cast({inner} as varchar(1))", type_), (f"cast({inner} as text)", type_),
                (f"replace({inner}, 'a', 'b')", type_), (f"{inner} || {other}", type_),
            ]  # fmt: skip
            options += [(f"try_cast({inner} as int)", INT)] * 2 if self.is_duckdb else []
        if type_ == DATE:
            options += [
                (f"date_trunc('month', {inner})", "timestamp"),
                (f"cast({inner} as timestamp)", "timestamp"),
                (f"extract(month from {inner})", DOUBLE),
            ]
        return self.pick(options)

    def predicate(self, refs, depth: int) -> str:
        if depth > 0 and self.chance(0.5):
            word = self.pick(["and", "or", "or"])
            text = f"({self.predicate(refs, depth - 1)} {word} {self.predicate(refs, depth - 1)})"
            return f"not {text}" if self.chance(0.25) else text
        ref = self.pick(refs)
        literal = self.literal(ref.type)
        others = [found.sql for found in refs if found.type == ref.type]
        options = [
            f"{ref.sql} = {literal}", f"{literal} = {ref.sql}", f"{ref.sql} <> {literal}", f"{ref.sql} is not null", f"{ref.sql} is null",
            f"not ({ref.sql} is null)", f"{ref.sql} >= {literal}", f"{ref.sql} in ({literal}, {self.literal(ref.type)})",
            f"{ref.sql} not in ({literal}, {self.literal(ref.type)})", f"not ({ref.sql} = {literal})", f"{ref.sql} between {literal} and {self.literal(ref.type)}",
            f"{ref.sql} = {self.pick(others)}", f"{ref.sql} is not distinct from {literal}", f"coalesce({ref.sql}, {literal}) = {literal}",
            f"{ref.sql} is distinct from {self.pick(others)}",
        ]  # fmt: skip
        if ref.type == BOOLEAN:
            options += [ref.sql, f"not {ref.sql}", f"{ref.sql} is true", f"{ref.sql} is not true"]
        if ref.type in {INT, TEXT}:
            options += [f"{ref.sql} = '1'", f"{ref.sql} in ('1', '2')", f"{ref.sql} = any(array[{literal}])"]
        if ref.type in TEXTS:
            options += [f"{ref.sql} like 'a%'", f"lower({ref.sql}) = 'a'", f"{ref.sql} in ('a', 'b')"]
        if ref.type in NUMBERS:
            options += [f"{ref.sql} + 1 > {literal}", f"{ref.sql} > 0"]
        if depth >= 0 and self.chance(0.2):
            return self.subquery_predicate(refs)
        return self.pick(options)

    def subquery_predicate(self, refs) -> str:
        table, columns = self.pick([*self.tables.items(), *self.queries.items()])
        pairs = [(ref, name) for ref in refs for name, type_ in columns if ref.type == type_]
        ref, name = self.pick(pairs) if pairs else (self.pick(refs), columns[0][0])
        where = f" where {self.predicate([Ref(f'q.{n}', n, t) for n, t in columns], -1)}" if self.chance(0.4) else ""
        extra = f" and {self.predicate([Ref(f'q.{n}', n, t) for n, t in columns], -1)}" if self.chance(0.3) else ""
        return self.pick(
            [
                f"{ref.sql} in (select {name} from {table} q{where})",
                f"{ref.sql} in (select q.{name} from {table} q{where})",
                f"{ref.sql} not in (select q.{name} from {table} q{where})",
                f"exists (select 1 from {table} q where q.{name} = {ref.sql}{extra})",
                f"not exists (select 1 from {table} q where q.{name} = {ref.sql}{extra})",
                f"exists (select count(*) from {table} q where q.{name} = {ref.sql})",
            ]
        )
