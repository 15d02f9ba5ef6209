"""Seed files while dbt loads them: the recorded checksum belongs to the content that dbt loaded, or to no file at all.

dbt's own checksum is of the text without the blanks at its ends, taken while dbt parses, and it takes none of a file over 1 MiB.
So this package takes its own.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dagster_sao.core.code.versions import digest
from dagster_sao.orchestration.private.dbt_selection import inferred_columns
from dagster_sao.warehouse.adapters import traits_of
from dagster_sao.warehouse.relations.file_stat import FileStat, stat_files

_LARGEST_SMALL_SEED = 1 << 20
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class SeedFile:
    """A seed's file before dbt starts."""

    path: Path
    checksum: str
    """The checksum of its content."""
    stat: tuple[FileStat, ...]
    is_settled: bool
    """Whether every later write leaves another stat."""

    @property
    def has_moved(self) -> bool:
        """Whether it was written, or may have been, since."""
        return not self.is_settled or stat_files([self.path]) != self.stat


def seed_files(
    project_dir: Path, manifest: Mapping[str, Any], unique_ids: Iterable[str]
) -> Iterator[tuple[str, SeedFile]]:
    """Yield the files of the seeds among `unique_ids`."""
    for unique_id in unique_ids:
        props = manifest["nodes"].get(unique_id) or {}
        if props.get("resource_type") != "seed":
            continue
        path = _path(project_dir, props)
        stat = stat_files([path])
        try:
            checksum = _hash_file(path)
        except OSError:  # dbt will report the problem
            continue
        yield unique_id, SeedFile(path, checksum, stat, _settles(stat))


def seed_checksums(project_dir: Path, manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the checksums of the seed files that exist."""
    for unique_id, props in manifest["nodes"].items():
        if props["resource_type"] == "seed":
            path = _path(project_dir, props)
            if path.exists():
                yield unique_id, _hash_file(path)


def seed_columns(
    project_dir: Path, manifest: Mapping[str, Any], unique_id: str, cache: MutableMapping[str, str]
) -> str:
    """Return a text that differs where dbt would create a seed's table with other columns, or might.

    dbt infers the types from all rows. Of a large file, or one that dbt cannot read, that is the content. `cache` keeps what
    is known of files by their content.
    """
    props = manifest["nodes"][unique_id]
    path, config = _path(project_dir, props), props.get("config") or {}
    named = dict(config.get("column_types") or {})
    delimiter = str(config.get("delimiter") or ",")
    try:
        checksum = _hash_file(path)
        if path.stat().st_size > _LARGEST_SMALL_SEED:
            return checksum
    except OSError:  # dbt will report the problem
        return ""
    is_sized = traits_of(str(manifest["metadata"].get("adapter_type"))).sizes_seed_columns
    key = digest(["seed columns", checksum, sorted(named), delimiter, is_sized])
    if key not in cache:
        columns = inferred_columns(path, named, delimiter, is_sized=is_sized)
        cache[key] = digest(columns) if columns is not None else checksum
    return cache[key]


def _hash_file(path: Path) -> str:
    """Return the checksum of a file's content."""
    hashed = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(_BLOCK), b""):
            hashed.update(block)
    return hashed.hexdigest()


def _settles(stat: tuple[FileStat, ...]) -> bool:
    """Return whether the files' clock has moved on since they were written; waits for that, if it is an instant."""
    for _ in range(5):
        if all(entry.is_settled_for_its_clock(time.time_ns()) for entry in stat):
            return True
        time.sleep(0.01)
    return False


def _path(project_dir: Path, props: Mapping[str, Any]) -> Path:
    return Path(props.get("root_path") or project_dir) / str(props["original_file_path"])
