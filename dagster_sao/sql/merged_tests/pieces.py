"""Cut the compiled SQL of a test into pieces that can be put together again without a change of meaning.

Comments are left out, so that none can swallow the text after it. A text is not cut at all if it has a comment or a character
that databases read in different ways.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from dagster_sao.sql.lexer import FLOW, OPAQUE, RELATION, Token, tokens_of
from dagster_sao.sql.lexicon import Lexicon

_CLOSING = {"(": ")", "[": "]"}
# Signs of Jinja that was not rendered. Braces are also literals of DuckDB, which no macro writes.
_NOT_COMPILED = re.compile(rf"[{{}};{RELATION}{FLOW}{OPAQUE}]")
_NUMBER = re.compile(r"\d+(?:\.\d*)?(?:[eE]\d+)?|\.\d+")
_BIND_TIGHTER = frozenset({"(", "+", "-", "*", "/", "%", "||"})
"""What may stand between the operands of an expression that binds tighter than any comparison, and before a bracket."""
_SIMPLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*")


@dataclass(frozen=True, slots=True)
class Piece:
    """One token, with the white space before it."""

    kind: str
    text: str
    gap: str
    depth: int
    """How many brackets are around it. A bracket is as deep as the text around it."""

    @property
    def word(self) -> str:
        """The text in lower case if it may be a keyword or an unquoted name, or else nothing."""
        return self.text.lower() if self.kind == "word" else ""

    @property
    def is_number(self) -> bool:
        """Whether it is a number."""
        return self.kind == "word" and _NUMBER.fullmatch(self.text) is not None

    @property
    def is_string(self) -> bool:
        """Whether it is a string in every dialect."""
        return self.text.startswith("'")

    @property
    def is_name(self) -> bool:
        """Whether it may be a name, or a part of one. Keywords are among them."""
        return (self.kind == "word" and not self.is_number) or (self.kind == "quoted" and not self.is_string)

    @property
    def is_simple_name(self) -> bool:
        """Whether it may be an unquoted name of one part."""
        return self.kind == "word" and _SIMPLE_NAME.fullmatch(self.text) is not None

    @property
    def parts(self) -> list[str]:
        """The parts of the name, without quotes and in lower case."""
        if not self.is_name:
            return []
        text = self.text.lower()
        return [part for part in text.split(".") if part] if self.kind == "word" else text[1:-1].split(".")


Pieces = Sequence[Piece]


def cut(sql: str, lexicon: Lexicon) -> Pieces | None:
    r"""Return the pieces of a query, None for one that is not understood.

    >>> from dagster_sao.sql.lexicon import DUCKDB
    >>> text_of(cut("select a -- never null\nfrom t", DUCKDB))
    'select a\nfrom t'
    """
    if _NOT_COMPILED.search(sql):
        return None
    tokens = tokens_of(sql, [], lexicon)
    pieces = None if tokens is None else list(_pieces(sql, tokens))
    return None if pieces is None or None in pieces else [piece for piece in pieces if piece is not None]


def text_of(pieces: Pieces) -> str:
    """Return the SQL of some pieces."""
    return "".join(piece.gap + piece.text for piece in pieces).lstrip()


def words_of(pieces: Pieces) -> list[str]:
    """Return the pieces as words to compare a shape with: keywords and unquoted names in lower case."""
    return [piece.word or piece.text for piece in pieces]


def same(one: Pieces, other: Pieces) -> bool:
    """Return whether two slices are written with the same tokens."""
    return [piece.text for piece in one] == [piece.text for piece in other]


def contains(pieces: Pieces, others: Pieces) -> bool:
    """Return whether some pieces stand next to each other in others.

    >>> from dagster_sao.sql.lexicon import DUCKDB
    >>> contains(cut("a is null", DUCKDB), cut("a", DUCKDB))
    True
    """
    size = len(others)
    return any(same(pieces[start : start + size], others) for start in range(len(pieces) - size + 1))


def find(pieces: Pieces, *words: str, start: int = 0) -> int | None:
    """Return where the first of some keywords stands outside all brackets."""
    outside = pieces[0].depth if pieces else 0
    return next((n for n in range(start, len(pieces)) if pieces[n].depth == outside and pieces[n].word in words), None)


def split(pieces: Pieces) -> list[Pieces]:
    """Return the slices between commas, brackets left whole."""
    found: list[Pieces] = []
    start = 0
    for index, piece in enumerate(pieces):
        if piece.text == "," and piece.depth == pieces[0].depth:
            found.append(pieces[start:index])
            start = index + 1
    return [*found, pieces[start:]]


def inside(pieces: Pieces) -> Pieces | None:
    """Return the pieces between two parentheses, None where these are not one pair with something in it."""
    if len(pieces) < 3 or pieces[0].text != "(" or pieces[-1].text != ")":  # noqa: PLR2004 (the pair and one more)
        return None
    outside = pieces[0].depth
    return pieces[1:-1] if all(piece.depth > outside for piece in pieces[1:-1]) else None


def binds_tighter(pieces: Pieces) -> bool:
    """Return whether an expression is one operand of any comparison after it: names, literals, calls and arithmetic.

    >>> from dagster_sao.sql.lexicon import DUCKDB
    >>> [binds_tighter(cut(sql, DUCKDB)) for sql in ("id", "lower(s) || t", "(a or b)", "not a", "a or b", "a > b")]
    [True, True, True, False, False, False]
    """
    outside = [piece for piece in pieces if piece.depth == pieces[0].depth]
    # No keyword stands alone between two operators.
    is_word = [piece.is_name or piece.is_number or piece.is_string or piece.text == ")" for piece in outside]
    return not any(map(all, pairwise(is_word))) and all(
        piece.word != "not" if found else piece.text in _BIND_TIGHTER
        for piece, found in zip(outside, is_word, strict=True)
    )


def _pieces(sql: str, tokens: Sequence[Token]) -> Iterator[Piece | None]:
    """Yield the pieces, and None for what is not understood."""
    closing: list[str] = []
    for index, token in enumerate(tokens):
        if token.is_end:
            break
        gap = sql[tokens[index - 1].end if index else 0 : token.start]
        if token.kind in {"line", "block"} or (gap.strip() and index and not _is_clear(tokens[index - 1], token)):
            yield None  # a hint, or a comment that changes how its neighbours are read
        if closing and token.text == closing[-1]:
            closing.pop()
        elif token.text in {")", "]"}:
            yield None
        yield Piece(token.kind, token.text, _without_comments(gap), len(closing))
        if token.kind == "bracket" and token.text in _CLOSING:
            closing.append(_CLOSING[token.text])
    if closing:
        yield None


def _is_clear(before: Token, after: Token) -> bool:
    """Return whether white space may take the place of a comment between two tokens."""
    return not (before.kind == after.kind == "quoted") and not (
        before.kind == "other" and after.gap.starts_with_comment
    )


def _without_comments(gap: str) -> str:
    if not gap.strip():
        return gap
    return "\n" if "\n" in gap else " "
