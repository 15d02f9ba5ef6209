"""The file in which dbt records the reads of nodes. A run reads it while dbt goes on writing."""

from __future__ import annotations

from pathlib import Path

from dbt_dagster_sao.data_tests.handover import AnsweredTest, answered_test
from dbt_dagster_sao.database_file import FileClosed, FileOpened, FileRead, file_event, file_read
from dbt_dagster_sao.trace import Trace


class TraceFile:
    """The traces of one dbt invocation. dbt writes the line of a node before it logs that the node ended."""

    def __init__(self, path: Path) -> None:
        """Read nothing yet."""
        self._path = path
        self._offset = 0
        self._is_taken = False
        self._found: dict[str, Trace] = {}
        self._answered: dict[str, AnsweredTest] = {}
        self._file_events: list[FileOpened | FileClosed] = []

    def exists(self) -> bool:
        """Return whether dbt has begun to trace."""
        return self._is_taken or self._path.exists()

    def take(self) -> None:
        """Read the file to its end and remove it, once dbt has ended: the statements in it may contain secrets."""
        self._read_on()
        self._is_taken = self.exists()
        self._path.unlink(missing_ok=True)

    def get(self, unique_id: str) -> Trace | None:
        """Return the trace of a node, None where the file has none that can be read."""
        if unique_id not in self._found:
            self._read_on()
        return self._found.get(unique_id)

    def answered(self, test: str) -> AnsweredTest | None:
        """Return how a test that has ended was answered, None where dbt just ran it."""
        if test not in self._answered:
            self._read_on()
        return self._answered.get(test)

    def file_read(self) -> FileRead:
        """Return the DuckDB file that dbt read, and its state."""
        self._read_on()
        return file_read(self._file_events)

    def _read_on(self) -> None:
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                content = file.read()
        except OSError:
            return
        # A line that is being written is left for the next time.
        complete, newline, _ = content.rpartition(b"\n")
        self._offset += len(complete) + len(newline)
        for line in complete.splitlines():
            found = _understood(line)
            if isinstance(found, Trace):
                self._found[found.node] = found
            elif isinstance(found, AnsweredTest):
                self._answered[found.test] = found
            elif found is not None:
                self._file_events.append(found)


def _understood(line: bytes) -> Trace | AnsweredTest | FileOpened | FileClosed | None:
    try:
        text = line.decode()
        return file_event(text) or answered_test(text) or Trace.from_json(text)
    except ValueError:
        return None
