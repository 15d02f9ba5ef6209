"""Accept one query and nothing else, before a text from a project file is sent to the warehouse."""

from __future__ import annotations

import sqlglot
from sqlglot import TokenType, exp

from dagster_sao.core.errors import DagsterSaoError

# Where the adapter's name is not the dialect's.
_DIALECTS = {
    "sqlserver": "tsql",
    "fabric": "tsql",
    "synapse": "tsql",
    "fabricspark": "spark",
    "glue": "spark",
    "dremio": "dremio",
    "motherduck": "duckdb",
    "vertica": "postgres",
    "greenplum": "postgres",
}
_OPENINGS = frozenset({TokenType.SELECT, TokenType.WITH, TokenType.VALUES, TokenType.FROM, TokenType.L_PAREN})
# PostgreSQL runs `WITH x AS (DELETE …) SELECT …`: a query on the outside only.
_WRITES = (exp.DML, exp.DDL, exp.Command, exp.Drop, exp.Alter, exp.TruncateTable, exp.Into, exp.Copy, exp.Merge)


class NotAQueryError(DagsterSaoError):
    """The text is no single query. The message says why, to follow the name of the setting."""


def dialect_of(adapter_type: str) -> str | None:
    """Return sqlglot's dialect of a dbt adapter, or None to read it as generic SQL.

    >>> dialect_of("sqlserver"), dialect_of("duckdb"), dialect_of("unheard_of")
    ('tsql', 'duckdb', None)
    """
    name = _DIALECTS.get(adapter_type, adapter_type)
    # Not through `Dialect.classes`, which imports every dialect.
    return name if _loads(name) else None


def single_query(sql: str, dialect: str | None = None) -> str:
    """Return `sql` without a closing semicolon, fit to stand in parentheses on lines of its own.

    A query that sqlglot cannot parse is let through when it cannot leave its parentheses: the warehouse,
    which knows its own SQL better, then refuses whatever is no query.

    Raises NotAQueryError for several statements and for one that writes.

    >>> single_query("select max(loaded_at) from orders; -- daily")
    'select max(loaded_at) from orders'
    """
    body = _stays_inside(sql, dialect)
    try:
        parsed = sqlglot.parse_one(body, dialect=dialect)
    except sqlglot.ParseError:
        return body
    if not isinstance(parsed, (exp.Query, exp.Values)):
        raise NotAQueryError(_not_a_query(parsed.key))
    written = parsed.find(*_WRITES)
    if written is not None:
        raise NotAQueryError(_not_a_query(written.key))
    return body


def _stays_inside(sql: str, dialect: str | None) -> str:
    try:
        tokens = sqlglot.tokenize(sql, dialect=dialect)
    except sqlglot.TokenError:
        msg = "cannot be read as SQL. Close its quotes, comments and parentheses"
        raise NotAQueryError(msg) from None
    while tokens and tokens[-1].token_type is TokenType.SEMICOLON:
        sql = sql[: tokens.pop().start]
    if not tokens:
        msg = "is empty. Write one SELECT that returns one timestamp"
        raise NotAQueryError(msg)
    depth = 0
    for token in tokens:
        depth += {TokenType.L_PAREN: 1, TokenType.R_PAREN: -1}.get(token.token_type, 0)
        if token.token_type is TokenType.SEMICOLON:
            msg = "holds several statements. Write one SELECT that returns one timestamp"
            raise NotAQueryError(msg)
        if depth < 0:
            break
    if depth != 0:
        msg = "has a parenthesis without its partner. Correct its SQL"
        raise NotAQueryError(msg)
    if tokens[0].token_type not in _OPENINGS:
        raise NotAQueryError(_not_a_query(tokens[0].text))
    return sql.rstrip()


def _not_a_query(what: str) -> str:
    return f"is a {what.upper()} statement and is never run. Write one SELECT that returns one timestamp"


def _loads(name: str) -> bool:
    try:
        sqlglot.Dialect.get_or_raise(name)
    except ValueError:
        return False
    return True
