"""What the freshness sensor last saw of the models' relations: which are missing, which something else altered.

Kept as small documents in the instance's key-value store, written only when they change: they say how things are, and
the event log would keep how they ever were.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import dagster as dg

from dagster_sao.core.state import LastBuild
from dagster_sao.orchestration.private import read_value, write_value

_RELATIONS = "dagster_sao/relations/"
_BASELINES = "dagster_sao/baselines/"
_LAYOUT = 1


@dataclass(frozen=True, slots=True)
class Relation:
    """What is out of order with one node's relation since a build of it."""

    built_at: str
    """The end of that build: what was seen after another says nothing of this one."""
    is_missing: bool = False
    alteration: str | None = None
    """Where something else altered its rows, the token they have since."""
    absences: int = 0
    """How often it was missing in a row, each time after another build, without being seen between them."""

    @property
    def is_out_of_order(self) -> bool:
        """Return whether there is anything to remember of it."""
        return self.is_missing or self.alteration is not None or self.absences > 0


@dataclass(frozen=True, slots=True)
class Relations:
    """The relations of a project that are not as their last build left them, by unique id."""

    seen: Mapping[str, Relation] = field(default_factory=dict)

    def missing(self, builds: Mapping[str, LastBuild]) -> frozenset[str]:
        """Return the nodes whose relation is missing since their last build."""
        return frozenset(uid for uid, relation in self._current(builds) if relation.is_missing)

    def altered(self, builds: Mapping[str, LastBuild]) -> dict[str, str]:
        """Return the nodes whose rows were altered since their last build, with their token."""
        return {uid: relation.alteration for uid, relation in self._current(builds) if relation.alteration is not None}

    def _current(self, builds: Mapping[str, LastBuild]) -> Iterator[tuple[str, Relation]]:
        for uid, relation in self.seen.items():
            if uid in builds and relation.built_at == build_id(builds[uid]):
                yield uid, relation


def build_id(build: LastBuild) -> str:
    """Return what tells a build of a node from its others."""
    return build.ended_at.isoformat()


def build_mark(build: LastBuild | None) -> str:
    """Return what tells a build from any other, of whichever run; empty for none."""
    return f"{build.run_id} {build_id(build)}" if build else ""


@dataclass
class Baselines:
    """The tokens of relations when they were first looked at after a build, each with that build."""

    tokens: dict[str, tuple[str, str]] = field(default_factory=dict)

    def of(self, unique_id: str, build: LastBuild) -> str | None:
        """Return the token of a node's rows after just this build."""
        built_at, token = self.tokens.get(unique_id, ("", ""))
        return token if built_at == build_id(build) else None


def read_relations(instance: dg.DagsterInstance, project_name: str) -> Relations:
    """Return what was last seen; nothing, when it was written by another version."""
    seen = _read(instance, _RELATIONS + project_name)
    try:
        return Relations({uid: Relation(**relation) for uid, relation in seen.items()})
    except TypeError:
        return Relations()


def write_relations(instance: dg.DagsterInstance, project_name: str, relations: Relations) -> None:
    """Keep what was seen."""
    _write(instance, _RELATIONS + project_name, {uid: asdict(relation) for uid, relation in relations.seen.items()})


def read_baselines(instance: dg.DagsterInstance, project_name: str) -> Baselines:
    """Return the baselines that were kept; none, when they were written by another version."""
    tokens = _read(instance, _BASELINES + project_name)
    try:
        return Baselines({uid: (str(built_at), str(token)) for uid, (built_at, token) in tokens.items()})
    except (TypeError, ValueError):
        return Baselines()


def write_baselines(instance: dg.DagsterInstance, project_name: str, baselines: Baselines) -> None:
    """Keep baselines."""
    _write(instance, _BASELINES + project_name, baselines.tokens)


def _read(instance: dg.DagsterInstance, key: str) -> Mapping[str, Any]:
    try:
        document = json.loads(read_value(instance, key) or "{}")
        content = document["content"] if document.get("layout") == _LAYOUT else {}
    except (AttributeError, KeyError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write(instance: dg.DagsterInstance, key: str, content: Mapping[str, Any]) -> None:
    write_value(instance, key, json.dumps({"layout": _LAYOUT, "content": content}))
