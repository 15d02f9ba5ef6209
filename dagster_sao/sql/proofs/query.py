"""Derives what is proven of a query's rows, and answers which properties follow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from sqlglot import exp

from dagster_sao.sql.dialects import Semantics, parsed, semantics_of, sqlglot_dialect
from dagster_sao.sql.proofs import expressions, predicates
from dagster_sao.sql.proofs.answers import answer
from dagster_sao.sql.proofs.clauses import conditions, grouping, joins, set_operations
from dagster_sao.sql.proofs.column_types import families_of
from dagster_sao.sql.proofs.facts import NOTHING, Column, Id, Key, Rows, joined, with_keys
from dagster_sao.sql.proofs.properties import NotProvable, Proof, Property, Relation
from dagster_sao.sql.proofs.scope import Environment, Scope, argument, classes, fold, has_only, may_be_one, renamed

_SELECT_ARGUMENTS = (
    "with", "expressions", "distinct", "from", "joins", "where", "group", "having", "qualify", "windows", "order", "limit", "offset",
)  # fmt: skip

_UNNESTS = classes("Unnest", "Explode", "ExplodeOuter")
_SEVERAL = "it is not known how many columns the query has"
# Of one column, or of one key.
_MOST_NAMES = 8


class QueryProofs:
    """The proofs about one model's query. Parses and derives once, and answers many properties."""

    def __init__(self, sql: str, adapter: str, relations: Mapping[str, Relation]) -> None:
        self._semantics, self._dialect = semantics_of(adapter), sqlglot_dialect(adapter)
        self._rows: Rows | NotProvable
        if self._semantics is None:
            self._rows = NotProvable(f"the SQL of {adapter} is not known well enough")
        else:
            self._rows = _rows_of(sql, adapter, relations, self._semantics)

    @property
    def rows(self) -> Rows | None:
        """What is proven of the query's rows, for queries that read them; None where nothing is proven."""
        return None if isinstance(self._rows, NotProvable) else self._rows

    @property
    def columns(self) -> Mapping[str, str] | None:
        """All columns of a relation made from the query, in order, each with the family of its type; None unless they are certain."""
        if self.rows is None or self._semantics is None or not self._semantics.keeps_types:
            return None
        return families_of(self.rows)

    def prove(self, wanted: Property, where: str = "") -> Proof | NotProvable:
        """Return the proof that the query's rows have a property, or why there is none.

        `where` is the test's own: what holds of all rows holds of some, but a condition could be an error.
        """
        rows, semantics = self._rows, self._semantics
        if isinstance(rows, NotProvable) or semantics is None:
            return rows if isinstance(rows, NotProvable) else NotProvable("")
        found = answer(rows, wanted, semantics)
        if isinstance(found, NotProvable):
            return found
        if where and not conditions.runs(where, rows, Environment(self._dialect, semantics, {}, frozenset(), _derived)):
            return NotProvable("the test's where is not known to run without an error")
        steps = joined(found)
        text = "; ".join(dict.fromkeys(step.text for step in steps)) or "by the expression of the column alone"
        return Proof(f"{wanted} holds: {text}", frozenset().union(*(step.premises for step in steps)))


def _rows_of(sql: str, adapter: str, relations: Mapping[str, Relation], semantics: Semantics) -> Rows | NotProvable:
    dialect = sqlglot_dialect(adapter)
    trees = parsed(sql, dialect)
    if trees is None:
        return NotProvable("the SQL cannot be parsed")
    try:
        if len(trees) != 1 or not isinstance(trees[0], exp.Query):
            return NotProvable("the SQL is not one query")
        names = {identifier.name for identifier in trees[0].find_all(exp.Identifier)}
        catalogs = (relation.columns or () for relation in relations.values())
        if may_be_one(names.union(*catalogs)):
            return NotProvable("two names differ only in the case of letters that not each database takes for the same")
        folded = frozenset(fold(name, quoted=False, semantics=semantics) for name in names)
        environment = Environment(dialect, semantics, relations, folded, _derived)
        return _derived(trees[0], environment)
    except RecursionError:
        return NotProvable("the SQL is nested too deeply")


def _derived(node: exp.Expr, environment: Environment) -> Rows:
    """Return what is known of the rows of a query."""
    environment = _with_queries(node, environment)
    if isinstance(node, exp.Subquery):
        if not has_only(node, "this", "alias", "with", "order", "limit", "offset"):
            return NOTHING
        rows = _derived(node.this, environment)
        return rows if has_only(node, "this", "alias", "with") else replace(rows, holds_all_of=None)
    if isinstance(node, exp.SetOperation):
        if not set_operations.is_understood(node):
            return NOTHING
        left, right = _derived(node.this, environment), _derived(node.expression, environment)
        return set_operations.combined(node, left, right, environment.semantics)
    return (
        _selected(node, environment) if isinstance(node, exp.Select) and has_only(node, *_SELECT_ARGUMENTS) else NOTHING
    )


def _with_queries(node: exp.Expr, environment: Environment) -> Environment:
    """Return the environment with a query's own common table expressions."""
    clause = argument(node, "with")
    if clause is None:
        return environment
    queries = dict(environment.queries)
    names = [environment.fold(query.args["alias"].this) for query in clause.expressions]
    for number, (name, query) in enumerate(zip(names, clause.expressions, strict=True)):
        # A recursive query can read itself, and the queries after it.
        later = set(names[number:]) if clause.args.get("recursive") else set()
        is_recursive = any(
            environment.fold(table.this) in later
            for table in query.find_all(exp.Table)
            if isinstance(table.this, exp.Identifier)
        )
        is_query = (
            has_only(clause, "expressions", "recursive")
            and isinstance(query.this, exp.Query)
            and has_only(query, "this", "alias", "materialized")
        )
        inner = replace(environment, queries=queries)
        rows = _derived(query.this, inner) if is_query and not is_recursive else NOTHING
        queries = {**queries, name: renamed(rows, query.args["alias"], environment)}
    return replace(environment, queries=queries)


def _selected(select: exp.Select, environment: Environment) -> Rows:
    scope = joins.from_clause(select, environment)
    if environment.is_lateral and not _reads_only_itself(select, scope):
        return NOTHING
    multiplies = grouping.may_multiply_rows(select)
    if multiplies:
        scope.rows = replace(scope.rows, keys=(), losses=(*scope.rows.losses, f"{multiplies} may repeat rows"))
    where = select.args.get("where")
    scope.rows = predicates.filtered(scope, where.this if where is not None else None, "where")
    found = grouping.aggregates(select)
    if found or select.args.get("group") is not None or select.args.get("having") is not None:
        scope.rows = grouping.grouped(scope, select, found, multiplies=bool(multiplies))
    having = select.args.get("having")
    scope.rivals = frozenset(scope.aliases)
    scope.rows = predicates.filtered(scope, having.this if having is not None else None, "having")
    scope.rows = grouping.windowed(scope, select)
    qualify = select.args.get("qualify")
    scope.rows = predicates.filtered(scope, qualify.this if qualify is not None else None, "qualify")
    scope.rows = grouping.distinct_on(scope, select)
    scope.rivals = frozenset()
    rows = _projected(scope, select)
    if multiplies:
        rows = replace(rows, keys=())
    distinct = select.args.get("distinct")
    if distinct is not None and not distinct.args.get("on"):
        rows = grouping.distinct(rows)
    if _keeps_all_rows(select) and not (multiplies or found):
        (source,) = scope.sources.values()
        rows = replace(rows, holds_all_of=source.holds_all_of)
    # A LIMIT keeps keys. It adds none: DuckDB 2.0 has been seen to drop a `limit 1` after an outer join.
    return rows


def _keeps_all_rows(select: exp.Select) -> bool:
    """Return whether a query gives each row of its one source."""
    return has_only(select, "with", "expressions", "from", "order") and argument(select, "from") is not None


def _reads_only_itself(select: exp.Select, scope: Scope) -> bool:
    """Return whether a query in FROM certainly reads no source to its left."""
    for node in select.walk():
        if (
            isinstance(node, exp.Query)
            and node is not select
            and not isinstance(node.parent, exp.From | exp.Join | exp.CTE | exp.Subquery | exp.SetOperation)
        ):
            return False
    return all(
        scope.resolve(column) is not None or scope.alias_of(column) is not None
        for column in grouping.in_this_query(select)
        if isinstance(column, exp.Column) and not column.is_star
    )


@dataclass(frozen=True, slots=True)
class _Item:
    """One column of a result."""

    name: str | None
    column: Column
    carries: Id | None
    """The column of the rows whose values it tells apart as well."""
    is_starred: bool = False


def _projected(scope: Scope, select: exp.Select) -> Rows:
    """Return the rows of a select list."""
    items: list[_Item] = []
    starred: set[str] = set()
    # Of two columns of one name, the first has it, so that those before are certain.
    is_spread = [_is_spread(node) for node in select.expressions]
    if is_spread != sorted(is_spread):
        return replace(NOTHING, losses=(_SEVERAL,))
    for node in select.expressions:
        if isinstance(node, exp.Star) or (isinstance(node, exp.Column) and node.is_star):
            sources = _starred_sources(node, scope)
            if sources is None:
                return replace(NOTHING, losses=(f"it is not known which columns {node.sql()} stands for",))
            items.extend(_expanded(node, sources, scope))
            starred.update(sources)
        elif _may_be_several(node):
            return replace(NOTHING, losses=(_SEVERAL,))
        else:
            items.append(_item(node, scope))
    is_open = any(scope.sources[source].is_open for source in starred)
    hides_names = any(scope.sources[source].hides_names for source in starred)
    # Another column of a source whose columns are unknown could have the same name.
    is_certain = {id(item): item.is_starred and len(starred) == 1 if is_open or hides_names else True for item in items}
    items = [item if is_certain[id(item)] else replace(item, name=None) for item in items]
    is_open = is_open or any(is_spread)
    return _named(items, scope.rows, is_open=is_open, is_ordered=not (starred and scope.merged))


def _may_be_several(node: exp.Expr) -> bool:
    """Return whether an item of a select list may be several columns, such as `* like 'n%'`."""
    if node.is_star or isinstance(node, exp.Aliases) or any(isinstance(part, exp.Columns) for part in node.walk()):
        return True
    stars = (part for part in grouping.in_this_query(node) if isinstance(part, exp.Star))
    return any(not isinstance(star.parent, exp.Count) for star in stars)


def _is_spread(node: exp.Expr) -> bool:
    """Return whether an item of a select list may be the fields of a struct, or what another function makes, each a column.

    An alias renames the one column of a function, but not the fields that DuckDB's `unnest` makes of a struct.
    """
    inner = node.this if isinstance(node, exp.Alias) else node
    inner = inner.unnest()
    return isinstance(inner, _UNNESTS) or (inner is node and isinstance(inner, exp.UDTF | exp.Anonymous))


def _item(node: exp.Expr, scope: Scope) -> _Item:
    expression = node.this if isinstance(node, exp.Alias) else node
    name: str | None = None
    if isinstance(node, exp.Alias) and isinstance(node.args.get("alias"), exp.Identifier):
        name = scope.environment.fold(node.args["alias"])
    elif isinstance(node, exp.Column) and isinstance(node.this, exp.Identifier):
        name = scope.environment.fold(node.this)
    return _Item(name, expressions.describe(expression, scope), expressions.carried(expression, scope))


def _starred_sources(node: exp.Expr, scope: Scope) -> list[str] | None:
    """Return the sources whose columns a star stands for."""
    star = node if isinstance(node, exp.Star) else node.this
    if not isinstance(star, exp.Star) or not has_only(star, "except") or not has_only(node, "this", "table", "except"):
        return None
    qualifier = node.args.get("table") if isinstance(node, exp.Column) else None
    sources = list(scope.sources) if qualifier is None else [scope.environment.fold(qualifier)]
    return sources if sources and all(source in scope.sources for source in sources) else None


def _expanded(node: exp.Expr, sources: list[str], scope: Scope) -> Iterator[_Item]:
    """Yield the columns that a star stands for."""
    star = node if isinstance(node, exp.Star) else node.this
    names = [column.this for column in argument(star, "except") or ()]
    dropped = {scope.environment.fold(name) for name in names if isinstance(name, exp.Identifier)}
    seen: set[str] = set()
    for source in sources:
        for column in scope.sources[source].columns:
            name = str(column)
            is_merged = star is node and source in scope.using.get(name, ())
            if name in dropped or (is_merged and name in seen):
                continue
            seen.add(name)
            identity = scope.merged[name] if is_merged else (source, name)
            facts = scope.rows.columns.get(identity, Column(nullable_because=f"it is not certain what {name} is"))
            yield _Item(None if name.startswith("#") else name, facts, identity, is_starred=True)


def _named(items: list[_Item], before: Rows, *, is_open: bool, is_ordered: bool) -> Rows:
    """Return rows by the names of the result. A name that occurs twice, or could, stands for neither column."""
    counts: dict[str, int] = {}
    for item in items:
        if item.name is not None:
            counts[item.name] = counts.get(item.name, 0) + 1
    columns: dict[Id, Column] = {}
    names: dict[Id, list[str]] = {}
    for number, item in enumerate(items):
        if item.name is not None and counts[item.name] > 1 and item.name not in columns:
            # The name is taken, so that it is ambiguous in the next query too.
            columns[item.name] = Column(nullable_because=f"{item.name} is the name of two columns", is_stable=False)
            continue
        name = item.name if item.name is not None and counts[item.name] == 1 else f"#{number}"
        columns[name] = item.column
        if item.carries is not None:
            names.setdefault(item.carries, []).append(name)
    # Databases make up names for columns without one, and for the second of a name.
    hides_names = len(counts) < len(items)
    rows = Rows(columns, is_open=is_open, hides_names=hides_names, is_ordered=is_ordered, losses=before.losses)
    return with_keys(rows, _projected_keys(before, names))


def _projected_keys(before: Rows, names: Mapping[Id, list[str]]) -> Iterator[Key]:
    for key in before.keys:
        if all(column in names for column in key.columns):
            spellings: list[frozenset[Id]] = [frozenset()]
            for column in key.columns:
                spellings = [done | {name} for done in spellings for name in names[column][:_MOST_NAMES]][:_MOST_NAMES]
            for spelling in spellings:
                yield replace(key, columns=spelling)
