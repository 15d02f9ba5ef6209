"""Small random joins, each about a few rules: which rows match, and what is known of those that do not."""

from __future__ import annotations

from tests.sql.proofs.hunting.choices import INT, TEXT, Made, Ref, refs_of
from tests.sql.proofs.hunting.joins import Joins
from tests.sql.proofs.hunting.small_rows import SmallRows


class SmallJoins(Joins, SmallRows):
    """Writes joins of two tables."""

    def both(self, ones, others):
        """Return a select list of all columns of `l` and `r`, and its columns."""
        columns = [(f"l.{name}", f"l_{name}", type_) for name, type_ in ones]
        columns += [(f"r.{name}", f"r_{name}", type_) for name, type_ in others]
        self.random.shuffle(columns)
        return ", ".join(f"{sql} as {name}" for sql, name, _ in columns), [(name, t) for _, name, t in columns]

    def plain_join(self) -> Made:
        """Return two tables joined by two columns, often of one type and a key, or of one name or of two types."""
        (left, ones), (right, others) = self.table_or_query(), self.table_or_query()
        pairs = [(one, other) for one in ones for other in others]
        mixed = [(one, other) for one, other in pairs if {INT} < {one[1], other[1]} and digits(one) and digits(other)]
        named = [(one, other) for one, other in pairs if one[0] == other[0]]
        keys = [(one, other) for one, other in pairs if one[1] == other[1] and (right, other[0]) in self.keys]
        both = [(one, other) for one, other in keys if (left, one[0]) in self.keys]
        one, other = self.pick(
            self.pick([group for group in (mixed, mixed, named, keys, keys, both) if group] or [pairs])
        )
        kinds = ["join", "left join", "right join", "full join"]
        if self.is_duckdb:
            kinds += ["semi join", "anti join"]
        # Equal values of two types are all that an inner join is asked about here.
        kind = "join" if one[1] != other[1] and self.chance(0.5) else self.pick(kinds)
        on = f"l.{one[0]} = r.{other[0]}"
        if self.chance(0.3):
            where = self.predicate([*refs_of("l", ones), *refs_of("r", others)], 0)
            on = self.pick([f"{on} and {where}", f"{on} or {where}", where])
        if self.chance(0.1):
            one, other = self.pick(pairs)
            on += f" and l.{one[0]} = r.{other[0]}"
        items, columns = self.both(ones, [] if kind in {"semi join", "anti join"} else others)
        return Made(f"select {items} from {left} l {kind} {right} r on {on}", columns)

    def table_or_query(self):
        """Return a table, or a small query of one, and its columns."""
        if self.chance(0.8):
            return self.table()
        made = self.pick([self.combined, self.computed, self.tagged])()
        return f"({made.sql})", made.columns

    def odd_join(self) -> Made:
        """Return a join that proofs do not know."""
        (left, ones), (right, others) = self.table(), self.table()
        items, columns = self.both(ones, others)
        kinds = ["natural join", "natural left join", "natural full join"]
        return Made(
            f"select {items} from {left} l {self.pick([*kinds, 'positional join'] if self.is_duckdb else kinds)} {right} r",
            columns,
        )

    def merged_join(self) -> Made:
        """Return two tables joined by USING, the merged column included."""
        pairs = [
            (left, right, column)
            for left, ones in self.tables.items()
            for right, others in self.tables.items()
            for column in ones
            if column in others and (left != right or self.chance(0.3))
        ]
        if not pairs:
            return self.plain_join()
        left, right, (name, type_) = self.pick(pairs)
        rest = [column for column in self.tables[left] if column[0] != name]
        items = ", ".join([name, *(f"l.{other} as l_{other}" for other, _ in rest)])
        kind = self.pick(["join", "left join", "right join", "full join", "full join"])
        sql = f"select {items} from {left} l {kind} {right} r using ({name})"
        return Made(sql, [(name, type_), *((f"l_{other}", found) for other, found in rest)])

    def lateral(self) -> Made:
        """Return a table beside rows of another one, each with a value of the first."""
        (left, ones), (right, others) = self.table(), self.table()
        keys = [column for column in ones if (left, column[0]) in self.keys and column[1] == INT]
        numbers = [name for name, type_ in others if type_ == INT]
        word = "" if self.is_duckdb and self.chance(0.5) else "lateral "
        if keys and numbers and self.chance(0.6):
            # One row for each row of the first table, and not one row in all.
            key, number = self.pick(keys)[0], self.pick(numbers)
            body = f"select min(r.{number}) as y from {right} r where r.{number} = l.{key}"
            items, columns = self.both(ones, [])
            return Made(f"select {items} from {left} l join {word}({body}) t on l.{key} = t.y", columns)
        one, other = self.pick(keys or ones), self.pick(others)
        body = self.pick(
            [
                f"select r.{other[0]} as w, cast(l.{one[0]} as int) as y from {right} r",
                f"select r.{other[0]} as w, cast(l.{one[0]} as int) as y from {right} r where r.{other[0]} is not null",
                f"select distinct l.{one[0]} as y from {right} r",
                f"select {one[0]} as y",
            ]
        )
        on = self.pick([f"l.{one[0]} = t.y", f"l.{one[0]} = t.y", "true"])
        columns = [("x", one[1]), ("w", other[1]), ("y", INT)] if " as w" in body else [("x", one[1]), ("y", one[1])]
        return Made(f"select l.{one[0]} as x, t.* from {left} l join {word}({body}) t on {on}", columns)

    def with_parent(self) -> Made:
        """Return a table with the columns of its parent, all of whose rows may be there or not."""
        if not self.parents:
            return self.plain_join()
        child, column, parent, other = self.pick(self.parents)
        source = self.pick([parent, f"(select * from {parent})", *(self.part_of(parent, other) for _ in range(4))])
        # Each row has a match only where the child's column has a value.
        some = f"(select * from {child} where {column} is not null)"
        left = self.pick([child, some, some])
        ones, others = self.tables[child], self.tables[parent]
        own = [found for found in ones if found[0] == column]
        twin = self.same_shape(own) if self.chance(0.2) else None
        if twin is not None:
            left, ones = f"(select {column} from {child} where {column} is not null union all {twin.sql})", own
        items, columns = self.both(ones, others)
        on = f"l.{column} = r.{other}"
        if self.chance(0.3):
            on += f" and r.{self.pick(others)[0]} {self.pick(['is not null', '<> ' + other, 'is null'])}"
        refs = [*refs_of("l", ones), *refs_of("r", others)]
        where = f" where {self.predicate(refs, 1)}" if self.chance(0.25) else ""
        return Made(f"select {items} from {left} l left join {source} r on {on}{where}", columns)

    def part_of(self, parent: str, column: str) -> str:
        """Return the rows of a parent, some of which are not there or have no value in a column."""
        own = self.tables[parent]
        test = self.predicate([Ref(name, name, type_) for name, type_ in own], 0)
        masked = self.pick([f"nullif({column}, 1)", f"case when {test} then {column} end"])
        items = ", ".join(f"{masked} as {name}" if name == column else name for name, _ in own)
        other, others = self.table()
        joined = ", ".join(f"p.{name}" for name, _ in own)
        return self.pick(
            [
                f"(select * from {parent} where {column} <> {self.pick(['0', '1'])})",
                f"(select * from {parent} where {test})",
                f"(select * from {parent} order by 1 limit 1)",
                f"(select {items} from {parent})",
                f"(select {items} from {parent})",
                f"(select {joined} from {parent} p join {other} o on p.{column} = o.{self.pick(others)[0]})",
                f"(select {joined} from {other} o left join {parent} p on p.{column} = o.{self.pick(others)[0]})",
            ]
        )


def digits(column: tuple[str, str]) -> bool:
    """Return whether all values of a column can be numbers."""
    name, type_ = column
    return type_ == INT or (type_ == TEXT and name in {"id", "k"})
