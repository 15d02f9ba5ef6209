"""Random select lists, groups and windows over given sources."""

from __future__ import annotations

from tests.sql.proofs.hunting.choices import ANY_CASE, BIGINT, DECIMAL, DOUBLE, NAMES, NUMBERS, TEXT, Made, Ref
from tests.sql.proofs.hunting.expressions import Expressions


class Selects(Expressions):
    """Writes what stands around FROM and WHERE."""

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
        options += self.parts_of_star(alias, own) if self.is_duckdb else []
        items, columns = self.pick(options)
        return Made(f"select {items}{text}", columns)

    def parts_of_star(self, alias: str, own: list[tuple[str, str]]) -> list[tuple[str, list[tuple[str, str]]]]:
        """Return select lists with DuckDB's stars: https://duckdb.org/docs/stable/sql/expressions/star."""
        name, type_ = self.pick(own)
        sql, other = self.expression([Ref(f"{alias}.{name}", name, type_)], 0)
        rest = [column for column in own if column[0] != name]
        replaced = [(found, other if found == name else t) for found, t in own]
        renamed = [("renamed" if found == name else found, t) for found, t in own]
        alike = [column for column in own if column[0].startswith(name[0])]
        return [
            (f"{alias}.* replace ({sql} as {name})", replaced),
            (f"{alias}.* rename ({name} as renamed)", renamed),
            (f"columns({alias}.*)", own),
            *([(f"{alias}.* exclude ({name})", rest)] if rest else []),
            *([(f"* like '{name[0]}%'", alike)] if alike else []),
            (f"{sql} as {name}, * not like '{name[0]}%'", [(name, other)]),
        ]

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
                *[(f"max({ref.sql}) filter (where {self.predicate(refs, -1)})", ref.type)] * 2,
            ]
            options += [(f"sum({ref.sql})", DECIMAL), (f"avg({ref.sql})", DOUBLE)] if ref.type in NUMBERS else []
            sql, type_ = self.pick(options)
            items.append(f"{sql} as a{number}")
            columns.append((f"a{number}", type_))
        group = ""
        if groups:
            keys = ", ".join(spelled)
            if self.chance(0.15):
                if self.chance(0.3):
                    items[0], columns[0] = f"'a' as {columns[0][0]}", (columns[0][0], TEXT)
                grouped = ", ".join(item.split(" as ")[0] for item in items[: len(groups)])
                keys = f"{self.pick(['rollup', 'rollup', 'cube'])}({grouped})"
            if self.is_duckdb and self.chance(0.1):
                keys = "all"
                if groups[0].type in NUMBERS and self.chance(0.3):
                    # DuckDB 2 refuses it.
                    items.append(f"count(*) + {groups[0].sql} as mixed")
                    columns.append(("mixed", BIGINT))
            group = f" group by {keys}"
        having = ""
        if self.chance(0.2):
            conditions = ["count(*) > 1", "count(*) = 1", f"max({self.pick(refs).sql}) is not null"]
            conditions += [self.predicate(groups, 0), f"{groups[0].sql} is not null"] if groups else []
            having = f" having {self.pick(conditions)}"
        keep = (
            items[1:] if len(items) > 1 and self.chance(0.15) and not any(key.isdigit() for key in spelled) else items
        )
        kept = columns[1:] if keep is not items else columns
        return Made(f"select {', '.join(keep)}{text}{group}{having}", kept)

    def windowed(self, text: str, refs) -> Made:
        parts = self.random.sample(refs, min(len(refs), self.pick([0, 1, 1, 1, 2])))
        collated = [ref for ref in refs if ref.type == ANY_CASE]
        if collated and self.chance(0.5):
            parts = [self.pick(collated)]
        partition = f"partition by {', '.join(ref.sql for ref in parts)} " if parts else ""
        order = f"order by {self.pick(refs).sql}"
        value = self.pick(refs)
        function, type_ = self.pick(
            [("row_number()", BIGINT)] * 5
            + [("rank()", BIGINT)] * 2
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
            alias = self.alias()
            shown = self.pick(["*", ", ".join(name for name, _ in columns)])
            kept = [*columns, ("rn", type_)] if shown == "*" else columns
            return Made(f"select {shown} from ({inner}) {alias} where rn {condition}", kept)
        return Made(inner, [*columns, ("rn", type_)])
