"""What a node has not read yet: the parents with another version, and those of which that is the node's own doing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from dagster_sao.core.code.versions import captured_version, times_moved
from dagster_sao.core.durations import is_waiting
from dagster_sao.core.state.state import LastBuild, retry_wait


@dataclass(frozen=True, slots=True)
class News:
    """The parents that have another version than the one that the last build of a node read."""

    changed: tuple[str, ...] = ()
    stirred: tuple[str, ...] = ()
    """Those that moved during the run of that build, and not since: they are waited for."""


def news(
    parents: tuple[str, ...],
    last_build: LastBuild,
    versions: Mapping[str, str],
    moved_in_run: Mapping[str, str],
    *,
    now: datetime,
) -> News:
    """Return the parents that are new to a node. `moved_in_run` are those that moved during the run of its last build."""
    found = [
        parent
        for parent in changed_parents(parents, last_build.consumed, versions)
        if not _moves_by_building(parent, last_build, versions, now)
    ]
    stirred = tuple(parent for parent in found if _is_stirred(parent, last_build, versions, moved_in_run, now))
    return News(tuple(parent for parent in found if parent not in stirred), stirred)


def changed_parents(
    parents: tuple[str, ...], consumed: Mapping[str, str], versions: Mapping[str, str]
) -> Iterator[str]:
    """Yield the parents whose version differs from the one consumed. One without a version has not changed."""
    for parent in parents:
        version = versions.get(parent)
        if version is not None and consumed.get(parent) != version:
            yield parent


def _is_stirred(
    parent: str, last_build: LastBuild, versions: Mapping[str, str], moved_in_run: Mapping[str, str], now: datetime
) -> bool:
    """Return whether a parent moved during the run of the last build, and not since, and is still waited for.

    The first time the node is built again at once. What moves each time is moved by the runs of the node, such as by a hook.
    """
    times = last_build.stirred.get(parent, 0)
    is_as_left = moved_in_run.get(parent) == versions.get(parent)
    return bool(times) and is_as_left and is_waiting(now, last_build.ended_at, retry_wait(times))


def _moves_by_building(parent: str, last_build: LastBuild, versions: Mapping[str, str], now: datetime) -> bool:
    """Return whether a parent is as it was, but for moving during the last builds, and it is too soon to try once more.

    The first time the node is built again at once. What moves each time may be moved by the build itself, such as by a hook.
    """
    consumed = last_build.consumed.get(parent, "")
    times = times_moved(consumed)
    is_back = captured_version(consumed) == versions.get(parent)
    return times > 1 and is_back and is_waiting(now, last_build.ended_at, retry_wait(times - 1))
