"""One spelling for all SQL texts that differ only in comments, white space, case of keywords and trailing semicolons.

Two texts get the same normal form only if they have the same tokens. A Jinja tag is assumed to print anything, except that it
leaves no string or block comment open. It may end in a line comment, so its line counts as it is written, line break included.
Only `ref`, `source` and `this` are known to print a name.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet

from sqlglot import exp

from dagster_sao.sql.dialects import lexicon_of, parsed, sqlglot_dialect
from dagster_sao.sql.lexer import FLOW, OPAQUE, RELATION, Step, Token, is_closed, tokens_of
from dagster_sao.sql.lexicon import Lexicon
from dagster_sao.sql.spelling import spellings
from dagster_sao.sql.template import Tag, Template, split_template

# It warns of SQL that it keeps as text, which is fine here.
logging.getLogger("sqlglot").setLevel(logging.ERROR)

PLACEHOLDER = "jinja"
"""How the names begin that stand for Jinja tags."""

# These make columns from the columns, or the rows, of what a query reads.
_STARS = (exp.Star, exp.Columns, exp.Pivot)
# dbt renders only a text that has one of them; Jinja would change its line breaks.
_RENDERED = re.compile(r"{[{%#]|[#}%]}")
_FLOW = {
    **dict.fromkeys(("if", "for"), Step.OPEN),
    **dict.fromkeys(("elif", "else"), Step.MIDDLE),
    **dict.fromkeys(("endif", "endfor"), Step.CLOSE),
}
_JUMPS = frozenset({"break", "continue"})
_BINDINGS = frozenset({"set", "for", "with", "call", "import", "from", "macro"})


def normal_form(
    text: str, dialect: str, *, is_template: bool = True, overridden: AbstractSet[str] = frozenset()
) -> str:
    """Return a digest that is equal for texts that differ only in what does not count.

    Never fails: SQL that is not understood is compared as it is written. `is_template` is false for SQL that dbt has rendered.
    `overridden` are names that macros of the project have, so that `ref` may print anything.

    >>> normal_form("select a -- why", "duckdb") == normal_form("SELECT a;", "duckdb")
    True
    >>> normal_form("select (a + b) * c", "duckdb") == normal_form("select a + b * c", "duckdb")
    False
    """
    template = split_template(text) if is_template and _RENDERED.search(text) else Template((text,))
    if template is None:
        return _digest("text", text.strip())
    pieces = _without_config(template)
    lexicon = lexicon_of(dialect)
    form = _form(pieces, lexicon, overridden) if lexicon is not None else None
    return _digest("written", *map(_spelling, pieces)) if form is None else _digest("tokens", *form)


def macro_form(template: str) -> str:
    """Return a digest of a macro's body that leaves out Jinja comments, and white space within tags.

    A macro may print into a string or after the start of a comment, so everything that it prints counts.
    """
    pieces = split_template(template)
    if pieces is None:
        return _digest("text", template)
    return _digest("macro", *map(_spelling, _joined(pieces.pieces)))


def may_select_star(template: str, dialect: str) -> bool:
    """Return whether the columns of a query may follow from its parents' columns.

    True for `select *`, and where it is not known: control flow, macros that print columns, SQL that cannot be parsed.
    """
    pieces = split_template(template)
    if pieces is None or pieces.has_control_flow:
        return True
    if any(tag.prints and tag.name not in {"ref", "source", "var", "env_var", "this"} for tag in pieces.tags):
        return True
    trees = parsed(with_placeholders(pieces), sqlglot_dialect(dialect))
    return trees is None or any(_follows_parents(found) for tree in trees for found in tree.find_all(*_STARS))


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
            # A name can stand for an expression, a relation or a part of a name.
            parts.append(f" {PLACEHOLDER}{count}_ " if piece.is_statement else f"{PLACEHOLDER}{count}_")
            count += 1
    return "".join(parts)


def _without_config(template: Template) -> list[str | Tag]:
    """Return the pieces without `config(…)`, which prints nothing and whose effect dbt keeps apart from the code."""
    if "config" in _bound_names(template.pieces):
        return list(_joined(template.pieces))
    return list(_joined(piece for piece in template.pieces if isinstance(piece, str) or not piece.is_config))


def _joined(pieces: Iterable[str | Tag]) -> Iterator[str | Tag]:
    """Yield the pieces with neighbouring texts joined: a Jinja comment between them prints nothing."""
    text = ""
    for piece in pieces:
        if isinstance(piece, str):
            text += piece
            continue
        if text:
            yield text
        text = ""
        yield piece
    if text:
        yield text


def _spelling(piece: str | Tag) -> str:
    if isinstance(piece, str):
        return "text:" + piece
    return ("statement:" if piece.is_statement else "expression:") + piece.text


def _form(pieces: Sequence[str | Tag], lexicon: Lexicon, overridden: AbstractSet[str]) -> list[str] | None:
    """Return the content of a template that counts, None when it is not understood."""
    tags = [piece for piece in pieces if isinstance(piece, Tag)]
    if any(mark in piece for piece in pieces if isinstance(piece, str) for mark in (RELATION, FLOW, OPAQUE)):
        return None
    if not all(is_closed(value[1:-1], lexicon) for tag in tags for kind, value in tag.tokens if kind == "string"):
        return None
    if any(tag.is_statement and tag.name in _JUMPS for tag in tags):
        return None
    marks = _marks(tags, overridden)
    rest = iter(marks)
    text = "".join(piece if isinstance(piece, str) else next(rest)[0] for piece in pieces)
    tokens = tokens_of(text, [step for mark, step in marks if mark], lexicon)
    lines = _with_opaque_lines(tokens, text) if tokens is not None else None
    return None if lines is None else [*map(_spelling, tags), "sql", *spellings(lines, lexicon)]


def _marks(tags: Sequence[Tag], overridden: AbstractSet[str]) -> list[tuple[str, Step]]:
    """Return the placeholder of each tag in the text, and what the tag does to the nesting of blocks."""
    bound = _bound_names(tags) | overridden
    closed = {tag.name.removeprefix("end") for tag in tags if tag.is_statement and tag.name.startswith("end")}
    return [_mark(tag, bound, closed) for tag in tags]


def _mark(tag: Tag, bound: AbstractSet[str], closed: set[str]) -> tuple[str, Step]:
    if not tag.is_statement:
        return (RELATION if _is_relation(tag) and tag.name not in bound else OPAQUE), Step.NONE
    if tag.name in _FLOW:
        return FLOW, _FLOW[tag.name]
    if tag.name == "do" or _is_assignment(tag):
        return "", Step.NONE
    if tag.name.startswith("end"):
        return OPAQUE, Step.CLOSE
    return OPAQUE, Step.OPEN if tag.name in closed else Step.NONE


def _is_relation(tag: Tag) -> bool:
    return tag.is_call_of("ref") or tag.is_call_of("source") or tag.tokens == (("name", "this"),)


def _is_assignment(tag: Tag) -> bool:
    """Return whether this is `{% set a = … %}`, not `{% set a %}`, which takes what follows."""
    operators = (value for kind, value in tag.tokens if kind == "operator" and value not in {",", ".", "(", ")"})
    return tag.name == "set" and next(operators, "") == "="


def _bound_names(pieces: Iterable[str | Tag]) -> set[str]:
    """Return the names that the template may give another meaning, which may include `ref` and `this`."""
    bound = set()
    for tag in pieces:
        if isinstance(tag, str) or not tag.is_statement or tag.name not in _BINDINGS:
            continue
        following = (*tag.tokens[1:], ("", ""))
        for (kind, value), after in zip(tag.tokens, following, strict=True):
            if kind == "name" and (tag.name == "macro" or after not in {("operator", "("), ("operator", ".")}):
                bound.add(value)
    return bound


def _with_opaque_lines(tokens: Sequence[Token], text: str) -> list[Token] | None:
    """Return the tokens with each line as one on which a tag may print anything.

    A line ends at a line break that is printed whatever the tags do. None where such a line ends within a comment or string:
    if the tag prints the start of a line comment, the rest of it is code.
    """
    found: list[Token] = []
    for line, after in _lines(tokens):
        if not any(OPAQUE in token.text for token in line):
            found += line
            continue
        gaps = [token.gap for token in (*line[1:], after)]
        if any(gap.starts_with_long_comment for gap in gaps) or any("\n" in token.text for token in line):
            return None
        if line[-1].text.endswith(OPAQUE) and after.gap.starts_with_comment:
            return None
        first = line[0]
        found.append(Token("opaque", text[first.start : line[-1].end], first.start, first.gap, 0))
    return found


def _lines(tokens: Sequence[Token]) -> Iterator[tuple[Sequence[Token], Token]]:
    """Yield the lines, each with the token after it."""
    start = 0
    for index, token in enumerate(tokens[1:], 1):
        if token.is_end or (token.depth == 0 and token.gap.has_line_break):
            yield tokens[start:index], token
            start = index


def _digest(*parts: str) -> str:
    return hashlib.blake2b("".join(f"{len(part)}:{part}" for part in parts).encode(), digest_size=10).hexdigest()
