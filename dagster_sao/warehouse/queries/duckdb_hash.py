"""The SQL of a hash that tells the rows of any two DuckDB tables apart. Pure.

DuckDB's `hash` is made for joins and grouping: it gives one hash to values that are equal there, or that differ only in
how they nest. Measured on 1.2, 1.4 and 2.0:

| values with one hash | beside the hash |
|---|---|
| `0.0` and `-0.0`, `NaN` and `-NaN` | the sign |
| `1 month` and `30 days`, `1 day` and `24:00:00` | the text |
| `NULL`, `[]` and `[NULL]`; `[[1], [2]]` and `[[1, 2]]`; `NULL` and a struct or map of nothing | text and JSON |

Neither text nor JSON is enough alone: the text of a union hides its tag and 1.2 quotes nothing in it, and JSON hides the
length of bits.
"""

from __future__ import annotations

from collections.abc import Iterable

# No user names a column like this alias: otherwise `hash(alias)` would hash that column only.
ROW = "dagster_sao_row"

PLAIN_TYPE = (
    r"BOOLEAN|U?(TINYINT|SMALLINT|INTEGER|BIGINT|HUGEINT)|DECIMAL\([0-9]+,[0-9]+\)|BIGNUM|VARINT|VARCHAR|JSON|BLOB|BIT"
    r"|UUID|DATE|TIME(_NS)?|TIMESTAMP(_S|_MS|_NS)?|(TIME|TIMESTAMP) WITH TIME ZONE|TIMESTAMPTZ_NS|ENUM\(.*\)"
)
"""A regular expression for the types whose values are the same if their hashes are."""

_FLOATS = frozenset({"FLOAT", "DOUBLE"})


def rows_hash(columns: Iterable[tuple[str, str]]) -> str:
    """Return the expression over all rows, in any order, where `columns` are the ones whose type is not plain.

    Sum keeps what xor cancels, equal rows in pairs. Hashed twice because DuckDB joins the columns of a row with xor:
    two rows that exchange their last values would have kept the xor of all, and nearly the sum.

    >>> "signbit" in rows_hash([("amount", "DOUBLE")]), "to_json" in rows_hash([("amount", "INTERVAL")])
    (True, False)
    """
    parts = ", ".join([ROW, *(part for name, kind in columns for part in _beside(name, kind))])
    row = f"hash(hash({parts}))"
    return f"concat_ws('-', count(*), coalesce(bit_xor({row}), 0), coalesce(sum({row}::hugeint), 0))"


def shows_time_zone(kind: str) -> bool:
    """Return whether the text of values of a type depends on the time zone of the session."""
    return "TIMESTAMP WITH TIME ZONE" in kind or "TIMESTAMPTZ" in kind or kind == "VARIANT"


def _beside(name: str, kind: str) -> list[str]:
    column = f"{ROW}." + '"' + name.replace('"', '""') + '"'
    if kind in _FLOATS:
        return [f"signbit({column})"]
    text = f"{column}::varchar"
    is_nested = kind.endswith((")", "]")) or kind == "VARIANT"
    return [text, f"to_json({column})"] if is_nested else [text]
