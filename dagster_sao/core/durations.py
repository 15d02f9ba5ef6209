"""Durations as people write and read them: `90m`, `1h 30m`, `2d`."""

from __future__ import annotations

import re
from datetime import timedelta

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_UNIT_NAMES = {
    **{unit: unit for unit in _SECONDS},
    **{f"{name}{plural}": name[0] for name in ("second", "minute", "hour", "day", "week") for plural in ("", "s")},
}
_TERM = re.compile(r"(\d+)\s*([a-z]+)\s*")


def parse_duration(text: object) -> timedelta:
    """Return the duration that `30m`, `12h`, `1d`, `1h 30m` or `2 days` names.

    Raises ValueError with the accepted forms for anything else.
    """
    rest = str(text).strip().lower()
    seconds = 0
    while (term := _TERM.match(rest)) and term[2] in _UNIT_NAMES:
        seconds += int(term[1]) * _SECONDS[_UNIT_NAMES[term[2]]]
        rest = rest[term.end() :]
        if not rest:
            return timedelta(seconds=seconds)
    msg = f"`{text}` is no duration: write a count and a unit, such as 30m, 12h, 1d or 1h 30m"
    raise ValueError(msg)


def format_duration(duration: timedelta) -> str:
    """Return the two largest units of `duration`, as dbt's own messages do: `1h 2m`, `4h`, `30s`."""
    rest = max(0, int(duration.total_seconds()))
    terms = []
    for unit in ("d", "h", "m", "s"):
        count, rest = divmod(rest, _SECONDS[unit])
        if count:
            terms.append(f"{count}{unit}")
    return " ".join(terms[:2]) or "0s"
