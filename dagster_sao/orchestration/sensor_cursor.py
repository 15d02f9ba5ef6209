"""The cursors of the sensors: each stores texts by name, with the layout that it is written in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_LAYOUT = 1
_ANEW = "The sensor's cursor was written by another version and is started anew; no state is lost."


def read_cursor(cursor: str | None, name: str) -> tuple[str | None, str]:
    """Return what a sensor stored as `name`, and a note when its cursor cannot be read, else an empty text.

    >>> read_cursor(write_cursor({"first": "source.shop.raw.orders"}), "first")
    ('source.shop.raw.orders', '')
    """
    if not cursor:
        return None, ""
    try:
        content: Any = json.loads(cursor)
    except ValueError:
        return None, _ANEW
    if not isinstance(content, dict) or content.get("layout") != _LAYOUT:
        return None, _ANEW
    value = content.get(name)
    return (value if isinstance(value, str) else None), ""


def write_cursor(values: Mapping[str, str | None]) -> str:
    """Return a cursor that stores each value by its name, but for those that are empty."""
    return json.dumps({"layout": _LAYOUT, **{name: value for name, value in values.items() if value}})
