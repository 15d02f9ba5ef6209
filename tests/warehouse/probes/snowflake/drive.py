"""Change a local Snowflake step by step and look at it with the real adapter. Runs in an environment of its own.

Usage: python drive.py PROJECT PORT ANSWERS
"""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

import snowflake.connector

from tests.support.watched_project import WatchedProject

SETUP = """
create database sao; create schema sao.raw; create database second; create schema second.raw;
create table sao.raw.orders (id int, loaded_at timestamp);
insert into sao.raw.orders values (1, '2026-01-01 10:00:00.123456');
create table sao.raw."Mixed Case" (id int);
create table sao.raw.still (id int);
create table sao.raw.dropped (id int);
create view sao.raw.recent as select * from sao.raw.orders;
create table second.raw.orders (id int)
"""
STEPS = {
    "first": SETUP,
    "unchanged": "select 1",
    "insert": "insert into sao.raw.orders values (2, '2026-01-02')",
    "delete": "delete from sao.raw.orders where id = 1",
    "update": "update sao.raw.orders set id = 3",
    "truncate": "truncate table sao.raw.orders",
    "column": "alter table sao.raw.orders add column note varchar",
    "mixed": """insert into sao.raw."Mixed Case" values (1)""",
    "second": "insert into second.raw.orders values (1)",
    "drop": "drop table sao.raw.dropped",
    "again": "create table sao.raw.dropped (id int)",
}


def main(project, port, answers):
    connection = snowflake.connector.connect(
        user="fake", password="snow", account="fakesnow", host="127.0.0.1", port=int(port), protocol="http"
    )
    with closing(connection):
        watched = None
        for step, statements in STEPS.items():
            for statement in statements.split(";"):
                connection.cursor().execute(statement)
            watched = watched or WatchedProject(Path(project), "fake")
            watched.look(step)
    watched.write(Path(answers))


if __name__ == "__main__":
    main(*sys.argv[1:])
