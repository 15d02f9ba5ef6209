"""Data versions: what identifies a node's rows to its children. Opaque; compared for equality only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from dagster_sao.core.graph import NodeKind

_DIGEST_BYTES = 12


def digest(value: object) -> str:
    """Return a short stable hash of a JSON-like value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).hexdigest()


def view_version(code: str | None, consumed: Mapping[str, str], definition: str = "") -> str:
    """Return the data version that a view computes, whose stored definition has the fingerprint `code`.

    `definition` tells the columns that it was created anew for: what read it before that may have read other rows.

    None for a view that was never built in this environment: what its relation holds, if there is one, is not known, and is
    not what its code of today makes of its parents.
    """
    return digest([code, consumed, definition] if definition else [code, consumed])


def data_version(
    kind: NodeKind, fingerprint: str, consumed: Mapping[str, str], build_id: str, content: str | None = None
) -> str:
    """Return the data version of rows built from `fingerprint` and the parents' versions `consumed`.

    `build_id` identifies the build; it counts only where building again gives other rows. `content` is the hash of the
    stored rows, where that is known: equal rows are then the same version however they came about.
    """
    if content is not None:
        return digest(["content", content])
    if kind is NodeKind.VIEW:
        return view_version(fingerprint, consumed)
    if kind is NodeKind.SEED:
        return digest(["seed", fingerprint])
    if kind is NodeKind.HISTORY_DEPENDENT:
        return digest([fingerprint, consumed, build_id])
    return digest([fingerprint, consumed])
