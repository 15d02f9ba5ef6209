"""Accepts one query and nothing else: checks a text from a project file before it is sent to the warehouse."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence

import sqlglot
from sqlglot import TokenType, exp
from sqlglot.tokens import Token  # type: ignore[attr-defined]  # it is defined elsewhere in each version

from dagster_sao.core.errors import DagsterSaoError
from dagster_sao.sql.dialects import DUCKDB, quotes_with_backticks

_OPENINGS = frozenset({TokenType.SELECT, TokenType.WITH, TokenType.VALUES, TokenType.FROM, TokenType.L_PAREN})
# PostgreSQL runs `WITH x AS (DELETE …) SELECT …`: a query on the outside only.
_WRITES = (exp.DML, exp.DDL, exp.Command, exp.Drop, exp.Alter, exp.TruncateTable, exp.Into, exp.Copy, exp.Merge)
_WRITING_WORDS = frozenset(
    {
        TokenType.ALTER,
        TokenType.COPY,
        TokenType.CREATE,
        TokenType.DELETE,
        TokenType.DROP,
        TokenType.INSERT,
        TokenType.MERGE,
        TokenType.TRUNCATE,
        TokenType.UPDATE,
    }
)
# Functions that do more than read, though a SELECT calls them: they write files, end sessions, move sequences, take locks
# that outlive the statement, run SQL from a text, or connect elsewhere. The list is not complete: the session is read only too.
_SIDE_EFFECTS = re.compile(
    r"nextval|setval|set_config|txid_current|pg_current_xact_id|pg_notify"
    r"|pg_(terminate|cancel)_backend|pg_reload_conf|pg_rotate_logfile\w*|pg_(try_)?advisory\w*"
    r"|pg_(read|ls|stat|file|logdir)_\w+|pg_create_\w+|pg_drop_\w+|pg_copy_\w+|pg_promote|pg_switch_\w+|pg_wal_replay_\w+"
    r"|pg_(start|stop)_backup|pg_backup_(start|stop)|pg_logical_\w+|pg_replication_\w+|pg_stat_reset\w*|pg_stat_statements_reset"
    r"|pg_export_snapshot|pg_import_\w+|pg_log_\w+|lo_\w+|lowrite|loread|dblink\w*|crosstab\w*|connectby"
    r"|(query|cursor)_to_xml\w*|ts_stat|ts_rewrite"
    r"|error|query|query_table|json_execute_serialized_sql|postgres_(execute|query)|mysql_(execute|query)|sqlite_attach|postgres_attach"
    r"|load_aws_credentials|write_log|enable_logging|system\$\w+|external_query|remote_query|java_method|reflect",
    re.IGNORECASE,
)
_DUCKDB_LOCK = threading.Lock()
# Control characters other than spaces, since a zero ends a text; and halves of characters, which no driver can send.
_UNSENDABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")


class NotAQueryError(DagsterSaoError):
    """The text is not a single query. The message says why, to follow the name of the setting."""


def single_query(sql: str, dialect: str | None = None) -> str:
    """Return `sql` without a closing semicolon, fit to stand in parentheses on lines of its own.

    A query that sqlglot cannot parse passes if it cannot leave its parentheses: the warehouse knows its own SQL better, and
    refuses any text that is not a query.

    Raises NotAQueryError for several statements, for one that writes and for one that calls a function known to do more
    than read.

    >>> single_query("select max(loaded_at) from orders; -- daily")
    'select max(loaded_at) from orders'
    """
    # `--` ends at a carriage return for PostgreSQL, and does not for sqlglot.
    body = _stays_inside(sql.replace("\r\n", "\n").replace("\r", "\n"), dialect)
    if dialect == DUCKDB:
        _refuse_what_duckdb_would_run(body)
    try:
        parsed = sqlglot.parse_one(body, dialect=dialect)
    except RecursionError:
        msg = "is nested too deeply to be checked. Write a simpler SELECT"
        raise NotAQueryError(msg) from None
    except Exception:  # noqa: BLE001  # what sqlglot cannot read, the warehouse may
        return body
    if not isinstance(parsed, (exp.Query, exp.Values)):
        raise NotAQueryError(_not_a_query(parsed.key))
    written = parsed.find(*_WRITES)
    if written is not None:
        raise NotAQueryError(_not_a_query(written.key))
    return body


def _refuse_what_duckdb_would_run(sql: str) -> None:
    """Raise NotAQueryError unless DuckDB's own parser finds exactly one SELECT."""
    import duckdb

    try:
        # It only parses: nothing is run on the module's own connection, which takes half a millisecond.
        with _DUCKDB_LOCK:
            found = [statement.type for statement in duckdb.extract_statements(sql)]
    except duckdb.Error:
        return  # DuckDB reports it when it runs the query, with its own error
    if len(found) != 1:
        raise NotAQueryError(_SEVERAL)
    if found[0] != duckdb.StatementType.SELECT:
        raise NotAQueryError(_not_a_query(found[0].name))


def _stays_inside(sql: str, dialect: str | None) -> str:
    if _UNSENDABLE.search(sql):
        msg = "holds a control character, or half of a character. Remove it"
        raise NotAQueryError(msg)
    try:
        tokens = sqlglot.tokenize(sql, dialect=dialect)
    except Exception:  # noqa: BLE001  # whatever sqlglot makes of it
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
            raise NotAQueryError(_SEVERAL)
        if depth < 0:
            break
    if depth != 0:
        msg = "has a parenthesis without its partner. Correct its SQL"
        raise NotAQueryError(msg)
    if tokens[0].token_type not in _OPENINGS:
        raise NotAQueryError(_not_a_query(tokens[0].text))
    if ";" in sql and _may_end_a_statement(sql, dialect):
        raise NotAQueryError(_SEVERAL)
    _refuse_side_effects(sql, tokens)
    return sql.rstrip()


_SEVERAL = "holds several statements. Write one SELECT that returns one timestamp"
# Every SQL dialect agrees on a text in quotes without a backslash, and on a comment without another in it.
_PLAIN = re.compile(r"'(?:[^'\\]|'')*'|\"(?:[^\"\\]|\"\")*\"|--[^\n]*|/\*(?:(?!\*/|/\*).)*\*/", re.DOTALL)


def _may_end_a_statement(sql: str, dialect: str | None = None) -> bool:
    r"""Return whether a semicolon stands where the warehouse's own lexer could see the end of a statement.

    sqlglot's lexer is not the warehouse's: `$`, a backslash and a nested comment may open or close a text for one of them alone.

    >>> [
    ...     _may_end_a_statement(sql)
    ...     for sql in ("select ';'", "select 1 -- a;b", "select a$$ ; select $$", "select '\\\\' ; '")
    ... ]
    [False, False, True, True]
    """
    if quotes_with_backticks(dialect):
        sql = re.sub(r"`[^`\\]*`", "x", sql)
    at, outside = 0, []
    for plain in _PLAIN.finditer(sql):
        outside.append(sql[at : plain.start()])
        at = plain.end()
    left = "".join([*outside, sql[at:]])
    return ";" in left or any(sign in left for sign in ("$", "\\", "`", "'", '"', "/*", "*/", "#"))


def _refuse_side_effects(sql: str, tokens: Sequence[Token]) -> None:
    """Raise NotAQueryError for what a SELECT can do beside reading. Uses tokens only: sqlglot may not understand the query."""
    for token, following in zip(tokens, [*tokens[1:], None], strict=True):
        is_call = following is not None and following.token_type is TokenType.L_PAREN
        if token.token_type is TokenType.L_PAREN and following and following.token_type in _WRITING_WORDS:
            raise NotAQueryError(_not_a_query(following.text))
        is_sequence = token.text.lower() == "nextval" and token.token_type is not TokenType.STRING
        if is_sequence or (is_call and _SIDE_EFFECTS.fullmatch(token.text)):
            msg = f"calls {token.text}, which does more than read. Write one SELECT without it"
            raise NotAQueryError(msg)
    if re.search(r"\bU&\s*[\"']", sql, re.IGNORECASE):
        msg = 'spells a name or text with U&"…", which cannot be checked. Write it as it is'
        raise NotAQueryError(msg)


def _not_a_query(what: str) -> str:
    article = "an" if what[:1].upper() in "AEIOU" else "a"
    return f"is {article} {what.upper()} statement and is never run. Write one SELECT that returns one timestamp"
