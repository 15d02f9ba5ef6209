"""Random FROM clauses: sources, joins, and their conditions."""

from __future__ import annotations

from tests.sql.proofs.hunting.choices import INT, NUMBERS, TEXT, TEXTS, refs_of
from tests.sql.proofs.hunting.expressions import Expressions


class Joins(Expressions):
    """Writes FROM clauses. `query` is the grammar's."""

    def source(self, depth: int):
        """Return the SQL of a source without its alias, and its columns."""
        if depth > 0 and self.chance(0.5):
            made = self.query(depth - 1)
            return f"({made.sql})", made.columns
        if self.queries and self.chance(0.6):
            name = self.pick(list(self.queries))
            return name, self.queries[name]
        return self.table()

    def named(self, depth: int):
        sql, columns = self.source(depth)
        alias = self.alias()
        if self.chance(0.04):
            new = [(f"p{number}", type_) for number, (_, type_) in enumerate(columns)][: self.pick([1, 2, 9])]
            names = ", ".join(name for name, _ in new)
            return f"{sql} {alias}({names})", refs_of(alias, [*new, *columns[len(new) :]])
        return f"{sql} {alias}", refs_of(alias, columns)

    def from_clause(self, depth: int):
        """Return FROM, the columns in reach, a predicate for WHERE, and names that are not ambiguous."""
        sql, refs = self.named(depth)
        where = ""
        for _ in range(self.pick([0, 0, 0, 1, 1, 1, 2])):
            joined, others = self.named(max(depth - 1, 0))
            kind = self.pick(["join", "inner join", "left join", "left join", "left join", "right join", "full join"])
            shared = [ref.name for ref in refs if ref.name in {other.name for other in others}]
            style = self.random.random()
            if style < 0.06:
                sql += f" cross join {joined}"
            elif style < 0.12:
                condition = self.equality(refs, others)
                sql, where = f"{sql}, {joined}", f"{where} and {condition}" if where else condition
            elif style < 0.22 and shared:
                sql += f" {kind} {joined} using ({self.pick(shared)})"
            elif style < 0.3 and self.is_duckdb:
                sql += f" {self.pick(['semi', 'anti'])} join {joined} on {self.condition(refs, others)}"
                continue
            elif style < 0.34:
                one = self.pick(refs)
                alias = self.alias()
                lateral = "" if self.is_duckdb and self.chance(0.5) else "lateral "
                body = self.pick(
                    [f"select {one.sql} as y", f"select o.*, {one.sql} as y from {self.pick(list(self.tables))} o"]
                )
                sql += f" cross join {lateral}({body} limit 2) {alias}"
                others = refs_of(alias, [("y", one.type)])
            else:
                sql += f" {kind} {joined} on {self.condition(refs, others)}"
            refs = refs + others
        return sql, refs, where

    def equality(self, refs, others) -> str:
        pairs = [(one, other) for one in refs for other in others]
        alike = [(one, other) for one, other in pairs if one.type == other.type]
        named = [(one, other) for one, other in pairs if one.name == other.name]
        close = [
            (one, other) for one, other in pairs if {one.type, other.type} <= self.pick([NUMBERS, TEXTS, {INT, TEXT}])
        ]
        options = [group for group in (alike, alike, named, named, close) if group]
        one, other = self.pick(self.pick(options) if options else pairs)
        return self.pick([f"{one.sql} = {other.sql}", f"{other.sql} = {one.sql}"])

    def condition(self, refs, others) -> str:
        plain = self.equality(refs, others)
        style = self.random.random()
        if style < 0.6:
            return plain
        if style < 0.75:
            return f"{plain} and {self.pick([self.equality(refs, others), self.predicate(refs + others, 0), self.predicate(others, 0)])}"
        if style < 0.83:
            return f"{plain} or {self.pick([self.equality(refs, others), self.predicate(others, 0)])}"
        if style < 0.88:
            return plain.replace("=", self.pick(["is not distinct from", "<=", "<>"]))
        if style < 0.92:
            one, other = plain.split(" = ")
            return f"coalesce({one}, null) = coalesce({other}, null)" if self.chance(0.5) else f"{one} = {other} + 0"
        return self.predicate(refs + others, 1)
