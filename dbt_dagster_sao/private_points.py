"""Every private point of dbt that the trace hangs on. `tests/trace/test_private_points.py` names each of them.

A point that another dbt does not have costs the kinds of reads that are watched there; without an essential one
nothing is traced, and dbt runs as ever.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

from dbt_dagster_sao import TRACE_FILE, TRACE_KEY
from dbt_dagster_sao.database_file import FileClosed, FileOpened, database_state
from dbt_dagster_sao.digests import UNKNOWN, digest, is_of_a_batch, mapping_digest
from dbt_dagster_sao.proxies import WATCHED, TracedContext, traced
from dbt_dagster_sao.questions import ASK_NOTHING, asking, note_question, word
from dbt_dagster_sao.recorder import CLOCK, Frame, Recording, Session, current, note, stack
from dbt_dagster_sao.stage import KINDS, MEMBERS, Stage
from dbt_dagster_sao.trace import OF

_IS_INCREMENTAL = "macro.dbt.is_incremental"
_MACRO = "macro."

Wrapper = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Point:
    """A function of dbt that is wrapped."""

    module: str
    owner: str
    name: str
    wrap: Callable[[Wrapper], Wrapper]
    kinds: frozenset[str] = frozenset()
    """What is watched there; empty for an essential one."""


# The life of a node


def _safe_run(original: Wrapper) -> Wrapper:
    """Record from the start of a node to its end, which comes before dbt logs that it finished."""

    @wraps(original)
    def safe_run(self: Any, manifest: Any) -> Any:
        session = current.session
        node = self.node.unique_id
        if session is None:
            return original(self, manifest)
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


def _describe(session: Session, recording: Recording, runner: Any) -> None:
    try:
        if not session.internal_packages:
            session.internal_packages = _internal_packages(runner.config.credentials.type)
        node = runner.node
        config = getattr(node, "config", None)
        asked = getattr(runner.config.args, "FULL_REFRESH", None)
        own = getattr(config, "full_refresh", None)
        recording.full_refresh = bool(asked if own is None else own)
        if recording.existed is None:
            recording.existed = _existed(runner, node)
        if any(getattr(constraint, "to", None) for constraint in getattr(node, "all_constraints", ())):
            recording.before = node.to_dict(omit_none=True)
    except Exception:  # noqa: BLE001 (a build must not end because of its trace)
        recording.is_void = True


def _internal_packages(adapter_type: str) -> frozenset[str]:
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


# Frames: what executes


def _compile_code(original: Wrapper) -> Wrapper:
    """Count a node's template as own code, also when it is inlined in another node."""

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


def _macro_call(original: Wrapper) -> Wrapper:
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


# The context


def _context_init(original: Wrapper) -> Wrapper:
    @wraps(original)
    def init(self: Any, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        if stack.frame is not None:
            self._ctx = TracedContext()

    return init


def _context_to_dict(original: Wrapper) -> Wrapper:
    """Put the stand-ins into the context of a node that dbt builds, not into one that dbt parses with."""

    @wraps(original)
    def to_dict(self: Any) -> Any:
        whole = original(self)
        session, frame = current.session, stack.frame
        if session is None or frame is None or not self.provider.execute:
            return whole
        uid = self.model.unique_id
        # An adapter executes macros in a context of their own.
        recording = frame.recording if uid.startswith(_MACRO) else session.of(uid)
        try:
            _stage(self, whole, recording, session)
        except Exception:  # noqa: BLE001 (as above)
            recording.is_void = True
        return whole

    return to_dict


def _stage(of: Any, whole: Any, recording: Recording, session: Session) -> None:
    context = traced(whole)
    if context is None:
        # A context of a kind that we do not know: what is read of it would go unseen.
        recording.is_void = True
        return
    Stage(
        context=context,
        whole=whole,
        recording=recording,
        session=session,
        node=None if of.model.unique_id.startswith(_MACRO) else lambda: of.model.to_dict(omit_none=True),
        overrides=getattr(getattr(of.model, "overrides", None), "env_vars", None) or {},
    ).set()


def _test_arguments(original: Wrapper) -> Wrapper:
    """Let dbt copy a context whole in order to render a test's arguments, and note the names that these mention."""

    @wraps(original)
    def add(whole: Any, node: Any, *arguments: Any, **options: Any) -> Any:
        context = traced(whole)
        if context is None:
            return original(whole, node, *arguments, **options)
        look, context.look = context.look, None
        try:
            return original(whole, node, *arguments, **options)
        finally:
            context.look = look
            text = str(getattr(getattr(node, "test_metadata", None), "kwargs", ""))
            for name in WATCHED:
                if look is not None and name in text:
                    look(name)

    return add


# Values


def _var_call(original: Wrapper) -> Wrapper:
    @wraps(original)
    def call(self: Any, var_name: Any, *arguments: Any, **options: Any) -> Any:
        _note_var("var", self, var_name, lambda: mapping_digest(self._merged, var_name))
        return original(self, var_name, *arguments, **options)

    return call


def _has_var(original: Wrapper) -> Wrapper:
    @wraps(original)
    def has_var(self: Any, var_name: Any) -> Any:
        found = original(self, var_name)
        _note_var("has_var", self, var_name, lambda: digest(found))
        return found

    return has_var


def _note_var(kind: str, var: Any, name: Any, digest_of: Callable[[], str]) -> None:
    """Note a read of a variable, which counts whoever makes it."""
    # Since dbt 1.12 a variable knows the object that makes the context.
    context, node = traced(getattr(var._context, "_ctx", var._context)), var._node
    if context is None and stack.frame is not None and kind == "var":
        # A context of a kind that we do not know. (Comments of queries are rendered in one that is no node's.)
        stack.frame.recording.is_void = True
    if context is None or context.recording is None:
        return
    # A unit test brings values of its own.
    if name in (getattr(getattr(node, "overrides", None), "vars", None) or {}):
        return
    # A macro that an adapter executes is given the variables of its own package.
    of = _of(node.unique_id, is_it=node.package_name == context.recording.package)
    context.recording.read(f"{kind}: {name}{of}", digest_of)


def _of(unique_id: str, *, is_it: bool) -> str:
    return "" if is_it else f"{OF}{unique_id}"


def _config_lookup(original: Wrapper) -> Wrapper:
    def configured(config: Any, name: str) -> str:
        if hasattr(config, name):
            return digest(getattr(config, name))
        return mapping_digest(getattr(config, "_extra", {}), name)

    return _lookup("config", original, configured)


def _meta_lookup(original: Wrapper) -> Wrapper:
    def configured(config: Any, name: str) -> str:
        return mapping_digest(getattr(config, "meta", None) or {}, name)

    return _lookup("meta", original, configured)


def _lookup(kind: str, original: Wrapper, configured: Callable[[Any, str], str]) -> Wrapper:
    @wraps(original)
    def lookup(self: Any, name: Any, *arguments: Any, **options: Any) -> Any:
        config, frame = getattr(self.model, "config", None), stack.frame
        if frame is not None and frame.is_own and config is not None:
            if is_of_a_batch(name):
                note(frame.recording, CLOCK, str, UNKNOWN)
            else:
                of = _of(self.model.unique_id, is_it=self.model.unique_id == frame.recording.node)
                note(frame.recording, f"{kind}: {name}{of}", configured, config, name)
        return original(self, name, *arguments, **options)

    return lookup


# Questions to the warehouse


def _adapter_member(original: Wrapper) -> Wrapper:
    @wraps(original)
    def member(self: Any, name: str) -> Any:
        found = original(self, name)
        if stack.frame is None or name in ASK_NOTHING:
            return found
        if callable(found):
            return asking(name, found)
        note_question(stack.frame, name, (), {}, found)
        return found

    return member


# The file of a DuckDB database


def _initialize_db(original: Any) -> Any:
    """Write down the file as dbt opens it: nobody else wrote it in between where it is the same before and after."""
    open_db = original.__func__

    @wraps(open_db)
    def initialize_db(cls: Any, creds: Any, *arguments: Any, **options: Any) -> Any:
        before = database_state(creds.path)
        opened = open_db(cls, creds, *arguments, **options)
        after = database_state(creds.path)
        if before or after:
            _write(FileOpened(os.path.realpath(creds.path), before, after))
        return opened

    return classmethod(initialize_db)


def _close_db(original: Wrapper) -> Wrapper:
    @wraps(original)
    def close(self: Any) -> Any:
        was_open = getattr(self, "conn", None) is not None
        found = original(self)
        if was_open and (after := database_state(self.creds.path)):
            _write(FileClosed(after))
        return found

    return close


def _write(event: FileOpened | FileClosed) -> None:
    if current.session is not None:
        try:
            current.session.write(event.to_json())
        except OSError:
            return  # without the line nobody takes what was read for known


# Where they are

_MARK = "_is_traced_by_dagster_sao"
POINTS = (
    Point("dbt.task.base", "BaseRunner", "safe_run", _safe_run),
    Point("dbt.compilation", "Compiler", "_compile_code", _compile_code),
    Point("dbt.clients.jinja", "MacroGenerator", "__call__", _macro_call),
    Point("dbt.context.base", "BaseContext", "__init__", _context_init),
    Point("dbt.context.providers", "ProviderContext", "to_dict", _context_to_dict),
    Point("dbt.clients", "jinja", "add_rendered_test_kwargs", _test_arguments, frozenset({"clock"})),
    Point("dbt.context.base", "Var", "__call__", _var_call, frozenset({"var"})),
    Point("dbt.context.base", "Var", "has_var", _has_var, frozenset({"var"})),
    Point("dbt.context.providers", "RuntimeConfigObject", "_lookup", _config_lookup, frozenset({"config"})),
    Point("dbt.context.providers", "RuntimeConfigObject", "_lookup_meta", _meta_lookup, frozenset({"meta"})),
    Point(
        "dbt.context.providers",
        "RuntimeDatabaseWrapper",
        "__getattr__",
        _adapter_member,
        frozenset({"state", "queries"}),
    ),
)
FILE_POINTS = (
    Point("dbt.adapters.duckdb.environments", "Environment", "initialize_db", _initialize_db),
    Point("dbt.adapters.duckdb.environments.local", "LocalEnvironment", "close", _close_db),
)
"""Those of dbt-duckdb. Without the first, nobody knows which state of the file was read."""
_DUCKDB = "dbt.adapters.duckdb"


def begin_session() -> None:
    """Trace the invocation of dbt that begins, where the environment asks for it. Another dbt than expected runs untraced."""
    current.session = None
    name = os.environ.get(TRACE_FILE)
    if not name:
        return
    try:
        kinds = install()
        if kinds is None:
            return
        if _DUCKDB in sys.modules:  # the profile is read by now, and its adapter with it
            _wrap(FILE_POINTS)
        path = Path(*_target_folder(), name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        current.session = Session(path.resolve(), os.environ.get(TRACE_KEY, "").encode(), _environment(), kinds)
    except Exception:  # noqa: BLE001 (as above)
        current.session = None


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
    """Wrap the points, once per process. Returns the kinds that are watched, None when an essential point is missing."""
    functions = [_function(point) for point in POINTS]
    missing = [point for point, function in zip(POINTS, functions, strict=True) if function is None]
    if any(not point.kinds for point in missing):
        return None
    context = _attribute("dbt.context.providers", "ProviderContext")
    if not set(getattr(context, "_context_members_", ())) >= MEMBERS:
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
    """Return what is to be wrapped: of a class, not what every class has (`__init__`, `__call__`)."""
    owner = _owner(point)
    holders = [each for each in owner.__mro__ if each is not object] if isinstance(owner, type) else [owner]
    return next((vars(each)[point.name] for each in holders if point.name in getattr(each, "__dict__", ())), None)


def _is_needless(point: Point) -> bool:
    # A dbt without `config.meta_get` has nothing to read there.
    return point.name == "_lookup_meta" and not hasattr(_owner(point), "meta_get")


def _owner(point: Point) -> Any:
    return _attribute(point.module, point.owner)


def _attribute(module: str, name: str) -> Any:
    try:
        return getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None
