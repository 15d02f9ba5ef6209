"""The version of the rows that a relation holds, and when a version was superseded."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise

from dagster_sao.core.code.versions import captured_version, digest
from dagster_sao.core.manifest.policy import ExternalChanges, Policy
from dagster_sao.core.state.state import StateSnapshot, VersionHistory


def stored_version(unique_id: str, version: str, policy: Policy, state: StateSnapshot, *, is_read: bool = False) -> str:
    """Return the version of the rows that a node's relation gives: `version`, unless something else altered it since.

    `is_read` as of `version_in_relation`.
    """
    version = version_in_relation(unique_id, version, state, is_read=is_read)
    alteration = state.altered_relations.get(unique_id)
    if alteration is None or policy.external_changes is ExternalChanges.IGNORE:
        return version
    return altered_version(version, alteration)


def version_in_relation(unique_id: str, version: str, state: StateSnapshot, *, is_read: bool = False) -> str:
    """Return the version of the rows in a node's relation: `version`, unless something else has written it since.

    An attempt that failed or was interrupted gives the relation a version of its own. One that is under way may come to
    nothing, so nothing is decided for it; but what reads the relation meanwhile (`is_read`) may read anything. A copy of
    the database may have the rows of any build.
    """
    if state.is_copied(unique_id):
        return digest([version, "copied"])
    writer = state.other_writer(unique_id)
    if writer is None or (writer.is_open and not is_read):
        return version
    return digest([version, "overwritten", writer.attempt_id])


def altered_version(version: str, alteration: str) -> str:
    """Return the data version of rows that something else altered. `alteration` identifies the alteration."""
    return digest([version, alteration])


def superseded_at(
    version: str, history: VersionHistory, *, now: datetime, read_at: datetime, is_built_now: bool
) -> datetime:
    """Return when `version` of a parent was followed by another one; the beginning of time where `history` has forgotten it.

    `read_at` is when the build that read this version began; `is_built_now` tells whether the plan builds the parent.
    """
    captured = captured_version(version)
    is_latest = bool(history) and history[-1][0] == captured
    if is_latest and captured != version:
        return read_at  # it moved while it was read, and came back
    if is_latest and is_built_now:
        return now
    followed = [moment for (known, _), (_, moment) in pairwise(history) if known == captured]
    if followed and not is_latest:
        return followed[-1]  # a version that came back was not left for good before
    # Forgotten: the lag may already be longer than tolerated, so do not wait.
    return datetime.min.replace(tzinfo=now.tzinfo)
