"""Durations as people write and read them: `90m`, `1h 30m`, `2d`."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_UNIT_NAMES = {
    **{unit: unit for unit in _SECONDS},
    **{f"{name}{plural}": name[0] for name in ("second", "minute", "hour", "day", "week") for plural in ("", "s")},
}
_TERM = re.compile(r"([0-9]+)\s*([a-z]+)\s*")
LONGEST_DAYS = 36_500
_MOST_DIGITS = 12
_LONGEST_SHOWN = 40
_MOST_DOUBLINGS = 20
_LONGEST_GRACE = timedelta(minutes=5)
_GRACE_SHARE = 0.05


def parse_duration(text: object) -> timedelta:
    """Return the duration that `30m`, `12h`, `1d`, `1h 30m` or `2 days` names.

    Raises ValueError with the accepted forms for anything else, and for more than a hundred years.
    """
    rest = text.strip().lower() if isinstance(text, str) else ""
    seconds = 0
    while (term := _TERM.match(rest)) and term[2] in _UNIT_NAMES:
        digits = term[1].lstrip("0")
        if len(digits) > _MOST_DIGITS:
            seconds = LONGEST_DAYS * _SECONDS["d"] + 1
        else:
            seconds += int(digits or "0") * _SECONDS[_UNIT_NAMES[term[2]]]
        rest = rest[term.end() :]
        if not rest and seconds <= LONGEST_DAYS * _SECONDS["d"]:
            return timedelta(seconds=seconds)
        if not rest:
            msg = f"`{shown(text)}` is too long: the longest duration is {LONGEST_DAYS}d"
            raise ValueError(msg)
    msg = f"`{shown(text)}` is not a duration: use a number and a unit, such as 30m, 12h, 1d or 1h 30m"
    raise ValueError(msg)


def shown(value: object) -> str:
    """Return a setting's value as a message shows it: shortened, whatever it is.

    >>> shown("1 fortnight"), shown(10**5000)
    ('1 fortnight', 'a number of very many digits')
    """
    try:
        text = str(value)
    except ValueError:  # Python writes no number of more than 4300 digits
        return "a number of very many digits"
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 1]}…"


def doubled(first: timedelta, times: int, longest: timedelta) -> timedelta:
    """Return a wait that doubles with each attempt after the first, up to the longest.

    >>> [str(doubled(timedelta(seconds=30), times, timedelta(minutes=10))) for times in (1, 2, 5, 1000)]
    ['0:00:30', '0:01:00', '0:08:00', '0:10:00']
    """
    return min(first * (1 << min(times - 1, _MOST_DOUBLINGS)), longest)


def grace_of_job(interval: timedelta) -> timedelta:
    """Return how much earlier than after `interval` a job may do what is due by then, since the run before it may have started late.

    >>> [str(grace_of_job(timedelta(hours=hours))) for hours in (1, 24)]
    ['0:03:00', '0:05:00']
    """
    return min(interval * _GRACE_SHARE, _LONGEST_GRACE)


def is_waiting(now: datetime, since: datetime, wait: timedelta) -> bool:
    """Return whether a wait that began at `since` is not over.

    If the clock was set back by more than the wait, it is over: there is no telling how long it would last.

    >>> noon, hour = datetime(2026, 1, 1, 12), timedelta(hours=1)
    >>> [is_waiting(noon + shift, noon, hour) for shift in (-24 * hour, -hour / 2, hour / 2, hour)]
    [False, True, True, False]
    """
    return -wait < now - since < wait


def format_duration(duration: timedelta) -> str:
    """Return the two largest units of `duration`, as dbt's own messages do: `1h 2m`, `4h`, `30s`."""
    rest = max(0, int(duration.total_seconds()))
    terms = []
    for unit in ("d", "h", "m", "s"):
        count, rest = divmod(rest, _SECONDS[unit])
        if count:
            terms.append(f"{count}{unit}")
    return " ".join(terms[:2]) or "0s"
