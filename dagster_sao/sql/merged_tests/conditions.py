"""Which conditions and expressions of a test can stand in another query, with the same meaning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace
from itertools import pairwise

from dagster_sao.sql.merged_tests.pieces import Piece, Pieces

# Keywords that can follow a condition. Each changes which rows there are.
_CLAUSES = frozenset(
    [
        "union", "intersect", "except", "minus", "order", "limit", "offset", "fetch", "qualify", "window", "join",
        "having", "group", "where", "into", "for", "sample", "tablesample", "option", "settings", "cluster",
        "distribute", "sort", "lateral", "connect", "start", "using", "pivot", "unpivot", "with",
    ]
)  # fmt: skip
# A function over several rows or columns, and what begins a query: anywhere, or after a parenthesis. A query within a condition may run
# once for each row when it stands in a list, and not all databases allow it there.
_SEVERAL_ROWS = frozenset({"select", "over", "unnest", "columns"})
_QUERIES = frozenset({"from", "table", "values", "with"})
# Functions of one row, in every dialect. A call of any other may be an aggregate, or return several rows.
_SCALAR_CALLS = frozenset(
    [
        "abs", "cast", "ceil", "ceiling", "char_length", "coalesce", "concat", "date", "date_part", "date_trunc",
        "extract", "floor", "greatest", "ifnull", "initcap", "instr", "least", "left", "len", "length", "lower",
        "lpad", "ltrim", "md5", "mod", "nullif", "nvl", "regexp_contains", "regexp_count",
        "regexp_extract", "regexp_instr", "regexp_like", "regexp_replace", "replace", "right", "round", "rpad",
        "rtrim", "safe_cast", "split_part", "strpos", "substr", "substring", "trim", "trunc", "try_cast", "upper",
    ]
)  # fmt: skip
# Words that may stand before a parenthesis and call nothing: operators, and types with a length.
_NOT_CALLS = frozenset(
    [
        "and", "or", "not", "in", "is", "between", "like", "ilike", "case", "when", "then", "else", "as", "char",
        "character", "decimal", "numeric", "number", "nvarchar", "string", "varchar",
    ]
)  # fmt: skip
# Words in a select list that change the number of its rows or columns.
_NOT_OF_ONE_ROW = frozenset({"distinct", "all", "top", "exclude", "except", "rename"})
# Everything that a condition over the columns of a query may contain besides the columns.
_CONDITION_WORDS = frozenset({"not", "in", "is", "null", "true", "false", "and", "or", "between", "like", "ilike"})
_LITERAL_TYPES = frozenset({"date", "timestamp"})
_OPERATORS = frozenset({"+", "-", "*", "/", "%", "<", ">", "=", "<=", ">=", "<>", "!=", "||"})


def is_condition(pieces: Pieces) -> bool:
    """Return whether this is one expression on single rows, without a clause after it or a query in it."""
    outside = pieces[0].depth
    for before, piece in _with_neighbours(pieces):
        word, is_outside = piece.word, piece.depth == outside
        if word in _SEVERAL_ROWS or (is_outside and word in _CLAUSES) or (is_outside and piece.text == ","):
            return False
        if word in _QUERIES and (before.text == "(" or (is_outside and before.word != "distinct")):
            return False
    return True


def is_of_one_row(pieces: Pieces) -> bool:
    """Return whether an expression has one value for each row: no aggregate, no function that returns rows."""
    if not pieces or not is_condition(pieces) or any(piece.text == "*" for piece in (pieces[0], pieces[-1])):
        return False
    if any(piece.word in _NOT_OF_ONE_ROW for piece in pieces):
        return False
    return not any(after.text == "(" and _is_call(before) for before, after in pairwise(pieces))


def mentions(pieces: Pieces, names: AbstractSet[str]) -> bool:
    """Return whether a text contains one of some names, whatever it means there."""
    return any(part in names for piece in pieces for part in piece.parts)


def substituted(pieces: Pieces, columns: Mapping[str, Pieces]) -> Pieces | None:
    """Return a condition on the columns of a query, rewritten for the columns that the query reads."""
    found: list[Piece] = []
    for piece, after in pairwise((*pieces, pieces[-1])):
        if piece.is_simple_name and piece.word in columns:
            if after.text == "(":
                return None
            found += _in_brackets(columns[piece.word], piece)
        elif (
            piece.is_string or piece.is_number or _is_plain(piece) or (piece.word in _LITERAL_TYPES and after.is_string)
        ):
            found.append(piece)
        else:
            return None
    return found


def _is_call(before: Piece) -> bool:
    """Return whether a parenthesis after a piece holds the arguments of a function that is not known."""
    return before.is_name and before.word not in _SCALAR_CALLS and before.word not in _NOT_CALLS


def _is_plain(piece: Piece) -> bool:
    if piece.kind == "other":
        return piece.text in _OPERATORS
    return piece.text in {"(", ")", ","} or piece.word in _CONDITION_WORDS


def _in_brackets(expression: Pieces, instead_of: Piece) -> Iterator[Piece]:
    first = replace(expression[0], gap=instead_of.gap)
    if len(expression) == 1:
        yield first
        return
    yield replace(instead_of, kind="bracket", text="(")
    yield replace(expression[0], gap="")
    yield from expression[1:]
    yield Piece("bracket", ")", "", instead_of.depth)


def _with_neighbours(pieces: Pieces) -> Iterator[tuple[Piece, Piece]]:
    """Yield each piece after the one before it."""
    return pairwise((Piece("start", "", "", -1), *pieces))
