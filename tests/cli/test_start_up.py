"""Help and the version need not wait for the imports of Dagster and dbt."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
from click.utils import make_default_short_help

from dagster_sao.cli import main
from dagster_sao.cli.commands import commands

HEAVY = ("dagster", "dagster_dbt", "dbt", "sqlglot", "pydantic", "rich", "jinja2", "yaml", "sqlalchemy")
LOADED = """
import sys
from dagster_sao.cli import main
try:
    main(sys.argv[1:])
except SystemExit as ended:
    code = ended.code
print("LOADED", code, *(name for name in {heavy} if name in sys.modules))
"""


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["--version"], ["nonsense"], []])
def test_help_and_version_import_neither_dagster_nor_dbt(words):
    code = LOADED.format(heavy=HEAVY)
    found = subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True, text=True)
    assert found.stdout.splitlines()[-1] == f"LOADED {0 if words and words != ['nonsense'] else 2}"


def test_importing_the_package_imports_neither_dagster_nor_dbt():
    code = f"import dagster_sao, sys; print([name for name in {HEAVY} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout == "[]\n"


def test_the_list_of_commands_says_what_their_help_says():
    whole = 1000
    listed = click.HelpFormatter(width=whole)
    main.format_commands(click.Context(main), listed)
    own = click.HelpFormatter(width=whole)
    commands.format_commands(click.Context(commands), own)
    assert listed.getvalue() == own.getvalue()
    assert all(make_default_short_help(one.help, whole) in own.getvalue() for one in commands.commands.values())
