"""Split a dbt template into its SQL and its Jinja, without rendering it.

dbt's own tags (`{% snapshot %}`, `{% test %}`) stop Jinja's parser but not its lexer, so only the lexer is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jinja2 import Environment, TemplateSyntaxError

_ENVIRONMENT = Environment(autoescape=False)  # noqa: S701 (only lexes, never renders)
_SILENT_STATEMENTS = frozenset({"set", "do"})
_BEGINS = frozenset({"variable_begin", "block_begin"})
_ENDS = frozenset({"variable_end", "block_end"})


@dataclass(frozen=True, slots=True)
class Tag:
    """One `{{ … }}` or `{% … %}`, as tokens without white space."""

    tokens: tuple[tuple[str, str], ...]
    is_statement: bool

    @property
    def text(self) -> str:
        """The tag in one spelling, whatever its white space."""
        return " ".join(value for _, value in self.tokens)

    @property
    def name(self) -> str:
        """The first name in the tag, such as `ref` or `if`."""
        return next((value for kind, value in self.tokens if kind == "name"), "")

    @property
    def is_config(self) -> bool:
        """Whether this is `{{ config(…) }}`, whose effect dbt keeps apart from the code."""
        return self.is_call_of("config")

    def is_call_of(self, function: str) -> bool:
        """Return whether this is `{{ function(…) }}` and nothing else."""
        if self.is_statement or self.tokens[:2] != (("name", function), ("operator", "(")):
            return False
        return self.tokens[-1] == ("operator", ")") and _closes_at_end(self.tokens[1:])

    @property
    def prints(self) -> bool:
        """Whether the tag can print SQL, or choose which SQL is printed."""
        if not self.is_statement:
            return True
        # `{% set x = 1 %}` prints nothing; `{% set x %}…{% endset %}` swallows what follows.
        return self.name not in _SILENT_STATEMENTS or (self.name == "set" and ("operator", "=") not in self.tokens)


@dataclass(frozen=True, slots=True)
class Template:
    """The pieces of a template in order: SQL text as strings, Jinja as tags. Jinja comments are gone."""

    pieces: tuple[str | Tag, ...]

    @property
    def tags(self) -> Sequence[Tag]:
        """The Jinja tags in order, without `config(…)`."""
        return [piece for piece in self.pieces if isinstance(piece, Tag) and not piece.is_config]

    @property
    def has_control_flow(self) -> bool:
        """Whether a statement decides which SQL appears, so that the text is not one query."""
        return any(tag.is_statement and tag.prints for tag in self.tags)

    def calls(self, function: str) -> Iterator[str | None]:
        """Yield the literal first argument of every call of `function`, None where it is no literal."""
        for tag in self.tags:
            for index, token in enumerate(tag.tokens[:-2]):
                if token == ("name", function) and tag.tokens[index + 1] == ("operator", "("):
                    kind, value = tag.tokens[index + 2]
                    yield value[1:-1] if kind == "string" else None

    def names(self) -> set[str]:
        """Return all names that the tags mention."""
        return {value for tag in self.tags for kind, value in tag.tokens if kind == "name"}


def split_template(text: str) -> Template | None:
    """Return the pieces of `text`, or None when Jinja cannot even tokenize it."""
    pieces: list[str | Tag] = []
    tokens: list[tuple[str, str]] = []
    inside = statement = False
    try:
        for _, kind, value in _ENVIRONMENT.lex(text):
            if kind in _BEGINS:
                inside, tokens, statement = True, [], kind == "block_begin"
            elif kind in _ENDS:
                inside = False
                pieces.append(Tag(tuple(tokens), statement))
            elif inside and kind != "whitespace":
                tokens.append((kind, value))
            elif kind == "data":
                pieces.append(value)
    except TemplateSyntaxError:
        return None
    # A tag without an end swallows the rest of the text.
    return None if inside else Template(tuple(pieces))


def _closes_at_end(tokens: Sequence[tuple[str, str]]) -> bool:
    depth = 0
    for index, token in enumerate(tokens):
        depth += {("operator", "("): 1, ("operator", ")"): -1}.get(token, 0)
        if depth == 0:
            return index == len(tokens) - 1
    return False
