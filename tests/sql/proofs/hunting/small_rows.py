"""Small random queries of one table, or of two with the same columns, each about a few rules."""

from __future__ import annotations

from tests.sql.proofs.hunting.choices import ANY_CASE, BIGINT, INT, TEXT, Made, Ref, may_hold_digits, refs_of
from tests.sql.proofs.hunting.selects import Selects
from tests.sql.proofs.hunting.set_operations import SetOperations


class SmallRows(Selects, SetOperations):
    """Writes queries of one table."""

    def plain(self) -> tuple[str, list[Ref]]:
        """Return a FROM of one table, and its columns."""
        table, columns = self.table()
        return f" from {table} t", refs_of("t", columns)

    def grouped(self) -> Made:
        return self.aggregated(*self.plain())

    def numbered(self) -> Made:
        return self.windowed(*self.plain())

    def collated(self) -> Made:
        """Return one row for each value of a column, where a window, or GROUP BY ALL, may not tell values apart as GROUP BY does."""
        collated = [
            (table, own, name)
            for table, own in self.tables.items()
            for name, type_ in own
            if type_ == ANY_CASE and (table, name) not in self.keys
        ]
        if not collated:
            return self.numbered()
        table, columns, name = self.pick(collated)
        if self.is_duckdb and self.chance(0.6):
            kept = [column for column in columns if column[0] == name or self.chance(0.3)]
            return Made(f"select {', '.join(column for column, _ in kept)} from {table} group by all", kept)
        window = f"row_number() over (partition by {name} order by {self.pick(columns)[0]})"
        return Made(f"select * from (select *, {window} as rn from {table}) t where rn = 1", [*columns, ("rn", BIGINT)])

    def starred_part(self) -> Made:
        text, refs = self.plain()
        made = self.starred(text, refs)
        if self.chance(0.4):
            return made
        sql, type_ = self.value(refs)
        made = Made(made.sql.replace(text, f", {sql} as zz{text}"), [*made.columns, ("zz", type_)])
        names = [f"p{number}" for number in range(self.pick([2, 3]))]
        return Made(f"select * from ({made.sql}) {self.alias()}({', '.join(names)})", [(name, INT) for name in names])

    def once(self) -> Made:
        """Return each row once, or one row for each value of some columns."""
        text, refs = self.plain()
        if self.chance(0.4):
            on = ", ".join(ref.sql for ref in self.random.sample(refs, min(self.pick([1, 2]), len(refs))))
            items, columns = [f"{ref.sql} as {ref.name}" for ref in refs], [(ref.name, ref.type) for ref in refs]
            return Made(f"select distinct on ({on}) {', '.join(items)}{text}", columns)
        items, columns = self.items(refs, len(refs))
        if self.chance(0.3):
            one = self.pick(refs)
            items = [f"case when {self.predicate(refs, 0)} then {self.literal(one.type)} end as {one.name}"]
            columns = [(one.name, one.type)]
        return Made(f"select distinct {', '.join(items)}{text}", columns)

    def computed(self) -> Made:
        """Return a table with expressions beside its columns, of which some are not there."""
        table, own = self.table()
        text, refs = f" from {table} t", refs_of("t", own)
        keys = [ref for ref in refs if (table, ref.name) in self.keys]
        numbers_in_texts = [ref for ref in keys if may_hold_digits(ref.name, ref.type)]
        items = [f"{ref.sql} as {ref.name}" for ref in refs if self.chance(0.5)]
        columns = [(ref.name, ref.type) for ref in refs]
        for number in range(self.pick([1, 2, 3])):
            chosen = self.pick([group for group in (numbers_in_texts, keys, refs, refs) if group])
            write = self.lossy if chosen is numbers_in_texts else self.pick([self.expression, self.lossy])
            sql, type_ = write(chosen, 0)
            items.append(f"{sql} as e{number}")
            columns.append((f"e{number}", type_))
        if self.is_duckdb and self.chance(0.1):
            items.append("unnest([1, 2]) as u")
            columns.append(("u", INT))
        where = f" where {self.predicate(refs, 0)}" if self.chance(0.3) else ""
        kept = [(name, type_) for name, type_ in columns if any(item.endswith(f" as {name}") for item in items)]
        return Made(f"select {', '.join(items)}{text}{where}", kept)

    def pinned(self) -> Made:
        """Return a query of a table in which one column has one value."""
        table, columns = self.pick([table for table in self.tables.items() if len(dict(table[1])) > 1])
        digits = [column for column in columns if may_hold_digits(*column)]
        keys = [column for column in columns if (table, column[0]) in self.keys]
        both = [column for column in digits if column in keys]
        pinned, type_ = self.pick(self.pick([group for group in (both, both, digits, keys, columns) if group]))
        others = [column for column in columns if column[0] != pinned]
        condition = self.pick(["is null", "is null", f"= {self.literal(type_)}", "= 1"])
        if (pinned, type_) in digits and self.chance(0.5):
            condition = "= 1"
        return Made(f"select {', '.join(name for name, _ in others)} from {table} where {pinned} {condition}", others)

    def filtered(self) -> Made:
        """Return a table with a filter that may keep NULLs, although it compares."""
        table, columns = self.table()
        refs = refs_of("t", columns)
        one, twin = self.pick(refs), self.pick(refs)
        other, others = self.pick([*self.tables.items(), *self.queries.items()])
        alike = [name for name, type_ in others if type_ == one.type]
        listed = self.pick(alike if alike and self.chance(0.8) else [name for name, _ in others])
        number = self.pick([ref for ref in refs if ref.type in {INT, BIGINT}] or [one])
        test = self.predicate(refs_of("q", others), -1)
        same = self.same_shape([(listed, one.type)])
        rows = self.pick(
            [
                f"(select q.{listed} from {other} q where {test})",
                f"(select q.{listed} from {other} q where q.{listed} <> q.{listed})",
                f"(select {self.expression(refs_of('q', others), 0)[0]} from {other} q)",
                f"(select {listed} from {other} union all {same.sql if same else f'select {listed} from {other}'})",
            ]
        )
        literal, twins = self.literal(one.type), self.literal(twin.type)
        condition = self.pick(
            [
                f"{one.sql} not in {rows}",
                f"not ({one.sql} in {rows})",
                *[f"{one.sql} <> all {rows}"] * 2,
                *[f"not ({one.sql} = any {rows})"] * 2,
                f"{one.sql} in {rows}",
                f"{one.sql} in {rows}",
                f"{one.sql} = {self.pick(['1.0', chr(39) + '1' + chr(39)]) if one.type in {INT, BIGINT} else literal}",
                f"not ({one.sql} is not null)",
                f"not ({one.sql} = {literal} and {twin.sql} = {twins})",
                f"({one.sql} is null) = ({twin.sql} is null)",
                f"({one.sql} = {literal}) is distinct from true",
                f"exists (select count(*) from {other} q where q.{listed} = {one.sql})",
                f"exists (select 1 from {other} q where q.{listed} = {one.sql} and {test})",
                *[f"exists (select 1 from {other} t where t.{listed} = t.{self.pick(others)[0]})"] * 2,
                f"{one.sql} <> {literal}",
                # Two literals of one value.
                *[f"{number.sql} in (0, 1) and {number.sql} in (0.0, {self.pick('12')})"] * 2,
                self.predicate(refs, 1),
                self.predicate(refs, 1),
            ]
        )
        return Made(f"select {', '.join(ref.sql for ref in refs)} from {table} t where {condition}", columns)

    def shadowed(self) -> Made:
        """Return a query of a common table expression that has the name of a table, or that reads itself."""
        name, columns = self.table()
        (source, others), word = self.table(), self.pick(["with", "with recursive"])
        alike = [[column for column in others if column[1] == type_] for _, type_ in others]
        shared = self.pick([*alike, self.random.sample(others, min(2, len(others)))])[:2]
        items = ", ".join(found for found, _ in shared)
        # A query that reads itself moves values from one column to another.
        turned = ", ".join(found for found, _ in shared[::-1])
        # UNION ends where no row is new.
        also = f" union select {turned} from {name}" if word != "with" or self.chance(0.3) else ""
        own = self.pick([found for found, _ in columns])
        alias = self.pick(["", "", f" t({own})"])
        shown = [(own, shared[0][1]), *shared[1:]] if alias else shared
        return Made(f"{word} {name} as (select {items} from {source}{also}) select * from {name}{alias}", shown)

    def combined(self) -> Made:
        """Return two tables, or two parts of one, under each other."""
        table, columns = self.table()
        keys = [column for column in columns if (table, column[0]) in self.keys]
        count = min(self.pick([1, 1, 2, 3]), len(columns))
        kept = [self.pick(keys)] if keys and self.chance(0.5) else self.random.sample(columns, count)
        first = Made(self._part(table, columns, kept), kept)
        odd = [(t, c) for t, own in self.tables.items() for c in own if {c[1], kept[0][1]} == {TEXT, ANY_CASE}]
        if odd and self.chance(0.4):
            other, column = self.pick(odd)
            halves = [
                Made(f"select {kept[0][0]} from {table}", kept[:1]),
                Made(f"select {column[0]} from {other}", [column]),
            ]
            return self.set_operation(*halves)
        if self.chance(0.1):
            other, others = self.table()
            return self.set_operation(first, Made(self._part(other, others, others), others))
        twin = self.same_shape(kept) if self.chance(0.7) else Made(self._part(table, columns, kept), kept)
        return self.set_operation(first, twin or Made(self._part(table, columns, kept), kept))

    def _part(self, table: str, columns, kept) -> str:
        refs = [Ref(name, name, type_) for name, type_ in columns]
        where = f" where {self.predicate(refs, 0)}" if self.chance(0.5) else ""
        return f"select {', '.join(name for name, _ in kept)} from {table}{where}"

    def tagged(self) -> Made:
        """Return rows of two tables, with a column that may tell them apart."""
        (one, columns), (other, others) = self.table(), self.table()
        pairs = [(name, twin, type_) for name, type_ in columns for twin, found in others if found == type_][:3]
        tags = self.pick([["'a'", "'b'"], ["'a'", "'A'"], ["1", "2"], ["'a'", "'a'"], ["'1'", "2"], ["null", "'a'"]])
        type_ = INT if tags[0] == "1" else TEXT
        halves = [
            f"select {', '.join([f'{tag} as tag', *(f'{pair[number]} as c{n}' for n, pair in enumerate(pairs))])} from {table}"
            for number, (tag, table) in enumerate(zip(tags, (one, other), strict=True))
        ]
        return Made(" union all ".join(halves), [("tag", type_), *((f"c{n}", pair[2]) for n, pair in enumerate(pairs))])
