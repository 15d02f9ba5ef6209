"""The file of a DuckDB database, as dbt opens and closes it."""

from __future__ import annotations

import os
from functools import wraps
from typing import Any

from dbt_dagster_sao.database_file import FileClosed, FileOpened, database_state
from dbt_dagster_sao.private_points.point import Wrapper
from dbt_dagster_sao.recorder import current


def initialize_db(original: Any) -> Any:
    """Record the state of the file before and after dbt opens it. If they are equal, nobody wrote it in between."""
    open_db = original.__func__

    @wraps(open_db)
    def initialize_db(cls: Any, creds: Any, *arguments: Any, **options: Any) -> Any:
        before = database_state(creds.path)
        opened = open_db(cls, creds, *arguments, **options)
        after = database_state(creds.path)
        if before or after:
            _write(FileOpened(os.path.realpath(creds.path), before, after))
        return opened

    return classmethod(initialize_db)


def close_db(original: Wrapper) -> Wrapper:
    """Record the state of the file when dbt closes it."""

    @wraps(original)
    def close(self: Any) -> Any:
        was_open = getattr(self, "conn", None) is not None
        found = original(self)
        if was_open and (after := database_state(self.creds.path)):
            _write(FileClosed(after))
        return found

    return close


def _write(event: FileOpened | FileClosed) -> None:
    if current.session is not None:
        try:
            current.session.write(event.to_json())
        except OSError:
            return  # without this line, the reader takes what was read as unknown
