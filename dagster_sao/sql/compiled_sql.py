"""The relations that a query reads, and whether it always gives the same rows over the same data, from its syntax tree.

Both are claims, so they are made only about SQL that is understood.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from operator import is_not

from sqlglot import exp
from sqlglot.dialects.dialect import Dialect

from dagster_sao.sql.dialects import parsed, peculiarities_of, sqlglot_dialect
from dagster_sao.sql.normal_form import PLACEHOLDER, with_placeholders
from dagster_sao.sql.template import split_template

# Functions, by sqlglot's class, that depend on more than their arguments: on the time, the session, chance, a file, or the
# order in which the engine happens to read rows.
_UNPROVEN = re.compile(
    r"(AI|AnyValue|Approx|ArgM|Array\w*Agg|Current|DynamicIdentifier|Encrypt|FeaturesAtTime|First|GapFill|Generate(Bool|Double|Embedding"
    r"|Int|Table|Text)|GroupConcat|JSON\w*Agg|Lag|Last|Lead|List|Local|MatchAgainst|ML|Mode|NextValue|Normal|NthValue|Ntile|ObjectId"
    r"|\w*ParameterizedAgg|Predict|Rand|Read|RowNumber|Sample|Secret|Shuffle|Seq|Session|Sys|ToFile|UnixTimestamp|Uniform|UTC|Utc|Uuid"
    r"|VectorSearch|Zipf)"
)
_OF_NOW = (exp.Date, exp.Datetime, exp.Time, exp.Timestamp)
"""Functions that some databases take for the clock where they have no argument."""
# The parts of a query and of a relation that are understood. Others choose rows by time, by place or by chance.
_SELECT_PARTS = frozenset(
    {
        "cluster", "connect", "distinct", "distribute", "exclude", "expressions", "from", "group", "having", "hint", "joins", "kind",
        "laterals", "limit", "offset", "operation_modifiers", "order", "pivots", "prewhere", "qualify", "sort", "where", "windows", "with",
    }
)  # fmt: skip
_TABLE_PARTS = frozenset(
    {"alias", "catalog", "db", "hints", "joins", "laterals", "only", "ordinality", "partition", "pivots", "this"}
)
_JOINS = frozenset({"", "ANTI", "ARRAY", "CROSS", "INNER", "NATURAL", "OUTER", "SEMI"})
# Functions that sqlglot has no class for, and that depend on their arguments alone.
_PROVEN = frozenset(
    {"generate_series", "generator", "json_each", "jsonb_each", "regexp_split_to_table", "generate_subscripts"}
)
_NAME = r"""(?:"[^"]+"|`[^`]+`|\[[^\]]+\]|[\w$]+)"""
_FULL_NAME = rf"{_NAME}(?:\s*\.\s*{_NAME})*"
_READ_NAME = re.compile(rf"\b(?:from|join)\s+({_FULL_NAME})(\s*\()?", re.IGNORECASE)
_NEXT_NAME = re.compile(rf"(?:\s+(?:as\s+)?({_NAME}))?\s*,\s*({_FULL_NAME})(\s*\()?", re.IGNORECASE)
_QUERY_NAME = re.compile(rf"({_NAME})\s+as\s+(?:not\s+materialized\s+|materialized\s+)?\(", re.IGNORECASE)
_NOT_A_NAME = frozenset({"select", "lateral", "table", "unnest", "values"})
_ROUTINES = frozenset({"FUNCTION", "MACRO", "PROCEDURE"})
_UNKNOWN_EFFECTS = frozenset({"CALL", "COPY", "DO", "EXEC", "EXECUTE"})
_CLOCK_WORD = re.compile(r"\s*([\d:.+-]+\s+)?(allballs|now|today|tomorrow|yesterday)(\s+[\w:.+/-]+)?\s*", re.IGNORECASE)
"""Texts that some databases read as a moment, with or without a cast, a time or a zone."""
_OF_THE_DATABASE = frozenset(
    {
        "_block_number", "_block_offset", "_part", "_part_index", "_part_offset", "_rowid_", "cmax", "cmin", "ctid", "current_user", "currval",
        "dbtimezone", "gp_segment_id", "localtime", "localtimestamp", "metadata$start_scan_time", "nextval", "oid", "ora_rowscn", "rowid",
        "rownum", "session_user", "sessiontimezone", "sysdate", "systimestamp", "tableoid", "user", "utc_date", "utc_time", "utc_timestamp",
        "xmax", "xmin",
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
    made: frozenset[str] = frozenset()
    """Relations that it creates itself."""


def read_compiled(sql: str, dialect: str) -> SqlReads:
    """Return what a compiled query reads.

    >>> sorted(read_compiled('with a as (select * from "db"."raw"."x") select * from a, b', "duckdb").relations)
    ['b', 'db.raw.x']
    >>> read_compiled("select * from read_csv('x.csv')", "duckdb").is_deterministic
    False
    """
    trees = parsed(sql, sqlglot_dialect(dialect))
    if trees is None:
        return SqlReads(frozenset(_relations_in_text(sql)))
    relations = frozenset(name for tree in trees for name in _relations(tree, dialect))
    is_query = len(trees) == 1 and isinstance(trees[0], exp.Query | exp.Values)
    return SqlReads(relations, is_query and _is_deterministic(trees[0], dialect))


def read_statements(statements: Iterable[str], dialect: str) -> SqlReads:
    """Return what statements read that were run one after another, such as hooks, without what they made before they read it.

    What they only write to may hold rows of others too. A statement whose effect is not known (`call p()`, the empty text for
    one that is not known itself) counts as an input.

    >>> sorted(
    ...     read_statements(
    ...         ["create temp table t as select * from a", "insert into m select * from t"], "duckdb"
    ...     ).relations
    ... )
    ['a']
    >>> sorted(
    ...     read_statements(
    ...         ["create table if not exists t (x int)", "insert into m select * from t"], "duckdb"
    ...     ).relations
    ... )
    ['t']
    >>> read_statements(["grant select on m to reporter"], "postgres")
    SqlReads(relations=frozenset(), is_deterministic=True, made=frozenset())
    """
    found: set[str] = set()
    made: set[str] = set()
    is_deterministic = True
    for sql in statements:
        trees = parsed(sql, sqlglot_dialect(dialect))
        if trees is None:
            found.update(set(_relations_in_text(sql)) - made)
            is_deterministic = False
            continue
        for tree in trees or [exp.Command(this="")]:
            target = _target(tree)
            reads = set(_read_by(tree, target, sql, dialect)) - made
            if target is not None and not isinstance(tree, exp.Create):
                reads.discard(_name(target))  # what it reads of the relation that it fills stays there
            elif target is not None and not tree.args.get("exists"):
                made.add(_name(target))
            found |= reads
            # A query that is run beside the model may call a function that writes.
            is_plain = target is None and not isinstance(tree, exp.Query)
            is_deterministic = is_deterministic and (not reads if is_plain else _is_deterministic(tree, dialect))
    return SqlReads(frozenset(found), is_deterministic, frozenset(made))


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
        if table is without or not table.args.get("this") or isinstance(table.parent, exp.UserDefinedFunction):
            continue
        if not isinstance(table.this, exp.Identifier | exp.Dot):
            yield from _computed(table.this, dialect)
        elif table.db or not _is_query(table, dialect):
            yield _name(table)
    for rows in tree.find_all(exp.TableFromRows):
        yield from _computed(rows.this, dialect)
    for test in tree.find_all(exp.In) if peculiarities_of(dialect).reads_in else ():
        name = test.args.get("field")
        if isinstance(name, exp.Column) and (name.table or not _is_query(name, dialect)):
            yield _name(name)


def _computed(relation: exp.Expr, dialect: str) -> Iterator[str]:
    """Yield what stands where the name of a relation could, unless it is a function of its arguments."""
    if not _is_plain_function(relation):
        yield relation.sql(dialect=sqlglot_dialect(dialect)).lower()


def _name(table: exp.Table | exp.Column) -> str:
    return ".".join(part.name for part in table.parts).lower()


def _relations_in_text(sql: str) -> Iterator[str]:
    """Yield what follows `from` and `join`, and commas there, in SQL that cannot be parsed."""
    queries = {found.strip('"`[]').lower() for found in _QUERY_NAME.findall(sql)}
    for found in _READ_NAME.finditer(sql):
        seen: list[str] = []
        read: re.Match[str] | None = found
        while read is not None:
            name, call = read.groups()[-2:]
            name = re.sub(r'["`\[\]\s]', "", name).lower()
            # `from t, t.items` reads no second relation.
            if name not in queries and name not in _NOT_A_NAME and name.partition(".")[0] not in seen:
                yield f"{name}(…)" if call else name
            seen.append(name.rpartition(".")[2])
            read = None if call else _NEXT_NAME.match(sql, read.end())
            if read is not None and read[1]:
                seen.append(read[1].strip('"`[]').lower())


def _is_query(table: exp.Expr, dialect: str) -> bool:
    """Return whether a name stands for one of the common table expressions, as the dialect folds names.

    Two quoted names must be written alike.
    """
    name = table.this
    fold = Dialect.get_or_raise(sqlglot_dialect(dialect)).normalize_identifier
    return any(
        name.name == query.name if name.quoted and query.quoted else fold(name.copy()).name == fold(query.copy()).name
        for query in _visible_queries(table)
    )


def _visible_queries(table: exp.Expr) -> list[exp.Identifier]:
    """Return the names of the common table expressions that a table's name may stand for where it is."""
    visible: list[exp.Identifier] = []
    inner: exp.Expr = table
    outer = table.parent
    while outer is not None:
        if isinstance(outer, exp.With):
            # In its own WITH clause, the ones before it, or all if the clause is recursive.
            before = outer.expressions if outer.recursive else takewhile(partial(is_not, inner), outer.expressions)
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


def _is_deterministic(tree: exp.Expr, dialect: str) -> bool:
    """Return whether all of a tree is understood, which takes a parser of the dialect."""
    return sqlglot_dialect(dialect) is not None and not any(_is_unproven(node, dialect) for node in tree.walk())


def _is_unproven(node: exp.Expr, dialect: str) -> bool:
    if isinstance(node, exp.Array | exp.List) and node.find(exp.Query) is not None:
        return True  # the order of its rows is open
    if isinstance(node, exp.Func):
        return not _is_plain_function(node) or isinstance(node, peculiarities_of(dialect).samples)
    if isinstance(node, exp.Literal):
        return node.is_string and _CLOCK_WORD.fullmatch(node.this) is not None
    if isinstance(node, exp.Column):
        return node.name.lower() in _OF_THE_DATABASE | peculiarities_of(dialect).own_columns
    if isinstance(node, exp.Distinct):
        return bool(node.args.get("on"))
    if isinstance(node, exp.WindowSpec):
        # Which rows are before another is open where the order leaves them equal.
        return str(node.args.get("kind")).upper() in {"ROWS", "GROUPS"}
    if isinstance(node, exp.Join):
        kinds = {str(node.kind).upper(), str(node.method).upper()}
        return not kinds <= _JOINS or ("SEMI" in kinds and peculiarities_of(dialect).semi_joins_any_row)
    if isinstance(node, exp.Select):
        return not _parts(node) <= _SELECT_PARTS or (peculiarities_of(dialect).takes_any_row and _takes_any_row(node))
    if isinstance(node, exp.Table):
        return not _parts(node) <= _TABLE_PARTS
    # Among rows that are equal in its order, a limit takes any.
    return isinstance(
        node,
        exp.Limit | exp.Fetch | exp.Offset | exp.TableSample | exp.Parameter | exp.SessionParameter | exp.Placeholder
        | exp.Command | exp.HistoricalData | exp.MatchRecognize | exp.Version,
    ) or (isinstance(node, exp.TableFromRows) and not isinstance(node.this, exp.Func | exp.Window))  # fmt: skip


def _parts(node: exp.Expr) -> set[str]:
    """Return the names of the parts of a tree that are there, as all releases of sqlglot spell them."""
    return {name.rstrip("_") for name, value in node.args.items() if value}


def _takes_any_row(select: exp.Select) -> bool:
    group = select.args.get("group")
    grouped = [_resolved(key, select) for key in group.expressions] if group else []

    def is_end(node: exp.Expr) -> bool:
        return node in grouped or isinstance(node, exp.AggFunc | exp.Query | exp.Window)

    reached = [node for item in select.expressions for node in item.walk(prune=is_end)]
    if group is None and not any(isinstance(node, exp.AggFunc) for node in reached):
        return False
    return any(isinstance(node, exp.Column | exp.Star) and node not in grouped for node in reached)


def _resolved(key: exp.Expr, select: exp.Select) -> exp.Expr:
    """Return what a key of GROUP BY stands for: a position, or the name of a column of the result."""
    if key.is_int and 0 < int(key.this) <= len(select.expressions):
        column: exp.Expr = select.expressions[int(key.this) - 1]
        return column.unalias()
    named = next((item for item in select.expressions if isinstance(item, exp.Alias) and item.alias == key.name), None)
    return named.unalias() if named is not None and isinstance(key, exp.Column) and not key.table else key


def _is_plain_function(node: exp.Expr) -> bool:
    if isinstance(node, exp.Anonymous | exp.AnonymousAggFunc):
        return node.name.lower() in _PROVEN
    if isinstance(node, _OF_NOW) and not any(node.args.values()):
        return False
    return isinstance(node, exp.Func) and not _UNPROVEN.match(type(node).__name__)
