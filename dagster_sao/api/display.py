"""Results for people: words, colours, and tables as plain text."""

from __future__ import annotations

import io
import shutil
from datetime import datetime, timedelta

from rich.console import Console, RenderableType
from rich.text import Text

from dagster_sao.core.durations import format_duration

_STYLES = {
    "build": "green",
    "run": "green",
    "success": "green",
    "new data": "green",
    "no new data": "dim",
    "pass": "green",
    "reuse": "dim",
    "reused": "dim",
    "hold": "yellow",
    "held": "yellow",
    "skip": "yellow",
    "skipped": "yellow",
    "warn": "yellow",
    "warning": "yellow",
    "info": "cyan",
    "error": "red",
    "fail": "red",
}
_NARROWEST = 100


def styled(word: str) -> Text:
    """Return a word in its colour."""
    return Text(word, style=_STYLES.get(word, ""))


def as_text(renderable: RenderableType) -> str:
    """Return what a terminal would show, without colours."""
    width = max(shutil.get_terminal_size().columns, _NARROWEST)
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(renderable)
    return str(console.file.getvalue()).rstrip()  # type: ignore[attr-defined]


def moment_text(moment: datetime) -> str:
    """Return a moment as people read it."""
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def next_eligible(eligible_at: datetime | None, now: datetime) -> list[str]:
    """Return a line with the time at which the decision changes by itself; none if there is no such time."""
    if eligible_at is None:
        return []
    return [f"Next eligible: {moment_text(eligible_at)}, in {format_duration(eligible_at - now)}"]


def counted(count: int, what: str) -> str:
    """Return a count of things.

    >>> counted(1, "test"), counted(2, "test")
    ('1 test', '2 tests')
    """
    return f"{count} {what}{'' if count == 1 else 's'}"


def seconds_text(seconds: float) -> str:
    """Return a time span as people read it.

    >>> [seconds_text(seconds) for seconds in (0.25, 12, 3725)]
    ['0.2s', '12.0s', '1h 2m']
    """
    return f"{seconds:.1f}s" if seconds < 60 else format_duration(timedelta(seconds=seconds))  # noqa: PLR2004 (a minute)
