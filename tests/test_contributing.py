"""Every file, folder and Python name that CONTRIBUTING and the documentation name is there."""

from __future__ import annotations

import re
from pkgutil import resolve_name

import pytest

from tests.test_docs_links import ROOT

PAGES = ["CONTRIBUTING.md", "README.md", *sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))]
_FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(r"(?:\.?[\w-]+/)+(?:[\w-]+(?:\.\w+)*)?")
_NAME = re.compile(r"dagster_sao(?:\.\w+)+")
_TOP = ("dagster_sao", "dbt_dagster_sao", "tests", "benchmarks", "docs", "example_project")
_PACKAGE = ROOT / "dagster_sao"


def test_paths_are_seen():
    text = "`core/project.py`, `tests/e2e`, `probes/`, `a b/c.py`, `dagster_sao.x.y`, `x.y`\n```\n`no/path.py`\n```\n"
    assert paths(text) == ["core/project.py", "tests/e2e", "probes/"]
    assert names(text) == ["dagster_sao.x.y"]


@pytest.mark.parametrize("page", PAGES)
def test_each_path_that_a_page_names_exists(page):
    found = paths((ROOT / page).read_text(encoding="utf-8"))
    if page != "CONTRIBUTING.md":  # which alone names files from the package on; other pages also name a user's files
        found = [path for path in found if _is_of_repository(path)]
    assert [path for path in found if not any(folder.exists() for folder in _places(path))] == []


@pytest.mark.parametrize("page", PAGES)
def test_each_python_name_that_a_page_gives_can_be_imported(page):
    for name in names((ROOT / page).read_text(encoding="utf-8")):
        resolve_name(name)


def paths(text: str) -> list[str]:
    return [span for span in _SPAN.findall(_FENCE.sub("", text)) if _PATH.fullmatch(span)]


def names(text: str) -> list[str]:
    return [span for span in _SPAN.findall(_FENCE.sub("", text)) if _NAME.fullmatch(span)]


def _is_of_repository(path: str) -> bool:
    # `dagster_sao/project` is a tag of runs: in the package, only what ends as a file or a folder is a path.
    return path.startswith(tuple(f"{top}/" for top in _TOP)) and (
        not path.startswith("dagster_sao/") or path.endswith("/") or "." in path
    )


def _places(path: str):
    yield ROOT / path
    yield _PACKAGE / path
    for layer in ("sql", "core", "warehouse", "orchestration"):
        yield _PACKAGE / layer / path
