"""Change a local DuckLake step by step and look at it with the real adapter. Runs in an environment of its own.

Usage: python drive.py PROJECT TARGET ANSWERS
"""

from __future__ import annotations

import os
import sys
from contextlib import closing
from pathlib import Path

import duckdb
import duckdb_extensions

from tests.support.watched_project import WatchedProject

SETUP = """
create schema raw; create table raw.orders (id int, loaded_at timestamp);
insert into raw.orders values (1, '2026-01-01 10:00:00.123456');
create table raw."Odd Name" (id int); create table raw.still as select 1 as id; create table raw.dropped (id int);
create view raw.recent as select * from raw.orders
"""
STEPS = {
    "first": SETUP,
    "unchanged": "select 1",
    "insert": "insert into raw.orders values (2, '2026-01-02')",
    "bulk insert": "insert into raw.orders select range, '2026-01-02' from range(1000)",
    "delete": "delete from raw.orders where id = 1",
    "bulk delete": "delete from raw.orders where id < 500",
    "update": "update raw.orders set id = 3 where id = 600",
    "nothing": "delete from raw.orders where id = -1; begin; insert into raw.orders values (9, null); rollback",
    "column": "alter table raw.orders add column note varchar default 'x'",
    "odd": 'insert into raw."Odd Name" values (1)',
    "other": "create table raw.unread as select 1 as id",
    "compacted": "call ducklake_flush_inlined_data('lake'); call ducklake_merge_adjacent_files('lake')",
    "drop": "drop table raw.dropped",
    "again": "create table raw.dropped (id int)",
    "expired": "call ducklake_expire_snapshots('lake', older_than => now())",
    "touched and expired": (
        "insert into raw.still values (2); insert into raw.orders (id) values (7);"
        " call ducklake_expire_snapshots('lake', older_than => now()); create table raw.unread_too (id int)"
    ),
    # The snapshot of the middle insert goes, those around it stay.
    "hole": (
        "insert into raw.still values (3); insert into raw.orders (id) values (8); create table raw.unread_three (id int);"
        " set variable middle = (select max(snapshot_id) - 1 from ducklake_snapshots('lake'));"
        " call ducklake_expire_snapshots('lake', versions => [getvariable('middle')])"
    ),
    "replaced": "create or replace table raw.orders as select 1 as id, null::timestamp as loaded_at",
    "swapped": "drop table raw.orders; create view raw.orders as select 1 as id, null::timestamp as loaded_at",
}


def change(folder, statements):
    (folder / "lake").mkdir(exist_ok=True)
    with closing(duckdb.connect()) as connection:
        connection.execute("load ducklake")
        connection.execute(f"attach 'ducklake:{folder}/lake/catalog.ducklake' as lake (data_path 'lake/data/')")
        connection.execute("use lake")
        for statement in statements.split(";"):
            connection.execute(statement)


def main(project, target, answers):
    duckdb_extensions.import_extension("ducklake")
    folder = Path(project)
    watched = WatchedProject(folder, target)
    # Nothing may depend on the working directory. But a lake that is no attachment has nowhere to say where its files
    # are, so a relative path to them, which its catalog holds, is right in one directory only.
    elsewhere = folder.parent if target == "attached" else folder
    os.chdir(elsewhere)
    watched.look("nothing yet")
    for step, statements in STEPS.items():
        os.chdir(folder)
        change(folder, statements)
        os.chdir(elsewhere)
        watched.look(step)
        watched.look(f"{step}, seen freshly", freshly=True)
    watched.write(Path(answers))


if __name__ == "__main__":
    main(*sys.argv[1:])
