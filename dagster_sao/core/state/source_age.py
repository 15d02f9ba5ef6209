"""How old a source may be: `warn_after` and `error_after`, as `dbt source freshness` reads them.

https://docs.getdbt.com/reference/resource-properties/freshness
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from dagster_sao.core.durations import format_duration
from dagster_sao.core.manifest.policy import SourcePolicy


class FreshnessStatus(str, Enum):
    """The status of a source, in dbt's words."""

    PASS = "pass"  # noqa: S105 (no password)
    WARN = "warn"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class SourceFreshness:
    """How a source stands against its thresholds at one moment."""

    status: FreshnessStatus
    age: timedelta
    message: str
    changes_at: datetime | None
    """When the status gets worse without new data; None when it cannot."""


def source_freshness(policy: SourcePolicy, loaded_at: datetime, now: datetime) -> SourceFreshness:
    """Return how old data loaded at `loaded_at` is, measured by the thresholds of `policy`.

    Like in dbt, data is stale once it is older than a threshold, not when it is just as old.
    """
    age = now - loaded_at
    steps = [
        (threshold, status)
        for threshold, status in (
            (policy.warn_after, FreshnessStatus.WARN),
            (policy.error_after, FreshnessStatus.ERROR),
        )
        if threshold is not None
    ]
    # The worst one that is exceeded: `error_after` may be the shorter of the two.
    exceeded = [(threshold, status) for threshold, status in steps if age > threshold]
    ahead = [threshold for threshold, status in steps if age <= threshold]
    changes_at = loaded_at + min(ahead) if ahead else None
    if not exceeded:
        message = f"Loaded {format_duration(age)} ago"
        status = FreshnessStatus.PASS
    else:
        threshold, status = max(exceeded, key=lambda step: step[1] is FreshnessStatus.ERROR)
        name = "error_after" if status is FreshnessStatus.ERROR else "warn_after"
        message = f"Loaded {format_duration(age)} ago. {name} is {format_duration(threshold)}"
    return SourceFreshness(status, age, message, changes_at)
