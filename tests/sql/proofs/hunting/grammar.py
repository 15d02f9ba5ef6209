"""Random queries: small ones, each about a few rules, and large ones of all that the grammar has, and beyond what proofs know."""

from __future__ import annotations

from tests.sql.proofs.hunting.choices import INT, Made, refs_of
from tests.sql.proofs.hunting.small_joins import SmallJoins

# How often a small query is made follows how many rules it is about, and how seldom it shows that one of them is broken.
SMALL = {
    "plain_join": 7,
    "with_parent": 11,
    "merged_join": 7,
    "lateral": 4,
    "odd_join": 2,
    "pinned": 8,
    "filtered": 12,
    "computed": 9,
    "grouped": 6,
    "numbered": 6,
    "collated": 2,
    "once": 3,
    "starred_part": 4,
    "shadowed": 6,
    "combined": 6,
    "tagged": 1,
}


class Grammar(SmallJoins):
    """Writes queries."""

    def model(self) -> str:
        """Return a whole query, with common table expressions."""
        self.queries, self.aliases = {}, 0
        if self.chance(0.85):
            return self.small().sql
        parts = []
        for number in range(self.pick([0, 0, 1, 1, 2, 3])):
            made = self.query(self.pick([0, 0, 1]))
            name = f"c{number}"
            parts.append(f"{name} as ({made.sql})")
            self.queries[name] = made.columns
        clause = f"with {', '.join(parts)} " if parts else ""
        return clause + self.query(self.pick([0, 1, 1, 2])).sql

    def small(self) -> Made:
        """Return a small query, now and then with another step around it."""
        made = getattr(self, self.random.choices(list(SMALL), list(SMALL.values()))[0])()
        if self.chance(0.8):
            return made
        alias = self.alias()
        return self.step(f" from ({made.sql}) {alias}", refs_of(alias, made.columns))

    def query(self, depth: int) -> Made:
        """Return a query of any form, in which others are nested so deep."""
        if self.chance(0.13):
            return self.tagged() if self.chance(0.3) else self.set_operation(self.select(depth), self.select(depth))
        return self.small() if self.chance(0.13) else self.select(depth)

    def select(self, depth: int) -> Made:
        clause, refs, condition = self.from_clause(depth)
        where = self.predicate(refs, self.pick([0, 0, 1, 2])) if self.chance(0.35) else ""
        where = " and ".join(part for part in (condition, where) if part)
        return self.step(f" from {clause}" + (f" where {where}" if where else ""), refs)

    def step(self, text: str, refs) -> Made:
        """Return a query of given sources."""
        style = self.random.random()
        if style < 0.15:
            return self.aggregated(text, refs)
        if style < 0.3:
            return self.windowed(text, refs)
        if style < 0.35:
            return self.starred(text, refs)
        items, columns = self.items(refs, self.pick([1, 2, 2, 3, 3, 4]))
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
