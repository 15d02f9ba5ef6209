"""A function of dbt that the trace wraps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Wrapper = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Point:
    """A function of dbt that is wrapped."""

    module: str
    owner: str
    name: str
    wrap: Callable[[Wrapper], Wrapper]
    kinds: frozenset[str] = frozenset()
    """The kinds of reads that are recorded there; empty for an essential point."""
