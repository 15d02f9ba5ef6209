"""The project's own modules that a Python model imports are part of its code."""

from __future__ import annotations

import pytest

from dagster_sao.orchestration.project.python_modules import ImportedModules

MODEL = (
    "import pandas\nimport rates\nfrom shapes.round import circle\n\ndef model(dbt, session):\n    return rates.of(1)\n"
)
FILES = {
    "lib/rates.py": "import tables\ndef of(x): return tables.RATES[x]\n",
    "lib/tables.py": "RATES = {1: 2}\n",
    "lib/shapes/__init__.py": "",
    "lib/shapes/round.py": "circle = 1\n",
    "lib/unrelated.py": "x = 1\n",
}


@pytest.fixture
def lib(tmp_path):
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "lib"


@pytest.mark.parametrize(
    ("edited", "counts"), [("rates.py", True), ("tables.py", True), ("shapes/round.py", True), ("unrelated.py", False)]
)
def test_a_module_counts_that_is_imported_directly_or_not(lib, edited, counts):
    before = ImportedModules(lambda: [lib]).texts(MODEL)
    (lib / edited).write_text("changed = 1\n")
    assert (ImportedModules(lambda: [lib]).texts(MODEL) != before) is counts


def test_installed_packages_do_not_count(lib):
    assert ImportedModules(lambda: [lib]).texts("import json, pandas\n") == {}


def test_nothing_is_looked_for_where_nothing_is_imported():
    assert ImportedModules(lambda: pytest.fail("no folder is needed")).texts("def model(dbt, session): ...\n") == {}
