"""Load the raw data of the example shop, as an EL tool outside Dagster would.

Nothing here tells Dagster anything: that new data is noticed all the same is what the example
shows.
"""

from __future__ import annotations

import functools
import random
import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import ParamSpec

import click
import duckdb
from rich.console import Console
from rich.table import Table

import jaffle_db
from jaffle_rows import Batch, create_tables
from jaffle_sources import SOURCES, NotSupportedError, Source

HISTORY = timedelta(days=90)
EVERYTHING = "all"

Change = Callable[[duckdb.DuckDBPyConnection, str, Source], int]
P = ParamSpec("P")

console = Console(highlight=False)


def one_clear_sentence(command: Callable[P, None]) -> Callable[P, None]:
    """Turn the failures that a user can meet into a message without a traceback."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except jaffle_db.WarehouseBusyError as error:
            message = f"{error}. Nothing was changed; try again, or wait longer with --wait."
            raise click.ClickException(message) from error
        except (duckdb.Error, OSError) as error:
            message = f"The data could not be read or written, and the database is unchanged: {error}"
            raise click.ClickException(message) from error

    return wrapped


def wait_option(command: Callable[P, None]) -> Callable[P, None]:
    """Add the option that says how long to wait for the database file."""
    return click.option(
        "--wait",
        type=click.FloatRange(min=0),
        default=60.0,
        show_default=True,
        help="Seconds to wait for the file.",
    )(command)


def change_options(command: Callable[P, None]) -> Callable[P, None]:
    """Add what append, update and delete have in common."""
    names = click.Choice([*SOURCES, EVERYTHING])
    sources = click.argument("sources", nargs=-1, required=True, type=names, metavar="SOURCE...")
    rows = click.option(
        "--rows",
        "-n",
        type=click.IntRange(min=1),
        default=10,
        show_default=True,
        help="Per source.",
    )
    return sources(rows(wait_option(command)))


@click.group(help=__doc__, epilog=f"Sources: {', '.join(SOURCES)}; or {EVERYTHING}.")
def cli() -> None:
    """Collect the commands; its help is the text at the top of this file."""


@cli.command()
@click.option("--force", is_flag=True, help="Throw the existing data away and start again.")
@click.option("--seed", default=2024, show_default=True, help="Same seed and same --as-of: same data.")
@click.option("--as-of", type=click.DateTime(), help="UTC time at which the history ends.  [default: now]")
@wait_option
@one_clear_sentence
def init(*, force: bool, seed: int, as_of: datetime | None, wait: float) -> None:
    """Create the warehouse and the landing files, with three months of history."""
    path, landing = jaffle_db.warehouse_path(), jaffle_db.landing_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    end = as_of or jaffle_db.utc_now().replace(microsecond=0)
    with jaffle_db.connect(wait_seconds=wait, on_wait=_say_waiting()) as db:
        # The file alone proves nothing: dbt creates an empty one when it comes first.
        if _has_data(db) and not force:
            console.print(f"[green]{path.name}[/] is already there. Use [bold]--force[/] to start again.")
            return
        # The file is emptied, not deleted: another process may be about to open it.
        _drop_everything(db)
        _remove_landing_files()
        create_tables(db)
        for name, source in SOURCES.items():
            source.append(db, Batch(source.initial_rows, end - HISTORY, end, _rng(seed, name)))
        counts = _counts(db)
    console.print(f"Created [green]{path.name}[/] and [green]{landing.name}/[/].")
    console.print(_table(counts))


@cli.command()
@change_options
@one_clear_sentence
def append(*, sources: tuple[str, ...], rows: int, wait: float) -> None:
    """Add new rows whose keys fit the rows already there."""
    now = jaffle_db.utc_now()

    def add(db: duckdb.DuckDBPyConnection, name: str, source: Source) -> int:
        return source.append(db, Batch(rows, now, now, _rng(source.count(db), name)))

    _apply(sources, wait, "appended", add)


@cli.command()
@change_options
@one_clear_sentence
def update(*, sources: tuple[str, ...], rows: int, wait: float) -> None:
    """Change the newest rows in place."""
    now = jaffle_db.utc_now()
    _apply(sources, wait, "updated", lambda db, _name, source: source.update(db, rows, now))


@cli.command()
@change_options
@one_clear_sentence
def delete(*, sources: tuple[str, ...], rows: int, wait: float) -> None:
    """Remove the newest rows; an order takes its items, payments and refunds along."""
    now = jaffle_db.utc_now()
    _apply(sources, wait, "deleted", lambda db, _name, source: source.delete(db, rows, now))


@cli.command()
@wait_option
@one_clear_sentence
def status(*, wait: float) -> None:
    """Show how many rows each source has."""
    _require_warehouse()
    with jaffle_db.connect(wait_seconds=wait, on_wait=_say_waiting()) as db:
        counts = _counts(db)
    console.print(_table(counts))


def _apply(names: tuple[str, ...], wait: float, verb: str, change: Change) -> None:
    _require_warehouse()
    everything = EVERYTHING in names
    wanted = list(SOURCES) if everything else list(dict.fromkeys(names))
    done: list[tuple[str, int]] = []
    with jaffle_db.connect(wait_seconds=wait, on_wait=_say_waiting()) as db:
        for name in wanted:
            try:
                done.append((name, change(db, name, SOURCES[name])))
            except NotSupportedError as error:
                if not everything:
                    message = f"Rows of {name} are never {verb}: its system does not do that. Nothing was changed."
                    raise click.ClickException(message) from error
    # Printed after the file is closed: a slow terminal must not keep others waiting.
    for name, count in done:
        console.print(f"[bold cyan]{name}[/]: {count} {'row' if count == 1 else 'rows'} {verb}")


def _require_warehouse() -> None:
    path = jaffle_db.warehouse_path()
    if not path.exists():
        message = f"{path.name} does not exist yet. Create it with: python example_project/load.py init"
        raise click.ClickException(message)


def _say_waiting() -> Callable[[], None]:
    said: list[bool] = []

    def say_once() -> None:
        if not said:
            console.print("[yellow]Another process has the database open. Waiting for it ...[/]")
            said.append(True)

    return say_once


def _rng(seed: int, name: str) -> random.Random:
    return random.Random(f"{seed} {name}")  # noqa: S311  # repeatable test data, not a secret


def _has_data(db: duckdb.DuckDBPyConnection) -> bool:
    return bool(db.execute("from duckdb_schemas() where schema_name = 'raw_shop'").fetchall())


def _drop_everything(db: duckdb.DuckDBPyConnection) -> None:
    query = "select schema_name from duckdb_schemas() where not internal and database_name = current_database()"
    for (schema,) in db.execute(query).fetchall():
        db.execute(f'drop schema "{schema}" cascade')


def _remove_landing_files() -> None:
    landing = jaffle_db.landing_path()
    # Only what this loader writes: the directory may be one that the user chose.
    shutil.rmtree(landing / "web_sessions", ignore_errors=True)
    (landing / "supplies.csv").unlink(missing_ok=True)


def _counts(db: duckdb.DuckDBPyConnection) -> dict[str, int]:
    return {name: source.count(db) for name, source in SOURCES.items()}


def _table(counts: dict[str, int]) -> Table:
    table = Table("Source")
    table.add_column("Rows", justify="right")
    for name, count in counts.items():
        table.add_row(name, str(count))
    return table


if __name__ == "__main__":
    cli()
