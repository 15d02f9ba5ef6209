"""The file of a DuckDB database, by its `stat`: whether anything but dbt wrote it between two moments.

While dbt has the file open, nothing else can write it. So its state when dbt opened it shows what dbt read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

COMPANIONS = ("", ".wal", ".wal.checkpoint", ".wal.recovery")
"""The endings of the files that belong to a database. DuckDB 1.5 and later use the last two."""


@dataclass(frozen=True, slots=True)
class FileOpened:
    """That dbt opened its database: a line of its own kind in a file of traces."""

    path: str
    """Absolute, without symbolic links."""
    before: str
    after: str

    def to_json(self) -> str:
        """Return one line for a file of traces."""
        return json.dumps({"opened": [self.path, self.before, self.after]}, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class FileClosed:
    """That dbt closed its database, which it may open again (`keep_open: false`)."""

    after: str

    def to_json(self) -> str:
        """Return one line for a file of traces."""
        return json.dumps({"closed": self.after}, separators=(",", ":"))


def file_event(line: str) -> FileOpened | FileClosed | None:
    """Return what a line of a file of traces says about dbt's database, None where it is another kind of line.

    Raises ValueError for anything else than a line of such a file.
    """
    document = json.loads(line)
    if not isinstance(document, dict):
        return None
    if isinstance(opened := document.get("opened"), list):
        path, before, after = map(str, opened)
        return FileOpened(path, before, after)
    return FileClosed(str(document["closed"])) if "closed" in document else None


@dataclass(frozen=True, slots=True)
class FileRead:
    """The database file that dbt read in one invocation."""

    path: str
    """Empty where dbt opened none, or it is not known which."""
    state: str
    """The state from which dbt read on, alone; empty where others may have written the file meanwhile."""


def file_read(events: Sequence[FileOpened | FileClosed]) -> FileRead:
    """Return what dbt read, from what it did with its database.

    >>> file_read([FileOpened("/a", "1", "1"), FileClosed("2"), FileOpened("/a", "2", "2")])
    FileRead(path='/a', state='1')
    >>> file_read([FileOpened("/a", "1", "1"), FileClosed("2"), FileOpened("/a", "3", "3")])
    FileRead(path='/a', state='')
    """
    paths = {event.path for event in events if isinstance(event, FileOpened)}
    return FileRead(paths.pop(), _state_that_was_read(events)) if len(paths) == 1 else FileRead("", "")


def _state_that_was_read(events: Sequence[FileOpened | FileClosed]) -> str:
    first, left = "", ""
    is_open = False
    for event in events:
        if isinstance(event, FileClosed):
            is_open, left = False, event.after
            continue
        if is_open or not event.before or event.before != event.after or (first and event.before != left):
            return ""
        first, is_open = first or event.before, True
    return first


def database_state(path: str | Path) -> str:
    """Return a value that every later write to a database file changes; empty where there is none, or it is not known.

    Two writes within one tick of the file system's clock may leave the same.
    """
    found = []
    for companion in COMPANIONS:
        try:
            entry = os.stat(f"{path}{companion}")  # noqa: PTH116  # companions are names, not paths
        except (FileNotFoundError, NotADirectoryError):
            if not companion:
                return ""
        except OSError:
            return ""
        else:
            times = f"{entry.st_mtime_ns} {entry.st_ctime_ns}"
            found.append(f"{companion or 'file'} {entry.st_ino} {entry.st_size} {times}")
    return ", ".join(found)
