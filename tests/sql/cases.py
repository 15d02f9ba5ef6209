"""Reads the fixture files: `== title [dialect]`, then one text, or two with `~~` between them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FIXTURES = Path(__file__).parent / "fixtures"
_TITLE = re.compile(r"== (?P<title>.*?)(?: \[(?P<dialect>\w+)\])?$")


@dataclass
class Case:
    """One case of a file."""

    title: str
    dialect: str
    texts: list[str]


def read_cases(file: str) -> Iterator[Case]:
    """Yield the cases of a fixture file."""
    current: Case | None = None
    for line in (FIXTURES / file).read_text(encoding="utf-8").splitlines(keepends=True):
        if title := _TITLE.match(line.rstrip("\n")):
            if current:
                yield current
            current = Case(title["title"], title["dialect"] or "duckdb", [""])
        elif current and line == "~~\n":
            current.texts.append("")
        elif current:
            current.texts[-1] += line
    if current:
        yield current
