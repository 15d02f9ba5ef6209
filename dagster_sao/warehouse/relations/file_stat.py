"""The state of files, from `stat` alone. Nothing is opened, so no lock of DuckDB is ever taken or dropped."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# Two writes within one tick of the file system's clock leave the same times. 2 s is the coarsest in use (FAT).
SETTLED_AFTER_NS = 2_000_000_000
# Where times have a sub-second part, the tick is the kernel's: at most 10 ms.
_FINE_SETTLED_AFTER_NS = 20_000_000
_SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class FileStat:
    """The identity of a file's content, as far as `stat` shows it. Times are in nanoseconds since the epoch."""

    path: str
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    def is_settled(self, now_ns: int, after_ns: int = SETTLED_AFTER_NS) -> bool:
        """Return whether any later write leaves another stat. A time in the future is never settled."""
        return now_ns - max(self.mtime_ns, self.ctime_ns) >= after_ns

    def is_settled_for_its_clock(self, now_ns: int) -> bool:
        """Return `is_settled` for the resolution that this file's own times show."""
        coarse = self.mtime_ns % _SECOND_NS == 0
        return self.is_settled(now_ns, SETTLED_AFTER_NS if coarse else _FINE_SETTLED_AFTER_NS)


def stat_files(paths: Iterable[str | Path]) -> tuple[FileStat, ...]:
    """Return the stat of every path that exists, in the given order."""
    found = []
    for path in paths:
        try:
            entry = os.stat(path)  # noqa: PTH116  # a str in, a str out: thousands of files per tick
        except (FileNotFoundError, NotADirectoryError):
            continue
        found.append(FileStat(str(path), entry.st_ino, entry.st_size, entry.st_mtime_ns, entry.st_ctime_ns))
    return tuple(found)
