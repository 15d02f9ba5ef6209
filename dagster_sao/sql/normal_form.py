"""One spelling for all SQL texts that differ only in comments, white space, case and redundant parentheses.

Two texts get the same normal form when they have the same tokens but for parentheses, and the same syntax tree but for
parentheses. Comparing trees alone would be unsound: sqlglot reads some functions of different meaning as one.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator

import sqlglot
from sqlglot import exp
from sqlglot.dialects.dialect import Dialect, NormalizationStrategy
from sqlglot.errors import SqlglotError
from sqlglot.tokens import Token, TokenType  # type: ignore[attr-defined]  # re-exported from a compiled module

from dagster_sao.sql.dialects import sqlglot_dialect
from dagster_sao.sql.template import Tag, Template, split_template

# Warns of SQL that it keeps as text, which is what is wanted here.
logging.getLogger("sqlglot").setLevel(logging.ERROR)

PLACEHOLDER = "jinja"
"""How the names begin that stand for Jinja tags."""
_PARENTHESES = frozenset({TokenType.L_PAREN, TokenType.R_PAREN})
_STRINGS = frozenset(kind for kind in TokenType if kind.name.endswith("STRING"))
# What makes columns of a query from the columns, or the rows, of what it reads.
_STARS = (exp.Star, exp.Columns, exp.Pivot)
_BEFORE_A_PART = frozenset({TokenType.DOT, TokenType.COLON})
# Unquoted table names keep their case there, whatever the dialect says of columns.
_CASE_SENSITIVE_DIALECTS = frozenset({"bigquery"})
# Keys in a path such as `a:Key` keep their case there.
_CASE_SENSITIVE_PATHS = frozenset({"snowflake"})


def normal_form(template: str, dialect: str) -> str:
    """Return a digest that is equal for templates that differ only in what does not count.

    Never fails: what cannot be parsed is compared by its tokens, what has no tokens by its text.
    """
    pieces = split_template(template)
    if pieces is None:
        return _digest("text", _strip_lines(template))
    tags = [tag.text for tag in pieces.tags]
    sql = with_placeholders(pieces)
    tokens = _tokens(sql, dialect)
    if tokens is None:
        return _digest("text", *tags, _strip_lines(sql))
    # Within control flow the text is not one query, so its tree would say nothing.
    tree = None if pieces.has_control_flow else _tree(sql, dialect)
    if tree is None:
        return _digest("tokens", *tags, *_spellings(tokens, dialect))
    without = [token for token in tokens if token.token_type not in _PARENTHESES]
    return _digest("tree", *tags, *_spellings(without, dialect), "tree", *tree)


def macro_form(template: str) -> str:
    """Return a digest of a macro's body without its Jinja comments and trailing white space.

    A macro may print into a string literal, so white space within a line counts.
    """
    pieces = split_template(template)
    if pieces is None:
        return _digest("text", _strip_lines(template))
    return _digest("macro", *(p.text if isinstance(p, Tag) else _strip_lines(p) for p in pieces.pieces))


def may_select_star(template: str, dialect: str) -> bool:
    """Return whether the columns of a query may follow from its parents' columns.

    True for `select *`, and for what cannot be told: control flow, macros that print columns, unparsable SQL.
    """
    pieces = split_template(template)
    if pieces is None or pieces.has_control_flow:
        return True
    if any(tag.prints and tag.name not in {"ref", "source", "var", "env_var", "this"} for tag in pieces.tags):
        return True
    try:
        trees = sqlglot.parse(with_placeholders(pieces), dialect=sqlglot_dialect(dialect))
    except (SqlglotError, RecursionError):
        return True
    return any(_follows_parents(found) for tree in trees if tree is not None for found in tree.find_all(*_STARS))


def _follows_parents(star: exp.Expression) -> bool:
    return not (isinstance(star, exp.Star) and isinstance(star.parent, exp.Count))


def with_placeholders(template: Template) -> str:
    """Return a template's SQL, with a name in place of each tag that may print something."""
    parts = []
    count = 0
    for piece in template.pieces:
        if isinstance(piece, str):
            parts.append(piece)
        elif not piece.is_config and piece.prints:
            # A name fits wherever an expression, a relation or a part of a name may stand.
            parts.append(f" {PLACEHOLDER}{count}_ " if piece.is_statement else f"{PLACEHOLDER}{count}_")
            count += 1
    return "".join(parts)


def _tokens(sql: str, dialect: str) -> list[Token] | None:
    try:
        tokens = Dialect.get_or_raise(sqlglot_dialect(dialect)).tokenize(sql)
    except SqlglotError:
        return None
    while tokens and tokens[-1].token_type is TokenType.SEMICOLON:
        tokens.pop()
    return tokens


def _spellings(tokens: list[Token], dialect: str) -> Iterator[str]:
    strategy = Dialect.get_or_raise(sqlglot_dialect(dialect)).normalization_strategy
    keep_case = (
        dialect in _CASE_SENSITIVE_DIALECTS
        or strategy is NormalizationStrategy.CASE_SENSITIVE
        or (dialect in _CASE_SENSITIVE_PATHS and any(token.token_type is TokenType.COLON for token in tokens))
    )
    before: TokenType | None = None
    for token in tokens:
        kind = token.token_type
        is_name = kind is TokenType.VAR or before in _BEFORE_A_PART
        verbatim = kind is TokenType.IDENTIFIER or kind in _STRINGS or (keep_case and is_name)
        yield f"{kind.name}:{token.text if verbatim else token.text.upper()}"
        before = kind


def _tree(sql: str, dialect: str) -> list[str] | None:
    """Return the shape of the syntax tree, parentheses left out, or None when there is none."""
    try:
        trees = sqlglot.parse(sql, dialect=sqlglot_dialect(dialect))
        return [line for tree in trees if tree is not None for line in _shape(tree)]
    except (SqlglotError, RecursionError):
        return None


def _shape(tree: exp.Expr) -> Iterator[str]:
    depths: dict[int, tuple[int, str | None]] = {}
    for node in tree.walk(bfs=False):
        parent_depth, wrapped_key = depths.get(id(node.parent), (-1, None))
        if _is_redundant(node.parent):
            depth, key = parent_depth, wrapped_key
        else:
            depth, key = parent_depth + 1, node.arg_key
        depths[id(node)] = depth, key
        if not _is_redundant(node):
            yield f"{depth} {key} {type(node).__name__}"


def _is_redundant(node: exp.Expr | None) -> bool:
    # `is (null)`, which sqlglot reads as `is null`, is an error in most databases.
    return isinstance(node, exp.Paren) and not (isinstance(node.parent, exp.Is) and node.arg_key == "expression")


def _strip_lines(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def _digest(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=10).hexdigest()
