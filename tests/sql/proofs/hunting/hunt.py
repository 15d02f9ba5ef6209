"""The soundness hunt: whatever is claimed of a random query is tested on a real database, as dbt tests it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from random import Random

from dagster_sao.sql.proofs import Proof, QueryProofs
from dagster_sao.sql.proofs.column_types import family_of
from tests.sql.proofs.hunting.databases import QueryError, made
from tests.sql.proofs.hunting.grammar import Grammar
from tests.sql.proofs.hunting.shrinking import simpler_queries, simpler_worlds
from tests.sql.proofs.hunting.worlds import World, failures, fill, random_world, tests_of, with_model

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
        for world, sql in self.queries():
            found = self.check(world, sql, report)
            if found:
                is_claim = not isinstance(found, str)
                report.counterexample = (
                    self.shrunk(world, sql, found) if self.shrinks and is_claim else f"{found}: {sql}"
                )
            if found or report.queries == queries:
                break
        return report

    def queries(self) -> Iterator[tuple[World, str]]:
        """Yield queries without end. Each world and each query is drawn by itself, so that a new shape leaves most others as they are."""
        for number in count():
            world, grammar = self.world(number)
            for index in range(QUERIES_PER_WORLD):
                grammar.random = Random(f"{self.seed} {number} {index}")
                yield world, grammar.model()

    def world(self, number: int) -> tuple[World, Grammar]:
        """Return tables, now and then with one made by a query, which the queries after it may read."""
        random = Random(f"{self.seed} {number}")
        world = random_world(random)
        fill(self.database, world)
        tables = {table: [(column.name, column.type) for column in columns] for table, columns in world.tables.items()}
        grammar = Grammar(random, tables, self.database.is_duckdb, world.parents, world.keys)
        if random.random() < 0.6:
            return world, grammar
        made_by = grammar.query(1)
        try:
            found = with_model(self.database, world, made_by.sql, random)
        except QueryError:
            fill(self.database, world)
            return world, grammar
        grammar.tables = {**grammar.tables, "m": made_by.columns}
        return found, grammar

    def check(self, world: World, sql: str, report: Report) -> object | None:
        """Return a property that is claimed and does not hold, or in one sentence which columns are other than claimed."""
        try:
            with made(self.database, 0, sql):
                proofs = QueryProofs(sql, self.database.dialect, world.relations)
                claims = self.claims(proofs, world, sql, report)
                wrong = self.other_columns(proofs, report) or self.failing(claims)
        except QueryError:
            report.errors += 1
            return None
        report.queries += 1
        report.claims += len(claims)
        report.provable_queries += bool(claims)
        return wrong or self.wrong(world, sql, claims, range(1, len(world.fillings)))

    def claims(self, proofs: QueryProofs, world: World, sql: str, report: Report) -> list:
        found = []
        for wanted in tests_of(self.database.columns(), world):
            answer = proofs.prove(wanted)
            if isinstance(answer, Proof):
                found.append(wanted)
                report.kinds[type(wanted).__name__] += 1
                for word in words(answer.text, sql):
                    report.kinds[word] += 1
        return found

    def other_columns(self, proofs: QueryProofs, report: Report) -> str | None:
        """Return in one sentence the columns that are certain for the prover, if the table `made` has others."""
        if (certain := proofs.columns) is None:
            return None
        report.kinds["certain columns"] += 1
        real = [(name.lower(), family_of(type_)) for name, type_ in self.database.types("made").items()]
        return None if list(certain.items()) == real else f"columns {certain} instead of {real}"

    def wrong(self, world: World, sql: str, claims: list, fillings: Iterable[int]) -> object | None:
        """Return the first claim that does not hold in some filling where the query runs."""
        for filling in fillings if claims else ():
            try:
                with made(self.database, filling, sql):
                    wrong = self.failing(claims)
            except QueryError:
                continue
            if wrong is not None:
                return wrong
        return None

    def failing(self, claims: list) -> object | None:
        """Return the first claim that does not hold of the table `made`."""
        counts = self.counts(claims) if claims else []
        return next((claim for claim, found in zip(claims, counts, strict=True) if found != 0), None)

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
        return self.wrong(world, sql, [claim], range(len(world.fillings))) is not None


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
