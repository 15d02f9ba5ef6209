"""Spell the tokens of a SQL text with only what counts: no comments, no white space without meaning, one case."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from dagster_sao.sql.lexer import Token
from dagster_sao.sql.lexicon import Lexicon

_LOWER = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")
# Two strings with a line break between them are one string. A tag may print either of them.
_MAY_END_IN_STRINGS = frozenset({"quoted", "flow", "opaque", "line", "block"})


def spellings(tokens: Sequence[Token], lexicon: Lexicon) -> Iterator[str]:
    """Yield the tokens and the gaps that count between them, without semicolons at the end."""
    last = len(tokens)
    while last and (tokens[last - 1].is_end or tokens[last - 1].text == ";"):
        last -= 1
    tokens = tokens[:last]
    folds_names = lexicon.folds_names and not _has_paths(tokens, lexicon)
    keywords = _Keywords(tokens, lexicon)
    for index, token in enumerate(tokens):
        if index:
            yield from _gap(tokens[index - 1], token, lexicon)
        if token.kind == "opaque":
            yield "\n" + token.text
        elif token.kind == "word" and (folds_names or keywords.has(index)):
            yield token.text.translate(_LOWER)
        else:
            yield token.text


def _gap(before: Token, token: Token, lexicon: Lexicon) -> Iterator[str]:
    if {before.kind, token.kind} <= _MAY_END_IN_STRINGS:
        yield token.gap.text
    elif before.kind == "other" and token.gap.starts_with_comment:
        # DuckDB reads `::/**/` as one operator, and an error.
        yield "/*"
    elif not token.gap.is_empty and not _is_free(before, token, lexicon):
        yield " "


def _is_free(one: Token, other: Token, lexicon: Lexicon) -> bool:
    """Return whether white space between two tokens changes nothing."""
    if any(
        token.kind == "opaque" or (token.kind == "bracket" and token.text in lexicon.brackets) for token in (one, other)
    ):
        return True
    operators = sum(token.kind == "other" and token.text in lexicon.operators for token in (one, other))
    names = sum(token.kind in {"word", "quoted"} for token in (one, other))
    return operators == names == 1


def _has_paths(tokens: Sequence[Token], lexicon: Lexicon) -> bool:
    has_mark = any(
        character in token.text
        for token in tokens
        if token.kind in {"other", "opaque"} and token.text != "::"
        for character in lexicon.paths
    )
    # A path may go on after an index: `items[0].Price`.
    return has_mark or any(
        one.text in {"]", ")"} and other.kind == "word" and other.text.startswith(".")
        for one, other in pairwise(tokens)
    )


class _Keywords:
    """Which words are surely keywords, and not names, whose case the database may show."""

    def __init__(self, tokens: Sequence[Token], lexicon: Lexicon) -> None:
        self._tokens = tokens
        self._lexicon = lexicon
        # A token beside one block may be printed next to a token beside another.
        pairs = [(one, other) for one, other in pairwise(tokens) if "flow" in {one.kind, other.kind}]
        self._may_follow_flow = all(self._may_follow(one) for one, _ in pairs if one.kind != "flow")
        self._may_precede_flow = all(self._may_precede(other) for _, other in pairs if other.kind != "flow")

    def has(self, index: int) -> bool:
        """Return whether the word at `index` is one."""
        token, lexicon = self._tokens[index], self._lexicon
        before = self._tokens[index - 1] if index else None
        after = self._tokens[index + 1] if index + 1 < len(self._tokens) else None
        word = token.text.translate(_LOWER)
        is_one = word in lexicon.keywords or (
            bool(lexicon.keywords) and _is_keyword_by_place(word, before, after, lexicon)
        )
        if not is_one or _touches(before, token) or (after is not None and _touches(token, after)):
            return False
        follows = self._may_follow_flow if before and before.kind == "flow" else self._may_follow(before)
        precedes = self._may_precede_flow if after and after.kind == "flow" else self._may_precede(after)
        return follows and precedes

    def _may_follow(self, before: Token | None) -> bool:
        if before is None or before.kind in {"bracket", "quoted"}:
            return True
        if before.kind == "other":
            return before.text in self._lexicon.operators and before.text != "::"
        return before.kind == "word" and before.text.translate(_LOWER) != "as" and not before.text.endswith(".")

    def _may_precede(self, after: Token | None) -> bool:
        if after is None or after.kind in {"bracket", "quoted"}:
            return True
        if after.kind == "other":
            return after.text in self._lexicon.operators and after.text != "=>"
        return after.kind == "word" and not after.text.startswith(".")


def _touches(one: Token | None, other: Token) -> bool:
    """Return whether two tokens may be one name or string, such as `e'…'`."""
    return one is not None and other.gap.is_empty and {one.kind, other.kind} <= {"word", "quoted", "flow", "opaque"}


def _is_keyword_by_place(word: str, before: Token | None, after: Token | None, lexicon: Lexicon) -> bool:
    """Return whether a word that is not reserved is in a place where no name can be."""
    if before is None or after is None:
        return False
    match word:
        case "exists":
            return after.text == "("
        case "over":
            return before.text == ")" and after.text == "("
        case "partition":
            return before.text == "(" and after.text.translate(_LOWER) == "by"
        case "between":
            is_name = before.kind == "word" and before.text.translate(_LOWER) not in lexicon.keywords
            return (is_name or before.kind == "quoted" or before.text in {")", "]"}) and after.kind != "bracket"
    return False
