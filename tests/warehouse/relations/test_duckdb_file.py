"""The count of checkpoints in a DuckDB file: higher after each write, lower only in an older copy."""

import shutil
import subprocess
import sys

import duckdb

from dagster_sao.warehouse.relations.duckdb_file import checkpoints


def write(file, *statements):
    with duckdb.connect(file) as connection:
        for statement in statements:
            connection.execute(statement)


def test_each_write_raises_the_count_and_reading_leaves_it(tmp_path):
    file = tmp_path / "shop.duckdb"
    counts = []
    for statement in (
        "create table t as select 1 as a",
        "insert into t values (2)",
        "create or replace view v as from t",
    ):
        write(file, statement)
        counts.append(checkpoints(file))
    assert counts == sorted(set(counts))
    write(file, "from t")
    assert checkpoints(file) == counts[-1]


def test_an_older_copy_has_a_lower_count(tmp_path):
    file, copy = tmp_path / "shop.duckdb", tmp_path / "copy.duckdb"
    write(file, "create table t as select 1 as a")
    shutil.copy(file, copy)
    write(file, "insert into t values (2)")
    before = checkpoints(file)
    shutil.copy(copy, file)
    assert checkpoints(file) < before


def test_reading_the_count_takes_no_lock_away(tmp_path):
    file = tmp_path / "shop.duckdb"
    write(file, "create table t as select 1 as a")
    other = [sys.executable, "-c", f"import duckdb; duckdb.connect({str(file)!r})"]
    with duckdb.connect(file):
        assert checkpoints(file) is not None
        refused = subprocess.run(other, check=False, capture_output=True, text=True)
    assert "lock" in refused.stderr


def test_what_is_not_a_database_has_no_count(tmp_path):
    text = tmp_path / "shop.duckdb"
    assert checkpoints(text) is None
    text.write_text("not a database" * 2000)
    assert checkpoints(text) is None
