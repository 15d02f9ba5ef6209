"""The relations that a query reads, and whether it always gives the same rows over the same data, from its syntax tree.

Both are claims, so they are made only about SQL that is understood.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import sqlglot
from sqlglot import exp
from sqlglot.dialects.dialect import Dialect
from sqlglot.errors import SqlglotError

from dagster_sao.sql.dialects import sqlglot_dialect
from dagster_sao.sql.normal_form import PLACEHOLDER, with_placeholders
from dagster_sao.sql.template import split_template

# Functions, by sqlglot's class, that depend on more than their arguments: on the time, the session, chance, a file, or the
# order in which the engine happens to read rows.
_UNPROVEN = re.compile(
    r"(AI|AnyValue|Approx|ArgM|Array\w*Agg|Current|Encrypt|First|GroupConcat|JSON\w*Agg|Lag|Last|Lead|Local|Mode|NextValue|Normal|NthValue"
    r"|Ntile|\w*ParameterizedAgg|Predict|Rand|Read|RowNumber|Sample|Shuffle|Seq|Session|System|UnixTimestamp|Uniform|UTC|Utc|Uuid|Zipf)"
)
# Functions that sqlglot has no class for, and that depend on their arguments alone.
_PROVEN = frozenset({"generate_series", "json_each", "jsonb_each", "regexp_split_to_table", "generate_subscripts"})
_NAME = r"""(?:"[^"]+"|`[^`]+`|\[[^\]]+\]|[\w$]+)"""
_READ_NAME = re.compile(rf"\b(?:from|join)\s+({_NAME}(?:\s*\.\s*{_NAME})*)(?!\s*\()", re.IGNORECASE)
_QUERY_NAME = re.compile(rf"({_NAME})\s+as\s+(?:not\s+materialized\s+|materialized\s+)?\(", re.IGNORECASE)
_NOT_A_NAME = frozenset({"select", "lateral", "unnest", "values"})
_ROUTINES = frozenset({"FUNCTION", "MACRO", "PROCEDURE"})
_UNKNOWN_EFFECTS = frozenset({"CALL", "COPY", "DO", "EXEC", "EXECUTE"})
_CLOCK_WORDS = frozenset({"allballs", "now", "today", "tomorrow", "yesterday"})
"""Texts that some databases read as a moment, with or without a cast."""
_OF_THE_DATABASE = frozenset(
    {
        "_rowid_", "cmax", "cmin", "ctid", "current_user", "localtime", "localtimestamp", "oid", "rowid", "rownum",
        "session_user", "sysdate", "systimestamp", "tableoid", "user", "xmax", "xmin",
    }
)  # fmt: skip
"""Names of columns that some database gives a value of its own: a place, a number, a moment, a user."""


@dataclass(frozen=True, slots=True)
class SqlReads:
    """The inputs of one compiled query."""

    relations: frozenset[str] = frozenset()
    """Relations by name in lower case, and files and table functions by their SQL."""
    is_deterministic: bool = False
    """Whether it is proven to give the same rows over the same data."""


def read_compiled(sql: str, dialect: str) -> SqlReads:
    """Return what a compiled query reads.

    >>> sorted(read_compiled('with a as (select * from "db"."raw"."x") select * from a, b', "duckdb").relations)
    ['b', 'db.raw.x']
    >>> read_compiled("select * from read_csv('x.csv')", "duckdb").is_deterministic
    False
    """
    try:
        trees = [tree for tree in sqlglot.parse(sql, dialect=sqlglot_dialect(dialect)) if tree is not None]
        relations = frozenset(name for tree in trees for name in _relations(tree, dialect))
    except (SqlglotError, RecursionError):
        return SqlReads(frozenset(_relations_in_text(sql)))
    is_query = len(trees) == 1 and isinstance(trees[0], exp.Query | exp.Values)
    return SqlReads(relations, is_query and _is_deterministic(trees[0]))


def read_statements(statements: Iterable[str], dialect: str) -> SqlReads:
    """Return what statements read that were run one after another, such as hooks, without what they write themselves.

    A statement whose effect is not known (`call p()`, the empty text for one that is not known itself) counts as an input.

    >>> sorted(
    ...     read_statements(
    ...         ["create temp table t as select * from a", "insert into m select * from t"], "duckdb"
    ...     ).relations
    ... )
    ['a']
    >>> read_statements(["grant select on m to reporter"], "postgres")
    SqlReads(relations=frozenset(), is_deterministic=True)
    """
    found: set[str] = set()
    written: set[str] = set()
    is_deterministic = True
    for sql in statements:
        try:
            trees = [tree for tree in sqlglot.parse(sql, dialect=sqlglot_dialect(dialect)) if tree is not None]
        except (SqlglotError, RecursionError):
            found.update(_relations_in_text(sql))
            is_deterministic = False
            continue
        for tree in trees or [exp.Command(this="")]:
            target = _target(tree)
            reads = set(_read_by(tree, target, sql, dialect))
            written.update(_name(target) for target in [target] if target is not None)
            found |= reads
            # A query that is run beside the model may call a function that writes.
            is_plain = target is None and not isinstance(tree, exp.Query)
            is_deterministic = is_deterministic and (not reads if is_plain else _is_deterministic(tree))
    return SqlReads(frozenset(found - written), is_deterministic)


def start_of(sql: str) -> str:
    """Return how a statement begins, up to its first literal, which may be a secret.

    >>> start_of("call load('orders', 'token')")
    'call load('
    """
    return " ".join(re.split("['\"$]", sql, maxsplit=1)[0].split())


def _kind_of_create(tree: exp.Expr) -> str:
    return str(tree.args.get("kind")).upper() if isinstance(tree, exp.Create) else ""


def _target(tree: exp.Expr) -> exp.Table | None:
    """Return the relation that a statement fills or changes, None if it is of another kind."""
    is_created = _kind_of_create(tree) in {"TABLE", "VIEW"}
    if not is_created and not isinstance(tree, exp.Insert | exp.Update | exp.Delete | exp.Merge):
        return None
    table = tree.this.this if isinstance(tree.this, exp.Schema) else tree.this
    return table if isinstance(table, exp.Table) else None


def _read_by(tree: exp.Expr, target: exp.Table | None, sql: str, dialect: str) -> Iterator[str]:
    if isinstance(tree, exp.Command):
        verb = str(tree.this).upper()
        if not verb or verb in _UNKNOWN_EFFECTS:
            yield f"a statement: {start_of(sql)}" if sql else "a statement that was not recorded"
        else:
            yield from _relations_in_text(sql)
    elif isinstance(tree, exp.Copy):
        if tree.args.get("kind"):  # from a file
            yield f"a statement: {start_of(sql)}"
    elif target is not None or isinstance(tree, exp.Query | exp.Set):
        yield from _relations(tree, dialect, without=target)
    elif _kind_of_create(tree) in _ROUTINES:  # what calls it reads what it reads
        yield from _relations(tree, dialect, without=tree.find(exp.Table))


def relations_in_template(template: str, dialect: str) -> frozenset[str]:
    """Return the relations and files that a template names in its own SQL; the output of its Jinja is ignored."""
    pieces = split_template(template)
    if pieces is None:
        return frozenset()
    sql = with_placeholders(pieces)
    found = _relations_in_text(sql) if pieces.has_control_flow else read_statements([sql], dialect).relations
    return frozenset(name for name in found if PLACEHOLDER not in name)


def relation_key(relation_name: str, dialect: str) -> str:
    """Return how `SqlReads.relations` names a relation that dbt writes as `relation_name`."""
    found = read_compiled(f"select * from {relation_name}", dialect).relations  # noqa: S608 (only parsed)
    return next(iter(found), relation_name.lower())


def _relations(tree: exp.Expr, dialect: str, *, without: exp.Table | None = None) -> Iterator[str]:
    for table in tree.find_all(exp.Table):
        if table is without:
            continue
        if not isinstance(table.this, exp.Identifier):
            if not _is_plain_function(table.this):
                yield table.this.sql(dialect=sqlglot_dialect(dialect)).lower()
        elif table.db or not _is_query(table.this, _visible_queries(table), dialect):
            yield _name(table)


def _name(table: exp.Table) -> str:
    return ".".join(part.name for part in table.parts).lower()


def _relations_in_text(sql: str) -> Iterator[str]:
    """Yield what follows `from` and `join` in SQL that cannot be parsed."""
    queries = {found.strip('"`[]').lower() for found in _QUERY_NAME.findall(sql)}
    for found in _READ_NAME.findall(sql):
        name = re.sub(r'["`\[\]\s]', "", found).lower()
        if name not in queries and name not in _NOT_A_NAME:
            yield name


def _is_query(name: exp.Identifier, queries: Iterable[exp.Identifier], dialect: str) -> bool:
    """Return whether a name stands for one of the common table expressions, as the dialect folds names.

    Two quoted names must be written alike.
    """
    fold = Dialect.get_or_raise(sqlglot_dialect(dialect)).normalize_identifier
    return any(
        name.name == query.name if name.quoted and query.quoted else fold(name.copy()).name == fold(query.copy()).name
        for query in queries
    )


def _visible_queries(table: exp.Table) -> list[exp.Identifier]:
    """Return the names of the common table expressions that a table's name may stand for where it is."""
    visible: list[exp.Identifier] = []
    inner: exp.Expr = table
    outer = table.parent
    while outer is not None:
        if isinstance(outer, exp.With):
            # In its own WITH clause, the ones before it, or all if the clause is recursive.
            before = outer.expressions if outer.recursive else outer.expressions[: outer.expressions.index(inner)]
            visible += map(_alias, before)
        else:
            with_clause = outer.args.get("with_") or outer.args.get("with")
            if isinstance(with_clause, exp.With) and with_clause is not inner:
                visible += map(_alias, with_clause.expressions)
        inner, outer = outer, outer.parent
    return visible


def _alias(query: exp.CTE) -> exp.Identifier:
    alias: exp.Identifier = query.args["alias"].this
    return alias


def _is_deterministic(tree: exp.Expr) -> bool:
    return not any(_is_unproven(node) for node in tree.walk())


def _is_unproven(node: exp.Expr) -> bool:
    if isinstance(node, exp.Array) and node.find(exp.Query) is not None:
        return True  # the order of its rows is open
    if isinstance(node, exp.Func):
        return not _is_plain_function(node)
    if isinstance(node, exp.Literal):
        return node.is_string and node.this.strip().lower() in _CLOCK_WORDS
    if isinstance(node, exp.Column):
        return node.name.lower() in _OF_THE_DATABASE
    if isinstance(node, exp.Distinct):
        return bool(node.args.get("on"))
    if isinstance(node, exp.WindowSpec):
        # Which rows are before another is open where the order leaves them equal.
        return str(node.args.get("kind")).upper() in {"ROWS", "GROUPS"}
    if isinstance(node, exp.Join):
        return node.method in {"ASOF", "POSITIONAL"}
    # Among rows that are equal in its order, a limit takes any.
    return isinstance(
        node,
        exp.Limit | exp.Fetch | exp.Offset | exp.TableSample | exp.Parameter | exp.SessionParameter | exp.Placeholder
        | exp.Command,
    )  # fmt: skip


def _is_plain_function(node: exp.Expr) -> bool:
    if isinstance(node, exp.Anonymous | exp.AnonymousAggFunc):
        return node.name.lower() in _PROVEN
    return isinstance(node, exp.Func) and not _UNPROVEN.match(type(node).__name__)
