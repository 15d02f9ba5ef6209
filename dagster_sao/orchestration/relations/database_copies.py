"""Whether a DuckDB file is an older copy of itself, told by its count of checkpoints and the highest count before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from dagster_sao.orchestration.state.relation_notes import read_checkpoints, write_checkpoints
from dagster_sao.warehouse.relations.duckdb_file import checkpoints


@dataclass(frozen=True, slots=True)
class DatabaseCopy:
    """A DuckDB file as it is, beside the counts that were noted before."""

    file: str
    count: int
    noted: Mapping[str, int]

    @property
    def is_older(self) -> bool:
        """Return whether the file had more checkpoints before."""
        return self.count < self.noted.get(self.file, 0)

    def note(self, instance: dg.DagsterInstance, project_name: str) -> None:
        """Note the count of the file, where it is not the one that was noted."""
        if self.count != self.noted.get(self.file):
            write_checkpoints(instance, project_name, {**self.noted, self.file: self.count})


def database_copy(instance: dg.DagsterInstance, project_name: str, file: Path | None) -> DatabaseCopy | None:
    """Return a DuckDB file as it is now; None where there is no file, or it does not show a count."""
    count = checkpoints(file) if file is not None else None
    return None if count is None else DatabaseCopy(str(file), count, read_checkpoints(instance, project_name))
