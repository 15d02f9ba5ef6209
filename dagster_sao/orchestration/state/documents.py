"""The small documents in the instance's key-value store: one of each kind for a project and environment.

They hold the current state, so they are written only when it changes. A document of another version counts as missing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum
from typing import Any

import dagster as dg

from dagster_sao.orchestration.private.dagster_internals import read_value, write_value

_LAYOUT = 1

_unwritten: ContextVar[dict[str, str] | None] = ContextVar("dagster_sao_unwritten_documents", default=None)


@contextmanager
def unwritten() -> Iterator[None]:
    """Keep documents in memory that are written within the block: only the block itself reads them."""
    token = _unwritten.set({})
    try:
        yield
    finally:
        _unwritten.reset(token)


class Document(Enum):
    """A kind of document: the beginning of its key, and the name of its content. Both are stored, so they stay."""

    RELATIONS = ("dagster_sao/relations/", "content")
    BASELINES = ("dagster_sao/baselines/", "content")
    COLUMNS = ("dagster_sao/columns/", "content")
    MOVED_IN_RUN = ("dagster_sao/moved_in_run/", "content")
    CHECKPOINTS = ("dagster_sao/checkpoints/", "content")
    CONTRADICTION = ("dagster_sao/contradiction/", "content")
    RESETS = ("dagster_sao/forgotten/", "nodes")

    def read(self, instance: dg.DagsterInstance, state_name: str) -> Mapping[str, Any]:
        """Return the content; empty where there is none that this version can read."""
        key, name = self.value
        try:
            kept = (_unwritten.get() or {}).get(key + state_name)
            document = json.loads(kept or read_value(instance, key + state_name) or "{}")
            content = document[name] if document.get("layout") == _LAYOUT else {}
        except (AttributeError, KeyError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def write(self, instance: dg.DagsterInstance, state_name: str, content: Mapping[str, Any]) -> None:
        """Keep the content for all processes."""
        key, name = self.value
        text, kept = json.dumps({"layout": _LAYOUT, name: content}), _unwritten.get()
        if kept is not None:
            kept[key + state_name] = text
        else:
            write_value(instance, key + state_name, text)
