"""What a user asked to forget: the builds and failures that no decision looks at any more.

Dagster's history stays as it is. What is forgotten is named by what tells it from any other, so that the next build or
failure of the node counts again, whatever a clock says.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

import dagster as dg

from dagster_sao.core.state.state import FailedAttempt, LastBuild, StateSnapshot
from dagster_sao.orchestration.private.dagster_internals import read_value, write_value
from dagster_sao.orchestration.state.relation_notes import build_mark

_KEY = "dagster_sao/forgotten/"
_LAYOUT = 1


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What is forgotten of one node."""

    at: str
    """When, for people."""
    build: str = ""
    """The build, empty for none."""
    failure: str = ""
    """The failed attempt, empty for none."""


@dataclass(frozen=True, slots=True)
class ForgottenNodes:
    """What is forgotten of a project's nodes, by unique id."""

    nodes: Mapping[str, Forgotten] = field(default_factory=dict)

    def hide(self, state: StateSnapshot) -> StateSnapshot:
        """Return the state without what is forgotten."""
        if not self.nodes:
            return state
        return replace(
            state,
            builds={uid: build for uid, build in state.builds.items() if not self._hides_build(uid, build)},
            failures={uid: failed for uid, failed in state.failures.items() if not self._hides_failure(uid, failed)},
        )

    def _hides_build(self, unique_id: str, build: LastBuild) -> bool:
        forgotten = self.nodes.get(unique_id)
        return forgotten is not None and forgotten.build == build_mark(build)

    def _hides_failure(self, unique_id: str, failure: FailedAttempt) -> bool:
        forgotten = self.nodes.get(unique_id)
        return forgotten is not None and forgotten.failure == _failure_mark(failure)


def read_forgotten(instance: dg.DagsterInstance, project_name: str) -> ForgottenNodes:
    """Return what is forgotten; nothing, when it was written by another version."""
    try:
        document: Any = json.loads(read_value(instance, _KEY + project_name) or "{}")
        nodes = document["nodes"] if document.get("layout") == _LAYOUT else {}
        return ForgottenNodes({uid: Forgotten(**entry) for uid, entry in nodes.items()})
    except (AttributeError, KeyError, TypeError, ValueError):
        return ForgottenNodes()


def forget(
    instance: dg.DagsterInstance, project_name: str, unique_ids: Iterable[str], state: StateSnapshot, now: datetime
) -> list[str]:
    """Forget the builds and failures of nodes, as `state` knows them. Returns the nodes of which there was any."""
    before = read_forgotten(instance, project_name).nodes
    found = {}
    for uid in unique_ids:
        build, failure = state.builds.get(uid), state.failures.get(uid)
        if build is not None or failure is not None:
            found[uid] = _forgotten(build, failure, before.get(uid), now)
    if found:
        nodes = {**before, **found}
        document = {"layout": _LAYOUT, "nodes": {uid: asdict(entry) for uid, entry in nodes.items()}}
        write_value(instance, _KEY + project_name, json.dumps(document))
    return list(found)


def _forgotten(
    build: LastBuild | None, failure: FailedAttempt | None, before: Forgotten | None, now: datetime
) -> Forgotten:
    # What was forgotten earlier and has no successor stays so.
    before = before or Forgotten(at="")
    return Forgotten(
        at=now.isoformat(),
        build=build_mark(build) if build else before.build,
        failure=_failure_mark(failure) if failure else before.failure,
    )


def _failure_mark(failure: FailedAttempt) -> str:
    return failure.failed_at.isoformat()
