"""dbt-duckdb sources in local files: the token is the stat of every file they read."""

# ruff: noqa: PTH118, PTH208  # plain strings: a glob may match a hundred thousand files at every tick

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path

import sqlglot
from sqlglot import exp

from dagster_sao.core.manifest.graph import Source
from dagster_sao.warehouse.probes.base import Observation, ProbeKind
from dagster_sao.warehouse.probes.settings import matches_no_file, place, relation_sql, settings_of
from dagster_sao.warehouse.probes.untracked import untracked
from dagster_sao.warehouse.relations.file_stat import FileStat, stat_files
from dagster_sao.warehouse.session import WarehouseSession

_REMOTE = re.compile(r"^(?!file:)[a-z][a-z0-9+.-]+:", re.IGNORECASE)
_FILE_SCHEME = re.compile(r"^file:(//(localhost)?(?=/))?", re.IGNORECASE)
_READER = re.compile(r"csv|parquet|json|text|blob|excel|xlsx|avro|delta_scan|iceberg_scan|arrow|^st_read")
"""The table functions that read the named files alone."""
_COMPANIONS = {"read_duckdb": (".wal",), "sqlite_scan": ("-wal", "-journal")}
_MAGIC = re.compile(r"[*?\[]")
_NS = 1_000_000_000
_REMEDY = "Give it a loaded_at_field or loaded_at_query, or let a Dagster asset load it"


class FileProbe:
    """Stat every file that an external source reads. Opens none and needs no connection."""

    kind = ProbeKind.FILE

    def __init__(self, session: WarehouseSession, now_ns: Callable[[], int]) -> None:
        self._adapter_type = session.adapter_type
        self._folders = session.file_search_path
        self._now_ns = now_ns

    def claims(self, source: Source) -> bool:
        """Return whether dbt-duckdb reads the source from files."""
        return self._adapter_type == "duckdb" and settings_of(source).is_external

    def observe(self, sources: Sequence[Source], expired: Callable[[], bool]) -> Iterator[tuple[str, Observation]]:
        """Yield the token of each source's files, or an error when there is no file."""
        for source in sources:
            if expired():
                return
            yield source.unique_id, self._look(source)

    def _look(self, source: Source) -> Observation:
        location = relation_sql(source)
        patterns = _read_paths(location)
        if patterns is None:
            return untracked(source, f"reads {location}, whose files cannot be told from its text", _REMEDY)
        if any(_REMOTE.match(pattern) for pattern in patterns):
            return untracked(source, f"reads the remote {location}", _REMEDY)
        now = self._now_ns()
        try:
            paths = {path for pattern in patterns for folder in self._folders for path in _expand(folder, pattern)}
            found = stat_files(sorted(paths))
        except OSError as error:
            sentence = (
                f"{place(source)} reads {location}, which cannot be probed: {error.strerror}. Correct its permissions"
            )
            return Observation(None, ProbeKind.FILE, error=sentence)
        if not found:
            return Observation(None, ProbeKind.FILE, error=matches_no_file(source))
        newest = max(entry.mtime_ns for entry in found)
        return Observation(_token(found, now), ProbeKind.FILE, loaded_at=_utc(newest))


def _read_paths(location: str) -> list[str] | None:
    """Return the paths and globs that a FROM item reads, or None when it reads something else too.

    >>> _read_paths("read_csv(['a.csv', 'b/*.csv'], delim='|')")
    ['a.csv', 'b/*.csv']
    >>> _read_paths("(select * from 'a.csv' join customers using (id))") is None
    True
    """
    try:
        tree = sqlglot.parse_one(f"select * from {location}", dialect="duckdb")  # noqa: S608  # parsed, never run
    except sqlglot.ParseError:
        return None
    paths: list[str] = []
    for table in tree.find_all(exp.Table):
        if isinstance(table.this, exp.Identifier):
            # `'a.csv'` is parsed like a quoted name; a relation of the database is not a file.
            if not table.this.args.get("quoted") or not re.search(r"[./\\:*]", table.name):
                return None
            paths.append(table.name)
            continue
        arguments = _arguments(table.this)
        companions = _companions(table.this)
        if not arguments or companions is None:
            return None
        paths.extend(path + ending for path in arguments for ending in ("", *companions))
    return paths or None


def _companions(function: exp.Expr) -> tuple[str, ...] | None:
    """Return the endings of the files that a table function reads beside the named ones; None where they are not known."""
    known = function.sql_name() if isinstance(function, exp.Func) else ""
    name = (function.name if isinstance(function, exp.Anonymous) else known).lower()
    if name in _COMPANIONS:
        return _COMPANIONS[name]
    return () if _READER.search(name) else None


def _arguments(function: exp.Expression) -> list[str]:
    """Return the string or the list of strings that a table function starts with."""
    first = function.this if isinstance(function.this, exp.Expression) else None
    first = first or next(iter(function.expressions), None)
    items = first.expressions if isinstance(first, exp.Array) else [first]
    texts = [item.name for item in items if isinstance(item, exp.Literal) and item.is_string]
    return texts if len(texts) == len(items) else []


def _expand(folder: Path, pattern: str) -> Iterator[str]:
    """Yield the files of a path or glob with DuckDB's rules: hidden files count, `**` is any depth.

    A relative path starts at `folder`. A directory (Delta, Iceberg) stands for all files below it.
    """
    pattern = str(folder / Path(_FILE_SCHEME.sub("", pattern)))
    root = Path(pattern).anchor
    starts = [root]
    for part in Path(pattern).parts[1:]:
        starts = [path for start in starts for path in _step(start, part)]
    for path in starts:
        if Path(path).is_dir():
            yield from (os.path.join(at, name) for at, _, names in os.walk(path) for name in names)
        else:
            yield path


def _step(start: str, part: str) -> Iterator[str]:
    if part == "**":
        yield from (at for at, _, _ in os.walk(start))
    elif _MAGIC.search(part):
        try:
            names = os.listdir(start)
        except (FileNotFoundError, NotADirectoryError):
            return
        yield from (os.path.join(start, name) for name in fnmatch.filter(names, part))
    else:
        yield os.path.join(start, part)


def _token(found: Sequence[FileStat], now_ns: int) -> str:
    token = hashlib.sha256(repr(found).encode()).hexdigest()[:32]
    # Another write within the same tick of the clock may still follow and leave no other trace. So this token
    # differs from the one that a later look finds: at worst a build too many.
    return token if all(entry.is_settled_for_its_clock(now_ns) for entry in found) else f"{token}-unsettled"


def _utc(ns: int) -> datetime:
    return datetime.fromtimestamp(ns // _NS, timezone.utc).replace(microsecond=ns % _NS // 1000)
