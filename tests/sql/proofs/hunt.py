"""The soundness hunt: whatever is claimed of a random query is tested on a real database, as dbt tests it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from random import Random

import sqlglot
from sqlglot import exp

from dagster_sao.sql.proofs import Proof, QueryProofs
from tests.sql.proofs.random_sql import Grammar
from tests.sql.proofs.worlds import QueryError, World, failures, fill, made, random_world, tests_of, with_model

QUERIES_PER_WORLD = 20


@dataclass
class Report:
    queries: int = 0
    """Queries that the database could run in each filling."""
    errors: int = 0
    claims: int = 0
    provable_queries: int = 0
    kinds: Counter = field(default_factory=Counter)
    """Claims by their property, and by the words in their reason and in the query."""
    counterexample: str | None = None


@dataclass
class Hunt:
    database: object
    seed: int
    shrinks: bool = True

    def run(self, queries: int) -> Report:
        """Make queries until so many could run, or one is proven wrongly."""
        report = Report()
        random = Random(self.seed)
        while report.queries < queries:
            world = random_world(random)
            fill(self.database, world)
            tables = {
                table: [(column.name, column.type) for column in columns] for table, columns in world.tables.items()
            }
            grammar = Grammar(random, tables, self.database.is_duckdb, world.parents)
            world = self.with_model(world, grammar, random)
            for _ in range(QUERIES_PER_WORLD):
                sql = grammar.model()
                found = self.check(world, sql, report)
                if found:
                    report.counterexample = self.shrunk(world, sql, found) if self.shrinks else f"{found}: {sql}"
                    return report
        return report

    def with_model(self, world: World, grammar: Grammar, random: Random) -> World:
        """Return the world, now and then with a table made by a query, which the queries after it may read."""
        if random.random() < 0.6:
            return world
        made_by = grammar.query(1)
        try:
            found = with_model(self.database, world, made_by.sql, random)
        except QueryError:
            fill(self.database, world)
            return world
        grammar.tables = {**grammar.tables, "m": made_by.columns}
        return found

    def check(self, world: World, sql: str, report: Report) -> object | None:
        """Return a property that is claimed and does not hold."""
        try:
            with made(self.database, 0, sql):
                columns = self.database.columns()
        except QueryError:
            report.errors += 1
            return None
        report.queries += 1
        claims = self.claims(world, sql, columns, report)
        report.claims += len(claims)
        report.provable_queries += bool(claims)
        return self.wrong(world, sql, claims)

    def claims(self, world: World, sql: str, columns: list[str], report: Report) -> list:
        proofs = QueryProofs(sql, self.database.dialect, world.relations)
        found = []
        for wanted in tests_of(columns, world):
            answer = proofs.prove(wanted)
            if isinstance(answer, Proof):
                found.append(wanted)
                report.kinds[type(wanted).__name__] += 1
                for word in words(answer.text, sql):
                    report.kinds[word] += 1
        return found

    def wrong(self, world: World, sql: str, claims: list) -> object | None:
        """Return the first claim that does not hold in some filling where the query runs."""
        if not claims:
            return None
        for filling in range(len(world.fillings)):
            try:
                with made(self.database, filling, sql):
                    counts = self.counts(claims)
            except QueryError:
                continue
            for claim, count in zip(claims, counts, strict=True):
                if count != 0:
                    return claim
        return None

    def counts(self, claims: list) -> list:
        """Return the failures of each claim; a test that errors counts as one that fails."""
        try:
            parts = [f"select {number} as i, n from ({failures(claim)}) q" for number, claim in enumerate(claims)]
            return [count for _, count in sorted(self.database.run(" union all ".join(parts)))]
        except QueryError:
            return [self.count(claim) for claim in claims]

    def count(self, claim) -> object:
        try:
            return self.database.run(failures(claim))[0][0]
        except QueryError as error:
            return str(error)

    # Shrinking

    def shrunk(self, world: World, sql: str, claim) -> str:
        """Return the smallest query and tables found that still show a wrong claim."""
        is_smaller = True
        while is_smaller:
            is_smaller = False
            for smaller in simpler_queries(sql, self.database.dialect):
                if self.still_wrong(world, smaller, claim):
                    sql, is_smaller = smaller, True
                    break
        for smaller in simpler_worlds(world):
            try:
                fill(self.database, smaller)
            except QueryError:
                continue
            if self.still_wrong(smaller, sql, claim):
                world = smaller
        fill(self.database, world)
        proof = QueryProofs(sql, self.database.dialect, world.relations).prove(claim)
        lines = [
            f"seed {self.seed} on {self.database.dialect}: {claim!r} does not hold",
            f"  query: {sql}",
            f"  proof: {proof}",
        ]
        for filling in world.fillings:
            lines += [f"  {table}: {rows}" for table, rows in filling.items()]
        lines += [f"  {table}: {made_by}" for table, made_by in world.models.items()]
        lines += [f"  {relation}" for relation in world.relations.values()]
        return "\n".join(lines)

    def still_wrong(self, world: World, sql: str, claim) -> bool:
        try:
            with made(self.database, 0, sql):
                pass
        except QueryError:
            return False
        if not isinstance(QueryProofs(sql, self.database.dialect, world.relations).prove(claim), Proof):
            return False
        return self.wrong(world, sql, [claim]) is not None


def simpler_queries(sql: str, dialect: str) -> Iterator[str]:
    """Yield queries with one part less."""
    tree = sqlglot.parse_one(sql, dialect=dialect)
    for number, node in enumerate(list(tree.walk())):
        for change in _changes(node):
            copied = tree.copy()
            twin = list(copied.walk())[number]
            change(twin)
            text = copied.sql(dialect=dialect)
            if len(text) < len(sql):
                yield text


def _changes(node: exp.Expr) -> Iterator:
    for name in (
        "where",
        "having",
        "qualify",
        "order",
        "limit",
        "offset",
        "distinct",
        "group",
        "with_",
        "filter",
        "joins",
    ):
        if node.args.get(name):
            yield lambda twin, name=name: twin.set(name, None)
    for name in ("joins", "expressions"):
        values = node.args.get(name)
        for index in range(len(values) if isinstance(values, list) and (name == "joins" or len(values) > 1) else 0):
            yield lambda twin, name=name, index=index: twin.args[name].pop(index)
    if isinstance(node, exp.Connector | exp.SetOperation) and node.parent:
        yield lambda twin: twin.replace(twin.this)
        yield lambda twin: twin.replace(twin.expression)
    if (
        isinstance(node, exp.Case | exp.Coalesce | exp.Paren | exp.Cast | exp.Not)
        and node.parent
        and isinstance(node.this, exp.Expr)
    ):
        yield lambda twin: twin.replace(twin.this)


def simpler_worlds(world: World) -> Iterator[World]:
    """Yield worlds of one filling, and with fewer rows. A known property still holds, but for parents' rows, which stay."""
    parents = {column.parent[0] for columns in world.tables.values() for column in columns if column.parent}
    for filling in world.fillings:
        yield replace(world, fillings=[filling])
    for filling in world.fillings:
        for table, rows in filling.items():
            for index in range(len(rows) if table not in parents else 0):
                yield replace(world, fillings=[{**filling, table: rows[:index] + rows[index + 1 :]}])


WORDS = (
    "left join on", "right join on", "inner join on", "full join on", "full join of", "group by", "distinct on", "select distinct", "row_number",
    "union", "intersect", "except", "rollup", "where", "having", "qualify", "semi join with", "exists", "comes from its parent",
    "accepted values", "is not null", "together unique", "left join with", "at most one row", "one row of aggregates",
    "tells the branches apart", "(in m)",
)  # fmt: skip


def words(text: str, sql: str) -> Iterator[str]:
    """Yield the rules that a reason mentions, by their words."""
    lower = text.lower()
    yield from (word for word in WORDS if word in lower)
    if "by the expression" in text:
        yield "expression alone"
