"""Read the text of a timestamp exactly, whatever its precision and zone."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_TEXT = re.compile(
    r"(?P<date>\d{4}-\d{2}-\d{2})"
    r"(?:[T ](?P<hour>\d{2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:\.(?P<fraction>\d+))?)?"
    r"\s*(?P<zone>Z|UTC|(?P<sign>[+-])(?P<zh>\d{2}):?(?P<zm>\d{2})?(?::(?P<zs>\d{2}))?"
    r"|(?P<place>[A-Za-z]+(?:/[A-Za-z0-9_+-]+)+))?)?"
)


@dataclass(frozen=True, slots=True)
class Timestamp:
    """A timestamp with all its digits: `text` is the token, `utc` (to the microsecond) is for people."""

    text: str
    utc: datetime
    is_whole_day: bool = field(default=False, compare=False)
    """Whether it is a date, or a midnight, which is what a date becomes when it is cast."""


def parse_timestamp(text: str) -> Timestamp | None:
    """Return the timestamp or date in an ISO text, None for any other text.

    The text of an instant is the same in every zone, and trailing zeros do not count. Without a zone UTC is assumed,
    as dbt does.

    >>> parse_timestamp("2026-01-01 01:30:00.123456700+01:30").text
    '2026-01-01T00:00:00.1234567Z'
    >>> parse_timestamp("2026-01-01 01:30:00.5 Europe/Berlin").text
    '2026-01-01T00:30:00.5Z'
    >>> parse_timestamp("2026-01-01").text
    '2026-01-01T00:00:00'
    >>> parse_timestamp("1767225600") is None
    True
    >>> [parse_timestamp(f"2026-01-01{time}").is_whole_day for time in ("", " 00:00:00+02", " 00:00:00.001")]
    [True, True, False]
    """
    match = _TEXT.fullmatch(text.strip())
    if match is None:
        return None
    part = match.groupdict()
    try:
        local = datetime.fromisoformat(part["date"]).replace(
            hour=int(part["hour"] or 0), minute=int(part["minute"] or 0), second=int(part["second"] or 0)
        )
        moment = local - _offset(part, local)
    except (ValueError, OverflowError, ZoneInfoNotFoundError):
        return None
    digits = (part["fraction"] or "").rstrip("0")
    exact = moment.isoformat() + (f".{digits}" if digits else "") + ("Z" if part["zone"] else "")
    utc = moment.replace(microsecond=int(digits[:6].ljust(6, "0")), tzinfo=timezone.utc)
    is_whole_day = not digits and not any(int(part[unit] or 0) for unit in ("hour", "minute", "second"))
    return Timestamp(exact, utc, is_whole_day)


def _offset(part: dict[str, str | None], local: datetime) -> timedelta:
    if part["place"] is not None:
        return ZoneInfo(part["place"]).utcoffset(local) or timedelta()
    if part["sign"] is None:
        return timedelta()
    size = timedelta(hours=int(part["zh"] or 0), minutes=int(part["zm"] or 0), seconds=int(part["zs"] or 0))
    return -size if part["sign"] == "-" else size
