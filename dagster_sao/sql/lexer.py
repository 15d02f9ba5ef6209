"""Split SQL into tokens, so that two texts of the same tokens are the same SQL.

Strings, quoted names, numbers and operators stay as they are written. A text that is not understood has no tokens: if a
comment were read differently than by the database, it could hide a change.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from dagster_sao.sql.lexicon import Lexicon

RELATION, FLOW, OPAQUE = "\ue000", "\ue001", "\ue002"
"""What stands in a text for a Jinja tag: one that prints a name, one that chooses what is printed, one that may print anything."""

_NOT_UNDERSTOOD = re.compile(
    r"""[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x85\u2028\u2029]  # which may end a line, or be white space
    | \r(?!\n)
    # White space to some. DuckDB reads the comments of a text with one of them otherwise than those of other texts.
    | [\xa0\u1680\u180e\u2000-\u200f\u202f\u205f-\u206f\u3000\ufeff]
    | \\['"`]                                             # which ends a string, or does not
    | @[^\s'"();,]*(?://|--)                               # the path of a stage, or a comment
    | /[\ue001\ue002]+\*                                  # which is a comment if nothing is printed between
    | (?i:\bcurrent_query\b)                              # which sees comments""",
    re.VERBOSE,
)
# What may stand next to a tag that prints nothing, because no other branch can turn it into something else.
# Two strings that touch may be one string or two; both end in the same place.
_NEXT_TO_FLOW = re.compile(r"[\s\w(),;\[\]'\"\ue000-\ue002]")
_HINTS = ("/*+", "/*!", "--+")


class Step(Enum):
    """What a Jinja tag does to the nesting of blocks."""

    OPEN = "opens a block"
    MIDDLE = "begins another branch"
    CLOSE = "closes a block"
    NONE = "nothing"


@dataclass(frozen=True, slots=True)
class _Gap:
    """White space and comments between two tokens, or nothing."""

    is_empty: bool
    has_line_break: bool
    has_block_comment: bool = False
    starts_with_comment: bool = False
    starts_with_long_comment: bool = False
    """Whether there is a block comment over several lines before the first other line break."""

    @property
    def text(self) -> str:
        """What databases can make of a gap between two strings: one string, two, or an error."""
        if self.is_empty:
            return ""
        return " " + ("\n" if self.has_line_break else "") + ("/*" if self.has_block_comment else "")


@dataclass(frozen=True, slots=True)
class Token:
    """One token, with the gap before it."""

    kind: str
    text: str
    start: int
    gap: _Gap
    depth: int
    """How many Jinja blocks are around the gap before it."""

    @property
    def is_end(self) -> bool:
        """Whether it is the last token, which has no text of its own, only the gap before it."""
        return self.kind == "end"

    @property
    def end(self) -> int:
        """Where it ends in the text."""
        return self.start + len(self.text)


def tokens_of(text: str, steps: Sequence[Step], lexicon: Lexicon) -> list[Token] | None:
    """Return the tokens of a text, None for one that is not understood.

    `steps` has, for each placeholder in the text in order, what its tag does.
    """
    if _NOT_UNDERSTOOD.search(text):
        return None
    found: list[Token] = []
    remaining = iter(steps)
    depth, position, gap_start = 0, 0, 0
    while position < len(text):
        match = lexicon.pattern.match(text, position)
        if match is None or not _is_clear(match, lexicon):
            return None
        kind, start, position = str(match.lastgroup), position, match.end()
        if _is_left_out(kind, match[0]):
            continue
        inside = [next(remaining) for _ in range(_placeholders(match[0]))]
        is_tag = kind in {"flow", "opaque"}
        after = _depth_after(inside, depth if is_tag else 0)
        if after is None or (is_tag and inside != [Step.NONE] and not _stands_alone(match, lexicon)):
            return None
        found.append(Token(kind, match[0], start, _gap(text[gap_start:start], lexicon), depth))
        if is_tag:
            depth = after
        elif after:
            return None  # a string or comment that begins in one branch and ends in another
        gap_start = position
    found.append(Token("end", "", len(text), _gap(text[gap_start:], lexicon), depth))
    return found if depth == 0 else None


def is_closed(text: str, lexicon: Lexicon) -> bool:
    """Return whether a text leaves no string, quoted name or comment open for what comes after it."""
    return tokens_of(text, [], lexicon) is not None


def _is_left_out(kind: str, text: str) -> bool:
    if kind == "gap":
        return True
    # A comment in which a tag prints something may end there.
    return kind in {"line", "block"} and not text.startswith(_HINTS) and not _placeholders(text)


def _is_clear(match: re.Match[str], lexicon: Lexicon) -> bool:
    kind, found, text = match.lastgroup, match[0], match.string
    if kind == "block":
        return "/*" not in found[2:]  # databases disagree about where nested comments end
    if kind == "line":
        return not found.rstrip("\r").endswith("\\")
    if kind == "quoted" and lexicon.has_triple_quotes:
        return not (len(found) == 2 and text[match.end() : match.end() + 1] == found[0])  # noqa: PLR2004 (an empty string)
    if kind == "other":
        if found == "$":
            in_word = bool(re.match(r"\w", text[max(match.start() - 1, 0) : match.start()]))
            return not in_word and not re.match(r"\w*\$", text[match.end() :])
        return "*/" not in found
    return True


def _stands_alone(match: re.Match[str], lexicon: Lexicon) -> bool:
    """Return whether what is printed before and after a tag cannot become one token."""
    around = match.string[max(match.start() - 1, 0) : match.start()] + match.string[match.end() : match.end() + 1]
    return all(map(_NEXT_TO_FLOW.match, around)) and not (
        lexicon.has_triple_quotes and set(around) & set(lexicon.quotes)
    )


def _gap(text: str, lexicon: Lexicon) -> _Gap:
    if not text.strip():
        return _Gap(is_empty=not text, has_line_break="\n" in text)
    pieces = [(str(m.lastgroup), m[0]) for m in lexicon.pattern.finditer(text)]
    first_break = next((n for n, (kind, piece) in enumerate(pieces) if kind == "gap" and "\n" in piece), len(pieces))
    return _Gap(
        is_empty=False,
        has_line_break=first_break < len(pieces),
        has_block_comment=any(kind == "block" for kind, _ in pieces),
        starts_with_comment=pieces[0][0] != "gap",
        starts_with_long_comment=any(kind == "block" and "\n" in piece for kind, piece in pieces[:first_break]),
    )


def _placeholders(text: str) -> int:
    return 0 if text.isascii() else sum(map(text.count, (RELATION, FLOW, OPAQUE)))


def _depth_after(steps: Iterable[Step], depth: int) -> int | None:
    """Return the depth after some tags, None when one belongs to no block that was opened since depth 0."""
    for step in steps:
        if step in {Step.MIDDLE, Step.CLOSE} and depth == 0:
            return None
        depth += {Step.OPEN: 1, Step.CLOSE: -1}.get(step, 0)
    return depth
