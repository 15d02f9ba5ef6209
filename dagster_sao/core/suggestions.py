"""What a misspelt name may have been meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


def nearest_names(name: str, known: Iterable[str], most: int = 3) -> list[str]:
    """Return the names that `name` may be a misspelling of, the nearest first, at most `most`.

    >>> nearest_names("Ordres", ["orders", "customers", "stg_orders"])
    ['orders', 'stg_orders']
    """
    by_folded = {one.lower(): one for one in known}
    return [by_folded[one] for one in difflib.get_close_matches(name.lower(), by_folded, n=most)]


def did_you_mean(near: Sequence[str], what: str = "", quote: str = "'") -> str:
    """Return the question whether one of these names was meant, to end a message with; empty where there is no name.

    >>> did_you_mean(["orders", "stg_orders"]), did_you_mean([])
    (" Did you mean 'orders' or 'stg_orders'?", '')
    """
    if not near:
        return ""
    return f" Did you mean {what}{' or '.join(f'{quote}{name}{quote}' for name in near)}?"
