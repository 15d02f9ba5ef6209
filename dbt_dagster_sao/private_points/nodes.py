"""The life of a node in dbt, and the code that executes: its template, and the macros that it calls."""

from __future__ import annotations

from functools import wraps
from typing import Any

from dbt_dagster_sao.private_points.point import Wrapper
from dbt_dagster_sao.proxies import traced
from dbt_dagster_sao.questions import schema_answer, word
from dbt_dagster_sao.recorder import Frame, Recording, Session, current, stack

_IS_INCREMENTAL = "macro.dbt.is_incremental"
_START_OF_RUN = "on-run-start"


def safe_run(original: Wrapper) -> Wrapper:
    """Record from the start of a node to its end, before dbt logs that it finished."""

    @wraps(original)
    def safe_run(self: Any, manifest: Any) -> Any:
        session = current.session
        node = self.node.unique_id
        if session is None:
            return original(self, manifest)
        _end_start(session, self.adapter)
        is_inlined = bool(getattr(self.node, "is_ephemeral_model", False))
        recording = session.of(node) if is_inlined else session.begin(node)
        outer, stack.frame = stack.frame, Frame(recording, is_own=False)
        try:
            _describe(session, recording, self)
            return original(self, manifest)
        finally:
            stack.frame = outer
            if not is_inlined:
                _end(session, recording, self.node)

    return safe_run


def hook_sql(original: Wrapper) -> Wrapper:
    """Record what a hook of `on-run-start` reads: dbt renders it here, in its main thread, before any node starts."""

    @wraps(original)
    def get_hook_sql(self: Any, adapter: Any, hook: Any, *arguments: Any, **options: Any) -> Any:
        session = current.session
        if session is None or _START_OF_RUN not in hook.tags:
            return original(self, adapter, hook, *arguments, **options)
        recording = session.begin(hook.unique_id)
        outer, stack.frame = stack.frame, Frame(recording, is_own=False)
        try:
            _learn_packages(session, recording, adapter)
            return original(self, adapter, hook, *arguments, **options)
        finally:
            stack.frame = outer
            session.end_hook(hook.unique_id)

    return get_hook_sql


def _learn_packages(session: Session, recording: Recording, adapter: Any) -> None:
    try:
        session.internal_packages = session.internal_packages or internal_packages(adapter.type())
    except Exception:  # noqa: BLE001 (a build must not end because of its trace)
        recording.is_void = True


def _end_start(session: Session, adapter: Any) -> None:
    """Write what the hooks at the start of the run read: by now all have ended."""

    def still(sentence: str) -> bool:
        database, schema, answer = schema_answer(sentence) or ("", "", "")
        if not answer:
            return False
        with adapter.connection_named("after on-run-start"):
            return word(adapter.check_schema_exists(database, schema)) == answer

    session.end_start(still)


def _describe(session: Session, recording: Recording, runner: Any) -> None:
    _learn_packages(session, recording, runner.adapter)
    try:
        node = runner.node
        config = getattr(node, "config", None)
        asked = getattr(runner.config.args, "FULL_REFRESH", None)
        own = getattr(config, "full_refresh", None)
        recording.full_refresh = bool(asked if own is None else own)
        if recording.existed is None:
            recording.existed = _existed(runner, node)
        if any(getattr(constraint, "to", None) for constraint in getattr(node, "all_constraints", ())):
            recording.before = node.to_dict(omit_none=True)
    except Exception:  # noqa: BLE001 (as above)
        recording.is_void = True


def internal_packages(adapter_type: str) -> frozenset[str]:
    """Return the packages of dbt and of an adapter."""
    from dbt.adapters.factory import get_adapter_package_names

    return frozenset(get_adapter_package_names(adapter_type))


def _existed(runner: Any, node: Any) -> bool | None:
    cache = getattr(runner.adapter, "cache", None)
    if not getattr(node, "is_relational", False) or cache is None:
        return None
    relation = runner.adapter.Relation.create_from(runner.config, node)
    if (relation.database, relation.schema) not in cache:
        return None
    key = tuple(part.lower() if part else part for part in (relation.database, relation.schema, relation.identifier))
    return key in cache.relations


def _end(session: Session, recording: Recording, node: Any) -> None:
    try:
        session.end(node.unique_id, [each.id for each in getattr(node, "extra_ctes", ())])
    except Exception:  # noqa: BLE001 (as above)
        recording.is_void = True


def compile_code(original: Wrapper) -> Wrapper:
    """Count a node's template as its own code, also when it is inlined in another node."""

    @wraps(original)
    def compile_code(self: Any, node: Any, *arguments: Any, **options: Any) -> Any:
        session = current.session
        if session is None or stack.frame is None:
            return original(self, node, *arguments, **options)
        outer, stack.frame = stack.frame, Frame(session.of(node.unique_id), is_own=True)
        try:
            return original(self, node, *arguments, **options)
        finally:
            stack.frame = outer

    return compile_code


def macro_call(original: Wrapper) -> Wrapper:
    """Record a call of a macro of the project or a package, and count its reads as the node's own."""

    @wraps(original)
    def call(self: Any, *arguments: Any, **options: Any) -> Any:
        context, session = traced(self.context), current.session
        recording = None if context is None else context.recording
        if recording is None or session is None:
            return original(self, *arguments, **options)
        outer, macro = stack.frame, self.macro
        is_own = outer is not None and outer.is_own
        asks = is_own and macro.unique_id == _IS_INCREMENTAL
        if macro.package_name not in session.internal_packages:
            recording.call(macro.unique_id)
            is_own = True
        stack.frame = Frame(recording, is_own=is_own and not asks)
        try:
            found = original(self, *arguments, **options)
        finally:
            stack.frame = outer
        if asks:
            recording.add_state(f"is_incremental() = {word(found)}")
        return found

    return call
