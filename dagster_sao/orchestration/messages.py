"""Errors and texts of others as one line for a user."""

from __future__ import annotations

from click import unstyle

from dagster_sao.core.errors import DagsterSaoError
from dagster_sao.warehouse.errors import without_quoted_lines
from dagster_sao.warehouse.redaction import masked

_LONGEST_SENTENCE = 600
_TRACEBACK = "Traceback (most recent call last):"


def one_line(text: str) -> str:
    """Return a text as one line without secrets and without the colours that dbt writes for a terminal."""
    return masked(" ".join(unstyle(text).split()))


def sentence(error: BaseException) -> str:
    """Return an error as one line for a user, without secrets: our own unchanged, others by the message of dbt or the system."""
    # dbt's colours are for a terminal. Masked before it is cut: half a secret would not be recognised.
    text = masked(without_quoted_lines(unstyle(str(error))))
    if isinstance(error, DagsterSaoError):
        return text
    marker = "Errors parsed from dbt logs:"
    if marker in text:
        text = text.split(marker, 1)[1]
    text = text.partition(_TRACEBACK)[0].strip() or text
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines)[:_LONGEST_SENTENCE] or type(error).__name__
