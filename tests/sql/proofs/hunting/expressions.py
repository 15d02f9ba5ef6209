"""Random expressions over the columns in reach."""

from __future__ import annotations

from tests.sql.proofs.hunting.choices import (
    BIGINT,
    BOOLEAN,
    DATE,
    DECIMAL,
    DOUBLE,
    INT,
    NUMBERS,
    TEXT,
    TEXTS,
    may_hold_digits,
)
from tests.sql.proofs.hunting.predicates import Predicates


class Expressions(Predicates):
    """Writes expressions."""

    def value(self, refs, depth: int = 1):
        """Return an expression and its type."""
        ref = self.pick(refs)
        return (ref.sql, ref.type) if self.chance(0.5) or depth < 0 else self.expression(refs, depth)

    def expression(self, refs, depth: int):
        """Return an expression that is no column, and its type."""
        ref = self.pick(refs)
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
            (f"case when {test} then {self.literal(type_)} end", type_),
            (f"case when {inner} = {self.literal(type_)} then {self.literal(type_)} else {inner} end", type_),
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

    def lossy(self, refs, depth: int):
        """Return an expression that makes one value of two, or none of one, and its type."""
        ref = self.pick([ref for ref in refs if ref.type in NUMBERS | TEXTS] or refs)
        if ref.type in TEXTS:
            casts = [f"try_cast({ref.sql} as int)"] * 3 if self.is_duckdb else []
            if may_hold_digits(ref.name, ref.type):
                return self.pick([*casts, f"cast({ref.sql} as int)"]), INT
            options = [(sql, INT) for sql in [*casts, f"cast({ref.sql} as int)", f"length({ref.sql})"]]
            options += [(f"lower({ref.sql})", ref.type), (f"nullif({ref.sql}, {self.literal(ref.type)})", ref.type)]
            return self.pick([*options, (f"nullif({ref.sql}, 'a')", ref.type)])
        if ref.type not in NUMBERS:
            return self.expression(refs, depth)
        return self.pick(
            [
                (f"cast({ref.sql} as int)", INT),
                (f"cast({ref.sql} as int)", INT),
                (f"2 / {ref.sql}", DOUBLE),
                (f"{ref.sql} % {self.literal(ref.type)}", ref.type),
                (f"{ref.sql} / 0", DOUBLE),
                (f"abs({ref.sql} - 2)", ref.type),
                (f"nullif({ref.sql}, 1)", ref.type),
                (f"coalesce({ref.sql}, {self.literal(ref.type)})", ref.type),
            ]
        )
