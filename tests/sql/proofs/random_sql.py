"""Random queries over given tables: the grammar that proofs know, and beyond."""

from __future__ import annotations

from dataclasses import dataclass

from tests.sql.proofs.random_expressions import (
    BIGINT,
    DECIMAL,
    DOUBLE,
    INT,
    NAMES,
    NUMBERS,
    TEXT,
    TEXTS,
    Expressions,
    Ref,
)


@dataclass
class Made:
    """A query and its columns."""

    sql: str
    columns: list[tuple[str, str]]


class Grammar(Expressions):
    """Writes queries."""

    def model(self) -> str:
        """Return a whole query, with common table expressions."""
        self.queries = {}
        parts = []
        for number in range(self.pick([0, 0, 1, 1, 2, 3])):
            made = self.query(self.pick([0, 0, 1]))
            name = f"c{number}"
            parts.append(f"{name} as ({made.sql})")
            self.queries[name] = made.columns
        clause = f"with {', '.join(parts)} " if parts else ""
        return clause + self.query(self.pick([0, 1, 1, 2])).sql

    def query(self, depth: int) -> Made:
        if self.chance(0.13):
            return self.set_operation(depth)
        return self.select(depth)

    def tagged(self) -> Made:
        """Return rows of two tables, with a column that may tell them apart."""
        (one, columns), (other, others) = self.pick(list(self.tables.items())), self.pick(list(self.tables.items()))
        pairs = [(name, twin, type_) for name, type_ in columns for twin, found in others if found == type_][:3]
        tags = self.pick([["'a'", "'b'"], ["'a'", "'A'"], ["1", "2"], ["'a'", "'a'"], ["'1'", "2"], ["null", "'a'"]])
        halves = [
            f"select {', '.join([f'{tag} as tag', *(f'{pair[number]} as c{n}' for n, pair in enumerate(pairs))])} from {table}"
            for number, (tag, table) in enumerate(zip(tags, (one, other), strict=True))
        ]
        return Made(" union all ".join(halves), [("tag", TEXT), *((f"c{n}", pair[2]) for n, pair in enumerate(pairs))])

    def with_parent(self) -> Made:
        """Return a table with the columns of its parent, all of whose rows may be there or not."""
        child, column, parent, other = self.pick(self.parents)
        source = self.pick(
            [
                parent,
                parent,
                f"(select * from {parent})",
                f"(select * from {parent} where {other} <> {self.pick(['0', '1'])})",
            ]
        )
        columns = [(f"l.{name}", f"l_{name}", type_) for name, type_ in self.tables[child]]
        columns += [(f"r.{name}", f"r_{name}", type_) for name, type_ in self.tables[parent]]
        on = f"l.{column} = r.{other}" + (
            f" and r.{self.pick(self.tables[parent])[0]} is not null" if self.chance(0.2) else ""
        )
        where = (
            f" where {self.predicate([Ref(sql, sql, type_) for sql, _, type_ in columns], 1)}"
            if self.chance(0.3)
            else ""
        )
        items = ", ".join(f"{sql} as {name}" for sql, name, _ in columns)
        sql = f"select {items} from {child} l left join {source} r on {on}{where}"
        return Made(sql, [(name, type_) for _, name, type_ in columns])

    def set_operation(self, depth: int) -> Made:
        if self.chance(0.3):
            return self.tagged()
        first, second = self.select(depth, narrow=True), self.select(depth, narrow=True)
        if len(first.columns) != len(second.columns) or self.chance(0.3):
            second = first if self.chance(0.3) else self.same_shape(first.columns) or first
        word = self.pick(["union", "union all", "intersect", "except", "union all", "intersect all", "except all"])
        third = f" {self.pick(['union', 'union all', 'except', 'intersect'])} ({first.sql})" if self.chance(0.1) else ""
        return Made(f"({first.sql}) {word} ({second.sql}){third}", first.columns)

    def same_shape(self, columns) -> Made | None:
        sources = [*self.tables.items(), *self.queries.items()]
        self.random.shuffle(sources)
        for table, own in sources:
            items = [next((name for name, type_ in own if type_ == wanted), None) for _, wanted in columns]
            if all(items):
                where = f" where {self.predicate([Ref(n, n, t) for n, t in own], 0)}" if self.chance(0.4) else ""
                return Made(f"select {', '.join(items)} from {table}{where}", columns)
        return None

    # FROM

    def source(self, depth: int):
        """Return the SQL of a source without its alias, and its columns."""
        if depth > 0 and self.chance(0.5):
            made = self.query(depth - 1)
            return f"({made.sql})", made.columns
        if self.queries and self.chance(0.6):
            name = self.pick(list(self.queries))
            return name, self.queries[name]
        return self.pick(list(self.tables.items()))

    def named(self, depth: int):
        sql, columns = self.source(depth)
        self.aliases += 1
        alias = f"t{self.aliases}"
        return f"{sql} {alias}", [Ref(f"{alias}.{name}", name, type_) for name, type_ in columns]

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
                self.aliases += 1
                alias = f"t{self.aliases}"
                lateral = "" if self.is_duckdb and self.chance(0.5) else "lateral "
                body = self.pick(
                    [f"select {one.sql} as y", f"select o.*, {one.sql} as y from {self.pick(list(self.tables))} o"]
                )
                sql += f" cross join {lateral}({body} limit 2) {alias}"
                others = [Ref(f"{alias}.y", "y", one.type)]
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

    # SELECT

    def select(self, depth: int, *, narrow: bool = False) -> Made:
        clause, refs, condition = self.from_clause(depth)
        where = self.predicate(refs, self.pick([0, 0, 1, 2])) if self.chance(0.35) else ""
        where = " and ".join(part for part in (condition, where) if part)
        text = f" from {clause}" + (f" where {where}" if where else "")
        style = self.random.random()
        if style < 0.05:
            return self.pinned()
        if style < 0.13:
            return self.with_parent() if self.parents and self.chance(0.4) else self.plain_join()
        if style < 0.28:
            return self.aggregated(text, refs)
        if style < 0.42:
            return self.windowed(text, refs)
        if style < 0.47 and not narrow:
            return self.starred(text, refs)
        items, columns = self.items(refs, self.pick([1, 1, 2]) if narrow else self.pick([1, 2, 2, 3, 3, 4]))
        distinct = ""
        if self.chance(0.14):
            on = self.pick(refs)
            distinct = self.pick(["distinct ", "distinct ", f"distinct on ({on.sql}) "])
        tail = (
            self.pick([" limit 1", " limit 2", " order by 1 limit 2", " limit 1 offset 1"]) if self.chance(0.06) else ""
        )
        if self.is_duckdb and self.chance(0.03):
            items, columns = [*items, "unnest([1, 2]) as u"], [*columns, ("u", INT)]
        return Made(f"select {distinct}{', '.join(items)}{text}{tail}", columns)

    def items(self, refs, count: int):
        items, columns = [], []
        for _ in range(count):
            sql, type_ = self.value(refs)
            ref = next((found for found in refs if found.sql == sql), None)
            name = ref.name if ref is not None and self.chance(0.8) else self.pick(NAMES)
            if name in {taken for taken, _ in columns} and self.chance(0.9):
                name = f"{name}{len(columns)}"
            written = (
                sql if ref is None or self.chance(0.8) or sum(found.name == name for found in refs) > 1 else ref.name
            )
            items.append(f"{written} as {name}")
            columns.append((name, type_))
        return items, columns

    def plain_join(self) -> Made:
        """Return two tables joined by two columns of one name, or of two types."""
        (left, ones), (right, others) = self.pick(list(self.tables.items())), self.pick(list(self.tables.items()))
        mixed = [(one, other) for one in ones for other in others if {one[1], other[1]} == {INT, TEXT}]
        named = [(one, other) for one in ones for other in others if one[0] == other[0]]
        one, other = self.pick(self.pick([group for group in (mixed, named) if group] or [[(ones[0], others[0])]]))
        kind = self.pick(["join", "join", "left join", "right join", "full join"])
        columns = [(f"l.{name}", f"l_{name}", type_) for name, type_ in ones]
        columns += [(f"r.{name}", f"r_{name}", type_) for name, type_ in others]
        items = ", ".join(f"{sql} as {name}" for sql, name, _ in columns)
        sql = f"select {items} from {left} l {kind} {right} r on l.{one[0]} = r.{other[0]}"
        return Made(sql, [(name, type_) for _, name, type_ in columns])

    def pinned(self) -> Made:
        """Return a query of a table in which one column has one value."""
        table, columns = self.pick([table for table in self.tables.items() if len(table[1]) > 1])
        texts = [column for column in columns if column[1] == TEXT]
        pinned, type_ = self.pick(texts if texts and self.chance(0.5) else columns)
        others = [column for column in columns if column[0] != pinned]
        condition = self.pick(["is null", "is null", f"= {self.literal(type_)}", "= 1"])
        return Made(f"select {', '.join(name for name, _ in others)} from {table} where {pinned} {condition}", others)

    def starred(self, text: str, refs) -> Made:
        names: list[tuple[str, str]] = []
        for ref in refs:
            if ref.name not in {name for name, _ in names}:
                names.append((ref.name, ref.type))
        alias = self.pick(refs).sql.split(".")[0]
        own = [(ref.name, ref.type) for ref in refs if ref.sql.startswith(f"{alias}.")]
        sql, type_ = self.value(refs)
        extra = self.pick(["x", "zz", "k"])
        options = [(f"{alias}.*", own), (f"{alias}.*, {sql} as {extra}", [*own, (extra, type_)]), ("*", names)]
        items, columns = self.pick(options)
        return Made(f"select {items}{text}", columns)

    def aggregated(self, text: str, refs) -> Made:
        groups = self.random.sample(refs, min(len(refs), self.pick([0, 1, 1, 1, 2, 2])))
        items, columns, spelled = [], [], []
        for number, ref in enumerate(groups):
            sql, type_ = (ref.sql, ref.type) if self.chance(0.75) else self.value([ref])
            name = ref.name if ref.name not in {taken for taken, _ in columns} else f"g{number}"
            items.append(f"{sql} as {name}")
            columns.append((name, type_))
            spelled.append(self.pick([sql, sql, str(number + 1), name]))
        for number in range(self.pick([0, 1, 1, 2]) or (not groups)):
            ref = self.pick(refs)
            options = [
                (f"max({ref.sql})", ref.type),
                (f"min({ref.sql})", ref.type),
                ("count(*)", BIGINT),
                (f"count({ref.sql})", BIGINT),
            ]
            options += [
                (f"count(distinct {ref.sql})", BIGINT),
                (f"max({ref.sql}) filter (where {self.predicate(refs, -1)})", ref.type),
            ]
            options += [(f"sum({ref.sql})", DECIMAL), (f"avg({ref.sql})", DOUBLE)] if ref.type in NUMBERS else []
            sql, type_ = self.pick(options)
            items.append(f"{sql} as a{number}")
            columns.append((f"a{number}", type_))
        group = ""
        if groups:
            keys = ", ".join(spelled)
            if self.chance(0.1):
                grouped = ", ".join(item.split(" as ")[0] for item in items[: len(groups)])
                keys = f"{self.pick(['rollup', 'cube'])}({grouped})"
            group = f" group by {'all' if self.is_duckdb and self.chance(0.1) else keys}"
        having = ""
        if self.chance(0.2):
            having = f" having {self.pick(['count(*) > 1', 'count(*) = 1', f'max({self.pick(refs).sql}) is not null'])}"
        keep = (
            items[1:] if len(items) > 1 and self.chance(0.15) and not any(key.isdigit() for key in spelled) else items
        )
        kept = columns[1:] if keep is not items else columns
        return Made(f"select {', '.join(keep)}{text}{group}{having}", kept)

    def windowed(self, text: str, refs) -> Made:
        parts = self.random.sample(refs, min(len(refs), self.pick([0, 1, 1, 1, 2])))
        partition = f"partition by {', '.join(ref.sql for ref in parts)} " if parts else ""
        order = f"order by {self.pick(refs).sql}"
        value = self.pick(refs)
        function, type_ = self.pick(
            [("row_number()", BIGINT)] * 6
            + [
                ("rank()", BIGINT),
                ("dense_rank()", BIGINT),
                ("count(*)", BIGINT),
                (f"max({value.sql})", value.type),
                (f"lag({value.sql})", value.type),
            ]
            + [(f"first_value({value.sql})", value.type), (f"min({value.sql})", value.type)]
        )
        frame = " rows between 1 preceding and 1 preceding" if "(" + value.sql in function and self.chance(0.3) else ""
        window = f"{function} over ({partition}{order}{frame})"
        items, columns = self.items(refs, self.pick([1, 2, 3]))
        for ref in parts:
            if ref.name not in {name for name, _ in columns}:
                items.append(f"{ref.sql} as {ref.name}")
                columns.append((ref.name, ref.type))
        condition = self.pick(["= 1", "= 1", "= 1", "= 2", "<= 1", "> 1", "is not null"])
        if self.is_duckdb and self.chance(0.3):
            return Made(f"select {', '.join(items)}{text} qualify {window} {condition}", columns)
        inner = f"select {', '.join(items)}, {window} as rn{text}"
        if self.chance(0.7) and type_ == BIGINT:
            self.aliases += 1
            shown = self.pick(["*", ", ".join(name for name, _ in columns)])
            kept = [*columns, ("rn", type_)] if shown == "*" else columns
            return Made(f"select {shown} from ({inner}) t{self.aliases} where rn {condition}", kept)
        return Made(inner, [*columns, ("rn", type_)])
