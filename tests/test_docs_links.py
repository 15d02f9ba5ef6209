"""Every relative link of the documentation leads to a file or a heading that is there, and every table is one."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    page.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "benchmarks/*.md", "example_project/*.md")
    for page in ROOT.glob(pattern)
)
_CODE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"\]\(<?([^)\s>]+)>?\)")
_HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
_TORN_TABLE = re.compile(r"^(\|.*\|)\n\n\|[-:| ]+\|$", re.MULTILINE)


def test_links_are_seen():
    text = "[a](b.md) ![c](d.png) `[no](x.md)`\n```\n[no](y.md)\n```\n[e](f.md#g-h) <https://x.example>"
    assert links(text) == ["b.md", "d.png", "f.md#g-h"]


def test_headings_are_named_as_github_names_them():
    text = "# What is `new`, and why?\n## One idea\n```\n# no\n```\n## One idea\n"
    assert anchors(text) == {"what-is-new-and-why", "one-idea", "one-idea-1"}


@pytest.mark.parametrize("page", PAGES)
def test_no_relative_link_is_dead(page):
    path = ROOT / page
    dead = [link for link in links(path.read_text(encoding="utf-8")) if not leads_somewhere(path, link)]
    assert dead == []


def test_a_torn_table_is_seen():
    assert _TORN_TABLE.findall("| a | b |\n\n|---|---|\n| 1 | 2 |\n") == ["| a | b |"]


@pytest.mark.parametrize("page", PAGES)
def test_no_table_is_torn_from_its_head(page):
    assert _TORN_TABLE.findall((ROOT / page).read_text(encoding="utf-8")) == []


def leads_somewhere(page: Path, link: str) -> bool:
    if re.match(r"[a-z]+:", link):
        return True  # a link to elsewhere
    name, _, anchor = link.partition("#")
    target = (page.parent / name).resolve() if name else page
    if not target.exists() or not target.is_relative_to(ROOT):
        return False
    return not anchor or (target.suffix == ".md" and anchor in _anchors_of(target))


@cache
def _anchors_of(page: Path) -> frozenset[str]:
    return frozenset(anchors(page.read_text(encoding="utf-8")))


def links(text: str) -> list[str]:
    return _LINK.findall(_SPAN.sub("", _CODE.sub("", text)))


def anchors(text: str) -> set[str]:
    found: set[str] = set()
    for heading in _HEADING.findall(_CODE.sub("", text)):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        name = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        number = sum(other == name or re.fullmatch(rf"{re.escape(name)}-\d+", other) is not None for other in found)
        found.add(f"{name}-{number}" if number else name)
    return found
