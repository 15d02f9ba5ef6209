"""The number of writes to a DuckDB file, which shows when somebody put an older copy in its place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_MAGIC = b"DUCK"
_BLOCK = 4096
_HEADERS = (_BLOCK, 2 * _BLOCK)
# In a process of its own: closing the file in this one would drop the locks that DuckDB holds on it here.
_READ = f"import sys; sys.stdout.buffer.write(open(sys.argv[1], 'rb').read({3 * _BLOCK}))"
_PATIENCE_SECONDS = 10


def checkpoints(file: Path) -> int | None:
    """Return how many checkpoints a DuckDB database file has had; None where the file does not show it.

    Each checkpoint raises the number, and each close after a write makes one. A lower number than before is an older
    copy. See `DatabaseHeader` in DuckDB's src/include/duckdb/storage/storage_info.hpp.
    """
    command = [sys.executable, "-I", "-S", "-c", _READ, str(file)]
    try:
        read = subprocess.run(command, capture_output=True, check=False, timeout=_PATIENCE_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return None
    return _highest_iteration(read.stdout)


def _highest_iteration(start: bytes) -> int | None:
    """Return the higher number of the two database headers: DuckDB writes one of them at a time.

    >>> head = bytes(8) + b"DUCK" + bytes(4084)
    >>> header = lambda iteration: bytes(8) + iteration.to_bytes(8, "little") + bytes(4080)
    >>> _highest_iteration(head + header(3) + header(2))
    3
    """
    if len(start) < 3 * _BLOCK or start[8:12] != _MAGIC:
        return None
    return max(int.from_bytes(start[at + 8 : at + 16], "little") for at in _HEADERS)
