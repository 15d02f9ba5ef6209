"""The table of all points, and how they are wrapped when an invocation of dbt begins."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dbt_dagster_sao import BUILD_SECONDS, TEST_REQUEST, TRACE_FILE, TRACE_KEY
from dbt_dagster_sao.private_points import context, data_tests, database, nodes, queue
from dbt_dagster_sao.private_points.point import Point, Wrapper
from dbt_dagster_sao.recorder import Session, current
from dbt_dagster_sao.stage import KINDS, MEMBERS

_MARK = "_is_traced_by_dagster_sao"
POINTS = (
    Point("dbt.task.base", "BaseRunner", "safe_run", nodes.safe_run),
    Point("dbt.compilation", "Compiler", "_compile_code", nodes.compile_code),
    Point("dbt.clients.jinja", "MacroGenerator", "__call__", nodes.macro_call),
    Point("dbt.context.base", "BaseContext", "__init__", context.context_init),
    Point("dbt.context.providers", "ProviderContext", "to_dict", context.context_to_dict),
    Point("dbt.clients", "jinja", "add_rendered_test_kwargs", context.test_arguments, frozenset({"clock"})),
    Point("dbt.context.base", "Var", "__call__", context.var_call, frozenset({"var"})),
    Point("dbt.context.base", "Var", "has_var", context.has_var_call, frozenset({"var"})),
    Point("dbt.context.providers", "RuntimeConfigObject", "_lookup", context.config_lookup, frozenset({"config"})),
    Point("dbt.context.providers", "RuntimeConfigObject", "_lookup_meta", context.meta_lookup, frozenset({"meta"})),
    Point(
        "dbt.context.providers",
        "RuntimeDatabaseWrapper",
        "__getattr__",
        context.adapter_member,
        frozenset({"state", "queries"}),
    ),
)
TEST_POINTS = (Point("dbt.task.test", "TestRunner", "execute_data_test", data_tests.execute_data_test),)
"""The point at which data tests are answered. Without it, dbt runs each of them."""
QUEUE_POINTS = (
    Point("dbt.graph.queue", "GraphQueue", "_get_scores", queue.scores),
    Point("dbt.graph.queue", "GraphQueue", "get", queue.get),
    Point("dbt.task.runnable", "GraphRunnableTask", "run_queue", queue.run_queue),
)
"""The points at which ready nodes are ordered. Without them, dbt's own order holds."""
START_POINTS = (Point("dbt.task.run", "RunTask", "get_hook_sql", nodes.hook_sql),)
"""The point at which dbt renders hooks of runs. Without it, what they may read counts."""
FILE_POINTS = (
    Point("dbt.adapters.duckdb.environments", "Environment", "initialize_db", database.initialize_db),
    Point("dbt.adapters.duckdb.environments.local", "LocalEnvironment", "close", database.close_db),
)
"""The points of dbt-duckdb. Without the first, there is no telling which state of the file dbt read."""
_DUCKDB = "dbt.adapters.duckdb"


def begin_session() -> None:
    """Trace the dbt invocation that begins, if the environment asks for it. A dbt without the essential points runs untraced."""
    current.session = None
    name = os.environ.get(TRACE_FILE)
    if not name:
        return
    try:
        kinds = install()
        if kinds is None:
            return
        _wrap(START_POINTS)
        if _DUCKDB in sys.modules:  # the profile is read by now, and its adapter with it
            _wrap(FILE_POINTS)
        test_request = os.environ.get(TEST_REQUEST)
        if test_request:
            _wrap(TEST_POINTS)
        if seconds := _build_seconds():
            _wrap(QUEUE_POINTS)
        path = Path(*_target_folder(), name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        current.session = Session(
            path.resolve(),
            os.environ.get(TRACE_KEY, "").encode(),
            _environment(),
            kinds,
            Path(test_request) if test_request else None,
            seconds=seconds,
        )
    except Exception:  # noqa: BLE001 (as above)
        current.session = None


def _build_seconds() -> Mapping[str, float]:
    """Return the predicted seconds of each node to build; empty where dbt keeps its own order."""
    name = os.environ.get(BUILD_SECONDS)
    if not name:
        return {}
    try:
        return {str(uid): float(one) for uid, one in json.loads(Path(name).read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _environment() -> Mapping[str, str]:
    """Return the environment variables as dbt sees them."""
    from dbt_common.context import get_invocation_context

    found: Mapping[str, str] = get_invocation_context().env
    return found


def _target_folder() -> tuple[str, str]:
    from dbt.flags import get_flags

    flags = get_flags()
    return str(flags.PROJECT_DIR), str(flags.TARGET_PATH or "target")


def install() -> frozenset[str] | None:
    """Wrap the points, once per process. Return the kinds of reads that are recorded; None if an essential point is missing."""
    functions = [_function(point) for point in POINTS]
    missing = [point for point, function in zip(POINTS, functions, strict=True) if function is None]
    if any(not point.kinds for point in missing):
        return None
    provider = _attribute("dbt.context.providers", "ProviderContext")
    if not set(getattr(provider, "_context_members_", ())) >= MEMBERS:
        return None
    _wrap(POINTS)
    watched = KINDS.union(*(point.kinds for point in POINTS))
    return watched.difference(*(point.kinds for point in missing if not _is_needless(point)))


def _wrap(points: Iterable[Point]) -> None:
    for point in points:
        function = _function(point)
        if function is not None and not hasattr(function, _MARK):
            wrapped = point.wrap(function)
            setattr(wrapped, _MARK, True)
            setattr(_owner(point), point.name, wrapped)


def _function(point: Point) -> Wrapper | None:
    """Return the function to wrap; of a class, not one that every object has (`__init__`, `__call__`)."""
    owner = _owner(point)
    holders = [each for each in owner.__mro__ if each is not object] if isinstance(owner, type) else [owner]
    return next((vars(each)[point.name] for each in holders if point.name in getattr(each, "__dict__", ())), None)


def _is_needless(point: Point) -> bool:
    # Without `config.meta_get` there is nothing to read.
    return point.name == "_lookup_meta" and not hasattr(_owner(point), "meta_get")


def _owner(point: Point) -> Any:
    return _attribute(point.module, point.owner)


def _attribute(module: str, name: str) -> Any:
    try:
        return getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None
