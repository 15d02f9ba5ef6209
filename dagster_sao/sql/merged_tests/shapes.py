"""Understand the SQL of a data test: which rows of which relation it finds, or which values that occur twice.

The shapes are the ones that the macros of dbt, dbt_utils and dbt_expectations write. Such a test is a chain of queries, each of
which keeps some rows of the one before. The shape of a test that is not understood is None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from dagster_sao.sql.merged_tests.conditions import is_condition, is_of_one_row, mentions, substituted
from dagster_sao.sql.merged_tests.joins import left_join_of
from dagster_sao.sql.merged_tests.pieces import Pieces, find, inside, same, split, text_of, words_of

_CLAUSES = ("where", "group", "having")
_COUNT = ["count", "(", "*", ")"]
_TWICE = [*_COUNT, ">", "1"]
# Columns that `select *` does not pass on.
_PSEUDO_COLUMNS = frozenset(
    [
        "rowid", "ctid", "xmin", "xmax", "cmin", "cmax", "tableoid",
        "_partitiontime", "_partitiondate", "_table_suffix", "_metadata",
    ]
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Parent:
    """The second relation of a `relationships` test."""

    query: str
    """A query that returns the column."""
    column: str
    value: Pieces
    """The expression over the first relation that must be one of the column's values."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one relation for which all guards are true, in the order in which they are to be evaluated."""

    relation: Pieces
    guards: tuple[Pieces, ...] = ()
    scope: Pieces | None = None
    """The first guard, if it stands in a query next to the relation, as dbt writes the `where` of a test."""
    columns: Mapping[str, Pieces] | None = None
    """The expression behind each column. None where the columns are the relation's own."""
    hidden: frozenset[str] = frozenset()
    """Names that have no meaning, or another one, outside of the test."""
    is_collapsed: bool = False
    """Whether several rows of the relation may be one row here, so that they must not be counted."""
    unread: tuple[Pieces, ...] = ()
    """Expressions that the database must find valid, although their values do not count."""
    parent: Parent | None = None
    """The second relation, in which these rows have no match."""


@dataclass(frozen=True, slots=True)
class Duplicates:
    """The values of some expressions that occur more than once in some rows. Nulls are equal here."""

    rows: Rows
    keys: tuple[Pieces, ...]


Shape = Rows | Duplicates


def shape_of(pieces: Pieces) -> Shape | None:
    """Return what a test finds, None where its SQL is not understood."""
    chain = _chain(pieces)
    if chain is None:
        return None
    queries, last = chain
    # The database would find a mistake even in a query that is not used.
    if not all(any(mentions(other, frozenset({name})) for other in (*queries.values(), last)) for name in queries):
        return None
    known: dict[str, Shape] = {}
    for name, query in queries.items():
        shape = _Query(query, known, queries).shape()
        if shape is not None:
            known[name] = shape
    return _Query(last, known, queries).shape()


def _chain(pieces: Pieces) -> tuple[dict[str, Pieces], Pieces] | None:
    """Return the named queries of a `with` clause, and the query after it."""
    queries: dict[str, Pieces] = {}
    if not pieces or pieces[0].word != "with":
        return queries, pieces
    start = 1
    while True:
        head = pieces[start : start + 3]
        if words_of(head)[1:] != ["as", "("] or not head[0].is_simple_name or head[0].word in queries:
            return None
        end = _end_of_brackets(pieces, start + 2)
        body = inside(pieces[start + 2 : end])
        if body is None:
            return None
        queries[head[0].word] = body
        if words_of(pieces[end : end + 1]) != [","]:
            return queries, pieces[end:]
        start = end + 1


def _end_of_brackets(pieces: Pieces, start: int) -> int:
    """Return the place after the brackets that open at `start`."""
    depth = pieces[start].depth
    return next((n + 1 for n in range(start + 1, len(pieces)) if pieces[n].depth == depth), len(pieces))


@dataclass(frozen=True, slots=True)
class _Query:
    """One query of a test."""

    pieces: Pieces
    known: Mapping[str, Shape]
    """The shapes of the named queries before it that are understood."""
    named: Mapping[str, Pieces]
    """All named queries of the test."""

    def shape(self) -> Shape | None:
        """Return what the query returns."""
        clauses = _clauses(self.pieces)
        if clauses is None:
            return None
        chosen, is_distinct = _without_distinct(clauses["select"])
        if find(clauses["from"], "join") is not None:
            return self._orphans(chosen, clauses)
        source = self._source(clauses["from"])
        if isinstance(source, Duplicates):
            is_plain = words_of(chosen) == ["*"] and not any(clauses[name] for name in _CLAUSES)
            return source if is_plain else None
        if source is not None and clauses["where"]:
            # Some databases let a condition refer to the names that the list gives.
            is_clear = not mentions(clauses["where"], _new_names(chosen))
            source = _filtered(source, clauses["where"]) if is_clear else None
        if source is None:
            return None
        if clauses["group"]:
            return None if is_distinct else _grouped(source, chosen, clauses["group"], clauses["having"])
        if clauses["having"]:
            return None
        return _projected(replace(source, is_collapsed=is_distinct or source.is_collapsed), chosen)

    def _source(self, pieces: Pieces) -> Shape | None:
        """Return what stands after `from`: a relation, a named query, or a query in parentheses."""
        is_subquery = bool(pieces) and pieces[0].text == "("
        size = _end_of_brackets(pieces, 0) if is_subquery else _size_of_path(pieces)
        alias = _alias(pieces[size:])
        if not size or alias is None:
            return None
        if is_subquery:
            body = inside(pieces[:size])
            # Databases disagree about a query in parentheses without an alias.
            return _behind(replace(self, pieces=body).shape(), alias) if body and alias else None
        if size == 1 and mentions(pieces[:1], frozenset(self.named)):
            return _behind(self.known.get(pieces[0].word), alias)
        rows = Rows(pieces[:size], hidden=frozenset(self.named))
        return _hiding(rows, alias) if alias else rows

    def _orphans(self, chosen: Pieces, clauses: Mapping[str, Pieces]) -> Rows | None:
        """Return the rows of a child without a match in its parent."""
        join = left_join_of(clauses["from"])
        source = None if join is None else self.known.get(join.child)
        query = None if join is None else self.named.get(join.parent)
        if join is None or query is None or not isinstance(source, Rows) or source.parent:
            return None
        (x, y), columns = join.columns, source.columns or {}
        choosable = {join.left, join.right} if x == y else {join.left, join.right, x, y}
        is_plain = (
            words_of(clauses["where"]) == [join.right, "is", "null"] and not clauses["group"] and not clauses["having"]
        )
        if x not in columns or not is_plain or not all(_is_one_of(choosable, item) for item in split(chosen)):
            return None
        if mentions(query, frozenset(self.named)):
            return None
        return replace(source, columns={}, is_collapsed=True, parent=Parent(text_of(query), y, columns[x]))


def _clauses(pieces: Pieces) -> dict[str, Pieces] | None:
    """Return what stands after each keyword of a query."""
    if not pieces or pieces[0].word != "select":
        return None
    found = {"select": pieces[1:], "from": pieces[:0], **dict.fromkeys(_CLAUSES, pieces[:0])}
    before = "select"
    for keyword in ("from", *_CLAUSES):
        rest = found[before]
        at = find(rest, keyword)
        if at is None:
            continue
        found[before], found[keyword] = rest[:at], rest[at + 1 :]
        if not found[keyword]:
            return None
        before = keyword
    return found if found["select"] and found["from"] else None


def _without_distinct(chosen: Pieces) -> tuple[Pieces, bool]:
    is_distinct = chosen[0].word == "distinct"
    return (chosen[1:] if is_distinct else chosen), is_distinct


def _size_of_path(pieces: Pieces) -> int:
    """Return how many pieces the name at the beginning has."""
    size = 0
    for piece in pieces:
        if not piece.is_name or (size and piece.gap) or (not size and piece.text.startswith(".")):
            break
        size += 1
    return size if size and not pieces[size - 1].text.endswith(".") else 0


def _alias(pieces: Pieces) -> frozenset[str] | None:
    """Return the one alias, none, or None where anything else follows a relation."""
    if not pieces:
        return frozenset()
    rest = pieces[1:] if pieces[0].word == "as" else pieces
    is_name = len(rest) == 1 and rest[0].is_name and (rest[0].is_simple_name or rest[0].kind == "quoted")
    return frozenset(rest[0].parts) if is_name else None


def _behind(shape: Shape | None, alias: frozenset[str]) -> Shape | None:
    """Return what a query reads through another one."""
    if not isinstance(shape, Rows):
        return shape
    is_scope = len(shape.guards) == 1 and shape.columns is None
    return _hiding(replace(shape, scope=shape.guards[0] if is_scope else shape.scope), alias | _PSEUDO_COLUMNS)


def _hiding(rows: Rows, alias: frozenset[str]) -> Rows:
    return replace(rows, hidden=rows.hidden | alias | {rows.relation[-1].parts[-1]})


def _filtered(source: Rows, condition: Pieces) -> Rows | None:
    if source.columns is None:
        is_clear = is_condition(condition) and not mentions(condition, source.hidden)
        guard = condition if is_clear else None
    else:
        guard = substituted(condition, source.columns)
    return None if guard is None else replace(source, guards=(*source.guards, guard))


def _projected(source: Rows, chosen: Pieces) -> Rows | None:
    """Return the rows with the columns of a list."""
    if words_of(chosen) == ["*"]:
        return source
    columns: dict[str, Pieces] = {}
    unread = source.unread
    names: list[str] = []
    for item in split(chosen):
        expression, name = _named(item)
        meant = _meant(expression, source)
        if meant is None:
            return None
        unread = (*unread, meant)
        if name:
            columns[name] = meant
            names.append(name)
    return replace(source, columns=columns, unread=unread) if len(names) == len(columns) else None


def _grouped(source: Rows, chosen: Pieces, group: Pieces, having: Pieces) -> Shape | None:
    """Return the groups of some rows, or those with more than one row."""
    if source.is_collapsed or group[0].word != "by" or (having and words_of(having) != _TWICE):
        return None
    written = split(group[1:])
    keys = [_meant(key, source) if any(piece.is_name for piece in key) else None for key in written]
    columns: dict[str, Pieces] = {}
    for item in split(chosen):
        expression, name = _named(item)
        at = next((n for n, key in enumerate(written) if same(expression, key)), None)
        if at is None and words_of(expression) != _COUNT:
            return None
        # A database may group by the alias of another expression instead.
        others = [key for n, key in enumerate(written) if n != at or words_of(key) != [name]]
        if name and (name in columns or any(mentions(key, frozenset({name})) for key in others)):
            return None
        meant = keys[at] if at is not None else None
        if name and meant is not None:
            columns[name] = meant
    found = tuple(key for key in keys if key is not None)
    if len(found) < len(keys):
        return None
    if having:
        return Duplicates(source, found)
    return replace(source, columns=columns, is_collapsed=True, unread=(*source.unread, *found))


def _meant(expression: Pieces, source: Rows) -> Pieces | None:
    """Return an expression in terms of the relation's own columns."""
    if source.columns is not None:
        is_column = len(expression) == 1 and expression[0].is_simple_name
        if is_column:
            return source.columns.get(expression[0].word)
        return expression if len(expression) == 1 and (expression[0].is_number or expression[0].is_string) else None
    return expression if is_of_one_row(expression) and not mentions(expression, source.hidden) else None


def _named(item: Pieces) -> tuple[Pieces, str]:
    """Return the expression of an item of a list, and the name of its column, if it can be referred to without quotes.

    The expression is empty where it is not clear.
    """
    if len(item) > 2 and item[-2].word == "as" and item[-2].depth == item[0].depth:  # noqa: PLR2004 (x as y)
        return item[:-2], item[-1].word if item[-1].is_simple_name else ""
    if len(item) == 1:
        return item, item[0].word if item[0].is_simple_name else ""
    is_clear = bool(item) and (_size_of_path(item) == len(item) or item[-1].text == ")" or item[-1].word == "end")
    return (item if is_clear else item[:0]), ""


def _new_names(chosen: Pieces) -> frozenset[str]:
    """Return the names in a list that are not names of columns that it reads."""
    named = [(expression, name) for expression, name in map(_named, split(chosen)) if name]
    return frozenset(name for expression, name in named if words_of(expression) != [name])


def _is_one_of(names: set[str], item: Pieces) -> bool:
    expression, _ = _named(item)
    return len(expression) == 1 and expression[0].word in names
