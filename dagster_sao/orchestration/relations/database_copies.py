"""Which DuckDB files are older copies of themselves, told by their counts of checkpoints and the highest counts before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from dagster_sao.orchestration.state.relation_notes import read_checkpoints, write_checkpoints
from dagster_sao.warehouse.relations.duckdb_file import checkpoints


@dataclass(frozen=True, slots=True)
class DatabaseCopies:
    """The DuckDB files of a target as they are, beside the counts that were noted before."""

    files: Mapping[str, str]
    """The path of each file that shows a count, by the name of its database in lower case."""
    counts: Mapping[str, int]
    """The count of each file, by its path."""
    noted: Mapping[str, int]

    @property
    def older(self) -> Mapping[str, int]:
        """The databases whose files had more checkpoints before, each with the count that it has now."""
        counts = {database: self.counts[file] for database, file in self.files.items()}
        return {name: count for name, count in counts.items() if count < self.noted.get(self.files[name], 0)}

    def note(self, instance: dg.DagsterInstance, project_name: str, *, older: bool = True) -> None:
        """Note the counts that are not the noted ones; with `older=False`, only the higher ones."""
        found = {file: n for file, n in self.counts.items() if older or n > self.noted.get(file, 0)}
        if {**self.noted, **found} != self.noted:
            write_checkpoints(instance, project_name, {**self.noted, **found})


def database_copies(instance: dg.DagsterInstance, project_name: str, files: Mapping[str, Path]) -> DatabaseCopies:
    """Return DuckDB files, by the name of their database in lower case, as they are now."""
    found = {
        database: (str(file), count) for database, file in files.items() if (count := checkpoints(file)) is not None
    }
    noted = read_checkpoints(instance, project_name) if found else {}
    return DatabaseCopies({database: file for database, (file, _) in found.items()}, dict(found.values()), noted)
