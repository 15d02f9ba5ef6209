"""Data versions: what identifies a node's rows to its children. Opaque; compared for equality only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping

from dagster_sao.core.manifest.graph import NodeKind

_DIGEST_BYTES = 12
_MOVED = " moved in "
_DEFERRED = "deferred "


def digest(value: object, *, keeps_order: bool = False) -> str:
    """Return a short stable hash of a JSON-like value.

    With `keeps_order`, the order of the keys of mappings counts too, as it does to a template that iterates over one.
    """
    text = json.dumps(value, sort_keys=not keeps_order, separators=(",", ":"), default=str)
    return hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).hexdigest()


def view_version(code: str | None, consumed: Mapping[str, str], definition: str = "") -> str:
    """Return the data version that a view computes, whose stored definition has the fingerprint `code`.

    `definition` tells the columns that it was created anew for: what read it before that may have read other rows.

    None for a view that was never built in this environment: if it has a relation at all, it may not come from the code of
    today.
    """
    return digest([code, consumed, definition] if definition else [code, consumed])


def function_versions(functions: Iterable[str], code: Mapping[str, str]) -> dict[str, str]:
    """Return the functions that a view calls, each with the code that the warehouse has it from, as consumed versions.

    A function is looked up whenever the view is read, so a new one changes the rows of the view without a build.
    """
    return {uid: code.get(uid, "") for uid in functions}


def data_version(kind: NodeKind, fingerprint: str, consumed: Mapping[str, str], build_id: str) -> str:
    """Return the data version of rows built from `fingerprint` and the parents' versions `consumed`.

    `build_id` identifies the build; it counts only where building again gives other rows.
    """
    if kind is NodeKind.VIEW:
        return view_version(fingerprint, consumed)
    if kind is NodeKind.SEED:
        return digest(["seed", fingerprint])
    if kind is NodeKind.HISTORY_DEPENDENT:
        return digest([fingerprint, consumed, build_id])
    return digest([fingerprint, consumed])


def moved_version(version: str, run_id: str, times: int = 1) -> str:
    """Return the consumed version of a parent that moved, or may have moved, while it was read. It equals no other.

    `times` counts the builds in a row that captured `version` and saw it move.

    >>> moved_version("t1", "run 7", 2)
    't1 moved in run 7 (2)'
    """
    return f"{version}{_MOVED}{run_id} ({times})"


def attempt_version(unique_id: str, run_id: str, attempt: int) -> str:
    """Return the version of the rows that a failed attempt leaves: there is no telling which rows these are."""
    return digest(["attempt", unique_id, run_id, attempt])


def deferred_version(run_id: str) -> str:
    """Return the consumed version of what a run reads from another environment. It equals no other.

    >>> is_deferred(deferred_version("run 7")), is_deferred("t1")
    (True, False)
    """
    return f"{_DEFERRED}{run_id}"


def is_deferred(version: str) -> bool:
    """Return whether a consumed version is that of another environment."""
    return version.startswith(_DEFERRED)


def captured_version(version: str) -> str:
    """Return the version that was captured before the build read anything.

    >>> captured_version("t1 moved in run 7 (2)"), captured_version("t1")
    ('t1', 't1')
    """
    return version.rpartition(_MOVED)[0] or version


def times_moved(version: str) -> int:
    """Return how many builds in a row saw it move, 0 for what did not move.

    >>> times_moved("t1 moved in run 7 (2)"), times_moved("t1")
    (2, 0)
    """
    if captured_version(version) == version:
        return 0
    times = version.rpartition(" (")[2].rstrip(")")
    return int(times) if times.isdigit() else 1
