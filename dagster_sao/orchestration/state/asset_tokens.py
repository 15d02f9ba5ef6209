"""The token of a source whose data Dagster reports itself: an asset materializes or observes it. Does not read the event log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from dagster_sao.orchestration.events.event_schema import BUILD_KEY, DATA_VERSION_TAG, PROBE_KEY
from dagster_sao.orchestration.events.record_json import environment_of, mended_by

IS_USER_PROVIDED_TAG = "dagster/data_version_is_user_provided"
_CODE_VERSION_TAG = "dagster/code_version"
"""Dagster writes this tag wherever it computes a data version."""


def materialized_token(record: dg.EventLogRecord, metadata: Mapping[str, Any]) -> str:
    """Return the token of a materialization of a source.

    It is the data version where this package or the user gave it. Dagster computes its own version from the code version and
    the versions of the inputs. With a constant code version and no inputs it never moves, so the event counts instead.
    """
    materialization = record.asset_materialization
    tags = (materialization.tags if materialization else None) or {}
    version = tags.get(DATA_VERSION_TAG)
    # The version of one partition does not show whether another one moved.
    is_whole = materialization is not None and materialization.partition is None
    if not version or not is_whole or not _is_given(tags, metadata):
        return _event(record)
    # In the meantime, the relation may have held rows of no version, which another project read as the version before.
    mended = mended_by(metadata.get(BUILD_KEY))
    return f"{version} since {mended}" if mended else version


def observed_token(record: dg.EventLogRecord) -> str | None:
    """Return the token of an observation of a source, None where it does not report a data version."""
    observation = record.event_log_entry.asset_observation
    version = observation.tags.get(DATA_VERSION_TAG) if observation else None
    if observation is None or not version:
        return None
    return version if observation.partition is None else _event(record)


def _is_given(tags: Mapping[str, str], metadata: Mapping[str, Any]) -> bool:
    if PROBE_KEY in metadata:
        return True
    if BUILD_KEY in metadata:
        # A model of another project. The source may name any of its environments, where equal versions can have different
        # rows.
        return not environment_of(metadata[BUILD_KEY])
    return tags.get(IS_USER_PROVIDED_TAG) == "true" or _CODE_VERSION_TAG not in tags


def _event(record: dg.EventLogRecord) -> str:
    return f"event {record.storage_id} of run {record.run_id}"
