"""What keeps the package easy to enter: small modules and folders, and options of a run that are read where they act."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

import dagster_sao
import dbt_dagster_sao
from dagster_sao.orchestration.runs.config import RUN_OPTIONS

PACKAGES = [Path(package.__file__).parent for package in (dagster_sao, dbt_dagster_sao)]
MODULES = [module for package in PACKAGES for module in sorted(package.rglob("*.py"))]
MOST_LINES, MOST_FILES, MOST_READS = 400, 12, 4


def reads_of_options(source: str):
    """Yield each option that code reads of a run's config, as `config.retries` and `self._config.retries`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in RUN_OPTIONS:
            of = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            if of.lstrip("_") == "config":
                yield node.attr


def test_no_module_is_longer_than_can_be_read_in_one_sitting():
    lines = {str(module): len(module.read_text(encoding="utf-8").splitlines()) for module in MODULES}
    assert {module: count for module, count in lines.items() if count > MOST_LINES} == {}


def test_no_folder_has_more_files_than_can_be_seen_at_once():
    files = Counter(module.parent for module in MODULES)
    assert {str(folder): count for folder, count in files.items() if count > MOST_FILES} == {}


@pytest.mark.parametrize("code", ["config.retries", "self._config.retries", "setup.config.retries + 1"])
def test_a_read_of_an_option_is_seen(code):
    assert list(reads_of_options(code)) == ["retries"]


def test_an_option_of_a_run_is_read_only_where_it_acts():
    others = [module for module in MODULES if not module.match("runs/config.py")]  # which defines them
    reads = Counter(option for module in others for option in reads_of_options(module.read_text(encoding="utf-8")))
    assert reads["favor_state"] == 3  # it reaches dbt, and decides what a run, and a command, reads from elsewhere
    assert {option: count for option, count in reads.items() if count > MOST_READS} == {}
