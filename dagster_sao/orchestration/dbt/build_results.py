"""Details of a build in dbt's results that its status hides: failed batches, and views that were not refreshed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dagster_sao.core.decision.materializations import merged
from dagster_sao.core.manifest.build_settings import in_utc
from dagster_sao.core.state.state import BatchRange, FailedAttempt, FailureKind

_ONLY_ALTERED = frozenset({"CREATE INDEX", "DROP INDEX"})


@dataclass(frozen=True, slots=True)
class BatchResults:
    """The results of the batches of one microbatch model."""

    was_tried: bool
    """Whether dbt wrote a result for the model. Otherwise any batch may have been lost."""
    failed: tuple[BatchRange, ...] | None = None
    """The batches that failed; None where dbt did not reach any."""


def batch_results(results: Mapping[str, Mapping[str, Any]], unique_id: str) -> BatchResults:
    """Return the batches of a model from the results of a `run_results.json`, by unique id."""
    result = results.get(unique_id)
    if result is None:
        return BatchResults(was_tried=False)
    found = result.get("batch_results")
    if not isinstance(found, Mapping):
        return BatchResults(was_tried=True)
    try:
        return BatchResults(
            was_tried=True, failed=merged((_moment(start), _moment(end)) for start, end in found.get("failed") or ())
        )
    except (TypeError, ValueError):
        return BatchResults(was_tried=False)


def left_missing(before: FailedAttempt | None, batches: BatchResults | None) -> tuple[tuple[BatchRange, ...], bool]:
    """Return the batches that are missing after a failed attempt, and whether any other batch may be missing.

    An attempt covers all batches that were missing `before` it, once dbt reaches them.
    """
    if batches is not None and batches.failed is not None:
        return batches.failed, False
    was_unknown = before is not None and (before.batches_unknown or before.kind is FailureKind.INTERRUPTED)
    is_lost = batches is None or not batches.was_tried
    return before.missing_batches if before is not None else (), was_unknown or is_lost


def not_refreshed(status: str, *, was_there: bool) -> str:
    """Return why a materialized view that dbt calls a success was not refreshed, empty where it was.

    >>> not_refreshed("REFRESH MATERIALIZED VIEW", was_there=True)
    ''
    """
    if status.lower().startswith("skip "):
        return (
            "dbt left it as it was: its configuration differs from the project's, and `on_configuration_change` is `continue`."
            " Run it with --full-refresh, or set `on_configuration_change: apply`"
        )
    if was_there and status.upper() in _ONLY_ALTERED:
        return "dbt altered its indexes and did not refresh it. It is created anew when it is tried again"
    return ""


def _moment(text: object) -> datetime:
    return in_utc(datetime.fromisoformat(str(text).replace("Z", "+00:00")))
