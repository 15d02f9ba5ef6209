"""Random predicates over the columns in reach, with queries inside."""

from __future__ import annotations

from tests.sql.proofs.hunting.choices import BIGINT, BOOLEAN, INT, NUMBERS, TEXT, TEXTS, Choices, Ref


class Predicates(Choices):
    """Writes predicates."""

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
        if ref.type in {INT, BIGINT}:
            options += [f"{ref.sql} = 1.0", f"{ref.sql} in (1.0, 2.0)"]
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
