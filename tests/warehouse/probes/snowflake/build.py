"""Take a project on a local Snowflake the whole way through Dagster. Runs in an environment of its own.

Usage: python build.py PROJECT PORT ANSWERS
"""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

import snowflake.connector

from tests.support.driven_project import drive


def main(project, port, answers):
    connection = snowflake.connector.connect(
        user="fake", password="snow", account="fakesnow", host="127.0.0.1", port=int(port), protocol="http"
    )
    with closing(connection):

        def execute(statement):
            return connection.cursor().execute(statement).fetchall()

        execute("create database built")
        execute("use database built")
        drive(Path(project), "snowflake", execute, Path(answers))


if __name__ == "__main__":
    main(*sys.argv[1:])
