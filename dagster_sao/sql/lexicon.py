"""What SQL texts are made of, by dialect: comments, quotes, keywords, and where white space does not matter.

Only what is known for certain stands here. `dialects` maps adapters to these lexicons; the SQL of any other adapter counts as
it is written.
"""

from __future__ import annotations

import re
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cached_property

# Reserved words, which cannot be the name of a column, in all dialects whose keywords fold.
_RESERVED = frozenset(
    [
        "and",
        "as",
        "by",
        "case",
        "cross",
        "distinct",
        "else",
        "end",
        "except",
        "from",
        "full",
        "group",
        "having",
        "in",
        "inner",
        "intersect",
        "into",
        "is",
        "join",
        "left",
        "like",
        "not",
        "null",
        "on",
        "or",
        "order",
        "outer",
        "right",
        "select",
        "then",
        "union",
        "when",
        "where",
        "with",
    ]
)
# Reserved by some of them only.
_ALSO_RESERVED = frozenset({"all", "asc", "desc", "false", "lateral", "limit", "qualify", "true", "using", "window"})
_OPERATORS = frozenset({"+", "-", "*", "/", "%", "<", ">", "=", "<=", ">=", "<>", "!=", "||", "->", "->>", "=>"})
_CASTS = _OPERATORS | {"::"}
_WORD = r"A-Za-z0-9_.\x80-\ud7ff\ue000\ue003-\U0010ffff"


@dataclass(frozen=True)
class Lexicon:
    """The tokens of one dialect."""

    line_comments: tuple[str, ...] = ("--",)
    quotes: str = "'\""
    has_dollar_quotes: bool = False
    """Whether `$tag$ … $tag$` is a string."""
    has_bracket_quotes: bool = False
    """Whether `[a b]` is a name."""
    has_triple_quotes: bool = False
    operators: AbstractSet[str] = field(default=_OPERATORS)
    """The operators that mean the same with and without white space around them."""
    brackets: str = "(),;[]"
    """Characters that never become part of another token."""
    keywords: AbstractSet[str] = field(default=_RESERVED)
    """Words that mean the same in any case, without words that may be a name whose case shows in the rows."""
    folds_names: bool = False
    """Whether the database folds unquoted names, so that their case never shows."""
    paths: str = ""
    """Characters after which a name keeps its case, although names fold."""

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """A pattern that matches one token, comment or gap, and names its kind."""
        line = "|".join(map(re.escape, self.line_comments))
        quoted = [f"{quote}[^{quote}]*{quote}" for quote in self.quotes]
        if self.has_bracket_quotes:
            quoted.append(r"\[[^\]]*\]")
        if self.has_dollar_quotes:
            quoted.append(r"(?P<tag>\$(?:[A-Za-z_\x80-\ud7ff][A-Za-z0-9_\x80-\ud7ff]*)?\$).*?(?P=tag)")
        # The sign of an exponent is part of the number.
        word = rf"(?:[{_WORD}]|(?<=[0-9][eE])[+-](?=[0-9])|(?<=[0-9]\.[eE])[+-](?=[0-9]))+"
        other = rf"(?:(?!{line}|/\*)[^{_WORD}\s(),;\[\]{{}}'\"`$\ue001\ue002])+"
        kinds = {
            "gap": r"(?:[ \t\n]|\r\n)+",
            "line": rf"(?:{line})[^\n]*",
            "block": r"/\*.*?\*/",
            "quoted": "|".join(quoted),
            "bracket": r"[(),;\[\]{}]",
            "word": word,
            "other": rf"{other}|\$",
            "flow": "\ue001",
            "opaque": "\ue002",
        }
        return re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in kinds.items()), re.DOTALL)


DUCKDB = Lexicon(
    has_dollar_quotes=True,
    operators=_CASTS,
    brackets="(),;[]{}",
    keywords=_RESERVED | _ALSO_RESERVED,
)
POSTGRES = Lexicon(has_dollar_quotes=True, operators=_CASTS, folds_names=True)
REDSHIFT = Lexicon(operators=_CASTS, keywords=_RESERVED | _ALSO_RESERVED)
SNOWFLAKE = Lexicon(("--", "//"), operators=_CASTS, keywords=_RESERVED | _ALSO_RESERVED, folds_names=True, paths=":@$")
# `a-b` may be the name of a project.
BIGQUERY = Lexicon(
    ("--", "#"),
    quotes="'\"`",
    has_triple_quotes=True,
    operators=_OPERATORS - {"-"},
    keywords=_RESERVED | _ALSO_RESERVED | {"unnest"},
)
SPARK = Lexicon(quotes="'\"`", operators=_CASTS, keywords=frozenset())  # reserves no word, so that each may be a column
TRINO = Lexicon()
TSQL = Lexicon(has_bracket_quotes=True, brackets="(),;", keywords=_RESERVED | {"top"})

# Words that are not the name of a column unless they are quoted: a database reads another value there, or nothing at all.
_KEYWORDS = frozenset(
    {
        "all", "analyse", "analyze", "and", "any", "array", "as", "asc", "asymmetric", "authorization", "binary", "both", "case", "cast",
        "check", "collate", "collation", "column", "concurrently", "constraint", "create", "cross", "default", "deferrable", "desc",
        "distinct", "do", "else", "end", "except", "false", "fetch", "for", "foreign", "freeze", "from", "full", "group", "having",
        "ilike", "in", "initially", "inner", "intersect", "into", "is", "isnull", "join", "lateral", "leading", "left", "like", "limit",
        "natural", "not", "notnull", "null", "offset", "on", "only", "or", "order", "outer", "overlaps", "placing", "primary",
        "references", "returning", "right", "select", "similar", "some", "symmetric", "table", "tablesample", "then", "to", "trailing",
        "true", "union", "unique", "using", "variadic", "verbose", "when", "where", "window", "with",
    }
)  # fmt: skip
_WORDS_FOR_VALUES = frozenset(
    {
        "current_catalog", "current_date", "current_role", "current_schema", "current_time", "current_timestamp", "current_user",
        "localtime", "localtimestamp", "session_user", "system_user", "user",
    }
)  # fmt: skip
# Both as `pg_get_keywords` has them, and `system_user` of later releases.
POSTGRES_KEYWORDS = _KEYWORDS | _WORDS_FOR_VALUES | {"grant"}
# As `duckdb_keywords` has them. A column comes before a function that needs no brackets, such as `current_date`.
DUCKDB_KEYWORDS = _KEYWORDS | frozenset(
    {
        "anti", "asof", "at", "by", "describe", "glob", "lambda", "pivot", "pivot_longer", "pivot_wider", "positional", "qualify", "semi",
        "show", "summarize", "unpack", "unpivot",
    }
)  # fmt: skip
KEYWORDS = POSTGRES_KEYWORDS | DUCKDB_KEYWORDS | {"current_path", "sysdate"}
"""Where no list is known for certain."""
