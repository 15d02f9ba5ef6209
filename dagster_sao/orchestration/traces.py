"""The file in which dbt records what nodes read, as a run reads it while dbt goes on writing."""

from __future__ import annotations

from pathlib import Path

from dbt_dagster_sao.trace import Trace


class TraceFile:
    """The traces of one dbt invocation. dbt writes the line of a node before it logs that the node ended."""

    def __init__(self, path: Path) -> None:
        """Read nothing yet."""
        self._path = path
        self._offset = 0
        self._found: dict[str, Trace] = {}

    def exists(self) -> bool:
        """Return whether dbt has begun to trace."""
        return self._path.exists()

    def get(self, unique_id: str) -> Trace | None:
        """Return the trace of a node, None where the file holds none that is understood."""
        if unique_id not in self._found:
            self._read_on()
        return self._found.get(unique_id)

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
            trace = _trace(line)
            if trace is not None:
                self._found[trace.node] = trace


def _trace(line: bytes) -> Trace | None:
    try:
        return Trace.from_json(line.decode())
    except ValueError:
        return None
