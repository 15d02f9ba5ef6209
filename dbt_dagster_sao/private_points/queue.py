"""The order in which dbt starts the nodes that wait for nothing.

dbt takes all ready nodes from its queue at once and hands them to its threads, so that what becomes ready later waits behind
them, whatever its score. Here it takes one only when a thread is free.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import wraps
from typing import Any

from dbt_dagster_sao.private_points.point import Wrapper
from dbt_dagster_sao.recorder import current


def scores(original: Wrapper) -> Wrapper:
    """Score each node by the longest path that it begins, if the run predicts durations. dbt starts the lowest score first."""

    @wraps(original)
    def _get_scores(self: Any, graph: Any) -> Any:
        levels = original(self, graph)
        session = current.session
        if session is None or not session.seconds:
            return levels
        try:
            paths = _longest_paths(graph, levels, session.seconds)
        except Exception:  # noqa: BLE001 (any order of dbt's is right)
            return levels
        # Of equal paths, dbt's own first.
        return {node: (-paths[node], level) for node, level in levels.items()}

    return _get_scores


def run_queue(original: Wrapper) -> Wrapper:
    """Note how many threads dbt has."""

    @wraps(original)
    def run_queue(self: Any, pool: Any) -> Any:
        if current.session is not None:
            of_dbt = self.config  # dbt's own settings, not the options of a run
            current.session.threads = of_dbt.threads
        return original(self, pool)

    return run_queue


def get(original: Wrapper) -> Wrapper:
    """Wait until a thread is free. There is always one that will be: all others are at work on what was taken before."""

    @wraps(original)
    def get(self: Any, *arguments: Any, **options: Any) -> Any:
        session = current.session
        if session is not None and session.seconds and session.threads:
            with self.lock:
                while len(self.in_progress) >= session.threads:
                    self.some_task_done.wait()
        return original(self, *arguments, **options)

    return get


def _longest_paths(graph: Any, levels: Mapping[str, int], seconds: Mapping[str, float]) -> dict[str, float]:
    """Return, for each node, the seconds from its start to the end of the last of its descendants. A test takes none."""
    paths: dict[str, float] = {}
    for node in sorted(levels, key=levels.__getitem__, reverse=True):  # children are on higher levels
        paths[node] = seconds.get(node, 0.0) + max((paths[child] for child in graph.successors(node)), default=0.0)
    return paths
