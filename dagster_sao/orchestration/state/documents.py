"""The small documents in the instance's key-value store: one of each kind for a project and environment.

They hold how things are, so they are written only when they change. What another version wrote counts as nothing known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import Enum
from typing import Any

import dagster as dg

from dagster_sao.orchestration.private.dagster_internals import read_value, write_value

_LAYOUT = 1


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
            document = json.loads(read_value(instance, key + state_name) or "{}")
            content = document[name] if document.get("layout") == _LAYOUT else {}
        except (AttributeError, KeyError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def write(self, instance: dg.DagsterInstance, state_name: str, content: Mapping[str, Any]) -> None:
        """Keep the content for all processes."""
        key, name = self.value
        write_value(instance, key + state_name, json.dumps({"layout": _LAYOUT, name: content}))
