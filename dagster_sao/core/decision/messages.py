"""The words of decisions that more than one row, table or page uses. The contract is docs/semantics.md."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from dagster_sao.core.code.fingerprint import RELATION_NAME
from dagster_sao.core.durations import format_duration
from dagster_sao.core.state.state import FailedAttempt, FailureKind, Writer

NEVER_BUILT = "Not built before in this environment"
_MOST_NAMED = 3
_FAILURES = {
    FailureKind.BUILD: "Its last build failed",
    FailureKind.INTERRUPTED: "Its last build was interrupted",
    FailureKind.LIMITED: "Its last build was limited",
    FailureKind.TERMINATED: "Its last run was terminated",
}


def named(unique_ids: Sequence[str], labels: Mapping[str, str]) -> str:
    """Return the names of nodes, sources or tests for a message, the first three of many.

    >>> named(["a", "b", "c", "d"], {"a": "orders"})
    'orders, b, c and 1 more'
    """
    names = [labels.get(unique_id, unique_id) for unique_id in unique_ids]
    if len(names) > _MOST_NAMED:
        return f"{', '.join(names[:_MOST_NAMED])} and {len(names) - _MOST_NAMED} more"
    return ", ".join(names)


def upstream_failed(parents: Sequence[str], labels: Mapping[str, str]) -> str:
    """Return the message about a node or test that reads something that failed.

    >>> upstream_failed(["a"], {"a": "orders"})
    'Upstream failed: orders'
    """
    return f"Upstream failed: {named(parents, labels)}"


def upstream_test_failed(tests: Sequence[str], labels: Mapping[str, str]) -> str:
    """Return the message about a node that failed tests gate.

    >>> upstream_test_failed(["t"], {"t": "not_null_orders_id"})
    'Upstream test failed: not_null_orders_id'
    """
    return f"Upstream test failed: {named(tests, labels)}"


def relation_missing(relation_name: str, code_changes: Collection[str] = ()) -> str:
    """Return the message about a relation that is missing from the warehouse, with what changed in the code since its build.

    >>> relation_missing("main.orders", [RELATION_NAME])
    'main.orders does not exist yet'
    """
    return (
        f"{relation_name} does not exist yet" if RELATION_NAME in code_changes else f"{relation_name} no longer exists"
    )


def relation_restored(relation_name: str) -> str:
    """Return the message about a relation that was put back with an older copy of its database: any code may have built it."""
    return f"{relation_name} comes from an older copy of its database"


def relation_moved(relation_name: str) -> str:
    """Return the message about a relation whose last build wrote the database that the target had before."""
    return f"{relation_name} was last built in another database"


def writer_label(writer: Writer) -> str:
    """Return the name of whatever wrote a relation, with its project and environment where these differ."""
    name = writer.node.split(".", 2)[-1]
    return f"{name} of {writer.elsewhere}" if writer.elsewhere else name


def failed_ago(failure: FailedAttempt, now: datetime) -> str:
    """Return when the last attempt failed, and how."""
    return f"{_FAILURES[failure.kind]} {format_duration(now - failure.failed_at)} ago"


def retries(failure: FailedAttempt, now: datetime) -> str:
    """Return when a failed attempt is retried."""
    wait = format_duration(failure.retry_at - now)
    if failure.kind is FailureKind.BUILD:
        age = format_duration(now - failure.failed_at)
        return f"Failed {age} ago with the same code and data. Retries in {wait}, or when either changes"
    return f"{failed_ago(failure, now)}. Retries in {wait}, or when code or data changes"


def incomplete(failure: FailedAttempt, now: datetime) -> str:
    """Return why a relation holds only a part of its rows."""
    if failure.kind is FailureKind.LIMITED:
        return f"Its last build was limited by {failure.limited_by} {format_duration(now - failure.failed_at)} ago"
    ranges = [f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M}" for start, end in failure.missing_batches]
    more = f" and {len(ranges) - _MOST_NAMED} more" if len(ranges) > _MOST_NAMED else ""
    return f"Batches are missing: {', '.join(ranges[:_MOST_NAMED])}{more}"
