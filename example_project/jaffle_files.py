"""The two sources that arrive as files: a CSV price list, replaced, and Parquet files, piling up.

Every file is written beside its place and then moved there, so a reader sees the old file or the
new one, never half.
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import duckdb

from jaffle_db import Row, landing_path
from jaffle_rows import CHANNELS, Batch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SHARE_OF_LOGINS = 0.65
SHARE_OF_PERISHABLES = 0.5
SUPPLY_COLUMNS = ("supply_id", "product_id", "name", "cost_cents", "is_perishable")
SUPPLY_NAMES = ("bread", "napkin", "box", "cheese", "butter", "cup", "spoon", "sauce")


def supplies_path() -> Path:
    """Return the CSV file with the suppliers' price list."""
    return landing_path() / "supplies.csv"


def read_supplies() -> list[Row]:
    """Return the price list, every value as text, oldest row first."""
    with supplies_path().open(newline="", encoding="utf-8") as file:
        return [tuple(row) for row in csv.reader(file)][1:]


def write_supplies(rows: Sequence[Row]) -> None:
    """Replace the price list."""
    path = supplies_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([SUPPLY_COLUMNS, *rows])
    part.replace(path)


def make_supplies(first_id: int, product_ids: Sequence[int], batch: Batch) -> list[Row]:
    """Return new lines of the price list, spread evenly over the products."""
    rng = batch.rng
    numbers = range(first_id, first_id + batch.rows)
    return [
        (
            number,
            product_ids[(number - 1) % len(product_ids)],
            SUPPLY_NAMES[number % len(SUPPLY_NAMES)],
            rng.randrange(10, 150, 5),
            "true" if rng.random() < SHARE_OF_PERISHABLES else "false",
        )
        for number in numbers
    ]


def session_paths() -> list[Path]:
    """Return the Parquet files of web sessions, oldest first."""
    return sorted((landing_path() / "web_sessions").glob("*.parquet"))


def read_sessions(path: Path) -> list[Row]:
    """Return the sessions of one file, oldest first."""
    with duckdb.connect() as memory:
        return memory.execute("select * from read_parquet(?) order by session_id", [str(path)]).fetchall()


def count_sessions() -> int:
    """Return how many sessions all files hold."""
    return sum(len(read_sessions(path)) for path in session_paths())


def last_session_id() -> int:
    """Return the largest session id there is, 0 when there is none."""
    return max((row[0] for path in session_paths() for row in read_sessions(path)), default=0)


def write_sessions(path: Path, rows: Sequence[Row]) -> None:
    """Write one Parquet file of sessions, replacing it when it exists."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with duckdb.connect() as memory:
        memory.execute(
            "create table s (session_id bigint, customer_id bigint, channel varchar, pages_viewed bigint,"
            " started_at timestamp)"
        )
        if rows:
            columns: list[list[Any]] = [list(values) for values in zip(*rows, strict=True)]
            memory.execute(
                "insert into s select unnest(?), unnest(?), unnest(?), unnest(?), unnest(?)",
                columns,
            )
        memory.table("s").write_parquet(str(part))
    part.replace(path)


def next_session_path() -> Path:
    """Return the name of the next file to land."""
    numbers = [int(path.stem.rpartition("_")[2]) for path in session_paths()]
    return landing_path() / "web_sessions" / f"sessions_{max(numbers, default=0) + 1:05d}.parquet"


def make_sessions(first_id: int, customer_ids: Sequence[int], batch: Batch) -> list[Row]:
    """Return new sessions; about a third of the visitors are not logged in."""
    rng = batch.rng
    return [
        (
            number,
            rng.choice(customer_ids) if rng.random() < SHARE_OF_LOGINS else None,
            rng.choice(CHANNELS),
            rng.randint(1, 12),
            moment,
        )
        for number, moment in enumerate(batch.moments(), start=first_id)
    ]
