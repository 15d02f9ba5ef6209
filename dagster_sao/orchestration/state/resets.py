"""Resets by a user: the builds and failures that no decision considers any more.

Dagster's history stays as it is. A reset names the build and the failure that it hides, so that the next build or failure of
the node counts again, whatever a clock shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime

import dagster as dg

from dagster_sao.core.state.state import FailedAttempt, LastBuild, StateSnapshot
from dagster_sao.orchestration.state.documents import Document
from dagster_sao.orchestration.state.relation_notes import build_mark


@dataclass(frozen=True, slots=True)
class Reset:
    """The reset of one node."""

    at: str
    """When, for people."""
    build: str = ""
    """The mark of the hidden build, empty for none."""
    failure: str = ""
    """The mark of the hidden failure, empty for none."""


@dataclass(frozen=True, slots=True)
class Resets:
    """The resets of a project's nodes, by unique id."""

    nodes: Mapping[str, Reset] = field(default_factory=dict)

    def hide(self, state: StateSnapshot) -> StateSnapshot:
        """Return the state without the builds and failures that were reset."""
        if not self.nodes:
            return state
        return replace(
            state,
            builds={uid: build for uid, build in state.builds.items() if not self._hides_build(uid, build)},
            failures={uid: failed for uid, failed in state.failures.items() if not self._hides_failure(uid, failed)},
        )

    def _hides_build(self, unique_id: str, build: LastBuild) -> bool:
        reset = self.nodes.get(unique_id)
        return reset is not None and reset.build == build_mark(build)

    def _hides_failure(self, unique_id: str, failure: FailedAttempt) -> bool:
        reset = self.nodes.get(unique_id)
        return reset is not None and reset.failure == _failure_mark(failure)


def read_resets(instance: dg.DagsterInstance, state_name: str) -> Resets:
    """Return the resets; none where another version wrote them."""
    content = Document.RESETS.read(instance, state_name)
    try:
        return Resets({uid: Reset(**entry) for uid, entry in content.items()})
    except TypeError:
        return Resets()


def reset_nodes(
    instance: dg.DagsterInstance, state_name: str, unique_ids: Iterable[str], state: StateSnapshot, now: datetime
) -> list[str]:
    """Hide the builds and failures of nodes, as `state` has them. Returns the nodes that had any."""
    before = read_resets(instance, state_name).nodes
    found = {}
    for uid in unique_ids:
        build, failure = state.builds.get(uid), state.failures.get(uid)
        if build is not None or failure is not None:
            found[uid] = _reset(build, failure, before.get(uid), now)
    if found:
        content = {uid: asdict(entry) for uid, entry in {**before, **found}.items()}
        Document.RESETS.write(instance, state_name, content)
    return list(found)


def _reset(build: LastBuild | None, failure: FailedAttempt | None, before: Reset | None, now: datetime) -> Reset:
    # A build or failure that was hidden earlier and has no successor stays hidden.
    before = before or Reset(at="")
    return Reset(
        at=now.isoformat(),
        build=build_mark(build) if build else before.build,
        failure=_failure_mark(failure) if failure else before.failure,
    )


def _failure_mark(failure: FailedAttempt) -> str:
    return failure.failed_at.isoformat()
