"""The errors of a warehouse or its profile. A message is one sentence and a remedy, and never shows a credential."""

from __future__ import annotations

import re

from dagster_sao.core.errors import DagsterSaoError
from dagster_sao.warehouse.redaction import masked

_LONGEST_REASON = 300
# dbt begins the database's message with a line such as `Database Error`; DuckDB and PostgreSQL quote
# our generated statement after theirs. Neither helps the person who wrote the source.
_HEADING = re.compile(r"^\s*(?:\w+ )*Error(?: in [^\n]*)?\s*\n")
_QUOTED_STATEMENT = re.compile(r"\s*\bLINE \d+:.*", re.DOTALL)

# The database quotes the value that it could not read. That is the user's data, or may come from a secret.
_ABOUT_A_VALUE = re.compile(
    r"conversion error|conversion failed|invalid (input (?!error)|value|date|time|byte|number|json|text)|malformed|out of range|overflow"
    r"|(could not|cannot|can't|failed to|unable to) (be )?(convert|parse|cast)|is not recognized|bad \w+ value|not a valid|numeric value",
    re.IGNORECASE,
)
_VALUE = re.compile(r"\s*(\"|(?<!\w)'|`|with value |: ?0x).*", re.DOTALL)

# dbt quotes three lines of a YAML file that it cannot read, and a snippet of PyYAML ends with a caret.
_QUOTED_LINES = re.compile(r"\n(?:\s*(?:-{3,}|Raw Error:|\d+\s*\|[^\n]*)\s*(?:\n|$))+")
_SNIPPET = re.compile(r"(line \d+, column \d+):?\n[^\n]*\n\s*\^")

_MISSING = re.compile(
    r"does not exist|doesn't exist|not exist|not found|cannot be found|no such table|invalid object name|unknown table",
    re.IGNORECASE,
)


class WarehouseError(DagsterSaoError):
    """The warehouse, or the profile that leads to it, cannot be used at all."""


class WarehouseBusyError(WarehouseError):
    """A writer holds the database file. The data is fine: the next tick probes it again."""


class StatementError(DagsterSaoError):
    """One statement failed. Only the sources in it are affected."""


class StatementTimeoutError(StatementError):
    """One statement took too long, or waited too long for another session's lock."""


def says_missing(error: StatementError) -> bool:
    """Return whether a statement failed because its relation does not exist."""
    return _MISSING.search(str(error)) is not None


def _without_values(text: str) -> str:
    """Return a database's message. If it is about a value, cut it before the first value that it quotes.

    >>> _without_values('invalid input syntax for type date: "hunter2"')
    'invalid input syntax for type date: …'
    >>> _without_values('column "loaded_at" does not exist')
    'column "loaded_at" does not exist'
    """
    return _VALUE.sub(" …", text) if _ABOUT_A_VALUE.search(text) else text


def without_quoted_lines(text: str) -> str:
    r"""Return the message of a YAML parser without the lines of the file that it quotes.

    >>> without_quoted_lines(
    ...     "Syntax error near line 2\n----\n1  | password: x\n2  |  y\nRaw Error:\n----\nbad in line 2, column 3"
    ... )
    'Syntax error near line 2\nbad in line 2, column 3'
    """
    text = _QUOTED_LINES.sub("\n", text)
    return _SNIPPET.sub(r"\1", text)


def reason(error: BaseException) -> str:
    """Return the message of a database or dbt, as one line without our SQL."""
    text = str(error).strip() or type(error).__name__
    text = _HEADING.sub("", text + "\n")
    # Masked before it is cut: nothing would recognize half a secret.
    text = masked(_without_values(" ".join(without_quoted_lines(_QUOTED_STATEMENT.sub("", text)).split())))
    text = text if len(text) <= _LONGEST_REASON else text[: _LONGEST_REASON - 1] + "…"
    return text.rstrip(". ")
