"""Data versions: what identifies a node's rows to its children. Opaque; compared for equality only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping

from dagster_sao.core.graph import NodeKind

_DIGEST_BYTES = 12


def digest(value: object) -> str:
    """Return a short stable hash of a JSON-like value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).hexdigest()


def view_version(code: str | None, consumed: Mapping[str, str]) -> str:
    """Return the data version that a view computes, whose stored definition has the fingerprint `code`.

    None for a view that was never built in this environment: what its relation holds, if there is one, is not known, and is
    not what its code of today makes of its parents.
    """
    return digest([code, consumed])


def proven_kind(kind: NodeKind, *, is_deterministic: bool) -> NodeKind:
    """Return what the builds of a node do to its rows: a table is a function of its inputs only where that is proven."""
    is_unproven = kind is NodeKind.DETERMINISTIC and not is_deterministic
    return NodeKind.HISTORY_DEPENDENT if is_unproven else kind


def function_versions(functions: Iterable[str], code: Mapping[str, str]) -> dict[str, str]:
    """Return the part of what a view consumes that is the functions which it calls, by what the warehouse has them from.

    A function is looked up whenever the view is read, so another one changes its rows without building it.
    """
    return {uid: code.get(uid, "") for uid in functions}


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
