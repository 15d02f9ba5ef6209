"""Read the join by which a test looks for rows without a match."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dagster_sao.sql.merged_tests.pieces import Pieces, words_of


@dataclass(frozen=True, slots=True)
class LeftJoin:
    """The join `child as a left join parent as b on a.x = b.y` of two named queries."""

    child: str
    parent: str
    left: str
    """The column of the child, with the name before it: `a.x`."""
    right: str

    @property
    def columns(self) -> tuple[str, str]:
        """The two columns without the names before them."""
        return self.left.split(".")[1], self.right.split(".")[1]


def left_join_of(pieces: Pieces) -> LeftJoin | None:
    """Return the join that stands after `from`, None for any other.

    >>> from dagster_sao.sql.lexicon import DUCKDB
    >>> from dagster_sao.sql.merged_tests.pieces import cut
    >>> left_join_of(cut("child left join parent p on child.x = p.y", DUCKDB)).columns
    ('x', 'y')
    """
    words = words_of(pieces)
    if words.count("join") != 1 or words.count("on") != 1:
        return None
    join, on = words.index("join"), words.index("on")
    before = words[: join - 1] if words[join - 1] == "outer" else words[:join]
    child, parent = _table(before[:-1]), _table(words[join + 1 : on])
    if before[-1:] != ["left"] or child is None or parent is None or child[1] == parent[1] or child[0] == parent[0]:
        return None
    condition = words[on + 1 :]
    if len(condition) != 3 or condition[1] != "=":  # noqa: PLR2004 (x = y)
        return None
    left, right = condition[0].split("."), condition[2].split(".")
    if [left[:-1], right[:-1]] != [[child[1]], [parent[1]]]:
        return None
    return LeftJoin(child[0], parent[0], condition[0], condition[2])


def _table(words: Sequence[str]) -> tuple[str, str] | None:
    """Return the name of a query, and its name in the condition."""
    names = [word for word in words if word != "as"]
    is_clear = len(names) in {1, 2} and all(name.isidentifier() for name in names)
    return (names[0], names[-1]) if is_clear else None
