"""Take a project on a local DuckLake the whole way through Dagster. Runs in an environment of its own.

Usage: python build.py PROJECT TARGET ANSWERS
"""

from __future__ import annotations

import os
import sys
from contextlib import closing
from pathlib import Path

import duckdb
import duckdb_extensions

from tests.support.driven_project import drive

# A lake that is the main database is named after its file, and views keep the name of their database.
NAMES = {"ducklake_attached": "lake", "ducklake_main": "catalog"}


def main(project, target, answers):
    duckdb_extensions.import_extension("ducklake")
    # The profile's paths are relative, and dbt runs in the project's folder.
    os.chdir(project)
    Path("lake").mkdir()

    def execute(statement):
        with closing(duckdb.connect()) as connection:
            connection.execute("load ducklake")
            connection.execute(f"attach 'ducklake:lake/catalog.ducklake' as {NAMES[target]} (data_path 'lake/data/')")
            connection.execute(f"use {NAMES[target]}")
            return connection.execute(statement).fetchall()

    drive(Path(project), target, execute, Path(answers))


if __name__ == "__main__":
    main(*sys.argv[1:])
