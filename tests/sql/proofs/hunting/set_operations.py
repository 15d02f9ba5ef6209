"""Random set operations of given queries."""

from __future__ import annotations

from tests.sql.proofs.hunting.choices import Made, Ref
from tests.sql.proofs.hunting.expressions import Expressions


class SetOperations(Expressions):
    """Writes set operations."""

    def set_operation(self, first: Made, second: Made) -> Made:
        count = min(len(first.columns), len(second.columns))
        if len(first.columns) != len(second.columns):
            if self.chance(0.5):
                first, second = self.first_columns(first, count), self.first_columns(second, count)
            else:
                second = self.same_shape(first.columns) or first
        word = self.pick(["union", "union all", "intersect", "except", "union all", "intersect all", "except all"])
        third = f" {self.pick(['union', 'union all', 'except', 'intersect'])} ({first.sql})" if self.chance(0.1) else ""
        return Made(f"({first.sql}) {word} ({second.sql}){third}", first.columns)

    def first_columns(self, made: Made, count: int) -> Made:
        names = [name for name, _ in made.columns[:count]]
        return Made(f"select {', '.join(names)} from ({made.sql}) {self.alias()}", made.columns[:count])

    def same_shape(self, columns) -> Made | None:
        """Return a part of a table, its columns of these types."""
        sources = [*self.tables.items(), *self.queries.items()]
        self.random.shuffle(sources)
        for table, own in sources:
            items = [self.pick([name for name, type_ in own if type_ == wanted] or [None]) for _, wanted in columns]
            if all(items):
                where = f" where {self.predicate([Ref(n, n, t) for n, t in own], 0)}" if self.chance(0.4) else ""
                return Made(f"select {', '.join(items)} from {table}{where}", columns)
        return None
