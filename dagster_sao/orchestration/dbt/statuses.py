"""The meaning of dbt's statuses for a run: which of them are builds, and why the others are not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

# dbt Fusion reports a build with a warning as `warn`. `reused` and `no-op`, which dagster-dbt counts as successes, are not builds.
_BUILT = frozenset({"success", "warn"})
_NAMED = 3
_UNKNOWN = "unknown"


def is_build(event: Mapping[str, Any]) -> bool:
    """Return whether dbt built the node of an event about its end."""
    return str((event["data"].get("node_info") or {}).get("node_status")) in _BUILT


def failed_start(event: Mapping[str, Any]) -> str:
    """Return the hook of `on-run-start` that the event reports as failed; empty for any other event."""
    node = event["data"].get("node_info") or {}
    hook = str(node.get("unique_id") or "")
    is_end_of_start = event["info"]["name"] == "LogHookEndLine" and "-on-run-start-" in hook
    return hook if is_end_of_start and str(node.get("node_status")) != "success" else ""


def unaccounted(names: Mapping[str, str], statuses: Mapping[str, str], known: AbstractSet[str] | None) -> Iterator[str]:
    """Yield a sentence for each reason why dbt ended well and did not do what it was asked for.

    `names` are the names of the nodes and tests that it left out, by unique id; `statuses` are dbt's own; `known` are the
    unique ids in dbt's own manifest, None without one.

    >>> next(unaccounted({"model.shop.a": "a"}, {"model.shop.a": "reused"}, None))[:47]
    "dbt did nothing about a and reports 'reused': d"
    """
    reasons: dict[str, list[str]] = {}
    for uid, name in names.items():
        status = statuses.get(uid, "" if known is None or uid in known else _UNKNOWN)
        reasons.setdefault(status, []).append(name)
    for status, found in reasons.items():
        yield _sentence(status, _listed(found))


def _sentence(status: str, names: str) -> str:
    if status in {"success", "warn", "pass", "fail"}:
        return (
            f"dbt reports '{status}' for {names} in run_results.json but logged no result, so nothing could be recorded."
            " Remove settings that hide results from dbt's log, such as `log_level` or `--quiet`."
        )
    if status == "reused":
        return (
            f"dbt did nothing about {names} and reports '{status}': dbt State decided by itself. Set DBT_ENGINE_MANAGE_STATE=false, or"
            " uninstall its plugin where this project is built."
        )
    if status == _UNKNOWN:
        return (
            f"dbt did not find {names}: removed, renamed or disabled after this run's manifest was parsed. Parse the project"
            " again, and reload the code location."
        )
    if status:
        return f"dbt did nothing about {names} and reports '{status}', so there is no build or test to record."
    return (
        f"dbt succeeded without a result for {names}, which it was to build or test. See the log of this dbt command."
    )


def _listed(names: Iterable[str]) -> str:
    found = sorted(names)
    more = [f"{len(found) - _NAMED} more"] if len(found) > _NAMED else []
    return " and ".join(part for part in (", ".join(found[:_NAMED]), *more))
