"""Every private point of dbt that the trace hangs on. `tests/trace/test_private_points.py` names each of them.

A point that another dbt does not have costs the kinds of reads that are watched there; without an essential one
nothing is traced, and dbt runs as ever.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

from dbt_dagster_sao import TRACE_FILE, TRACE_KEY
from dbt_dagster_sao.digests import (
    ABSENT,
    UNKNOWN,
    WHOLE,
    answer_digest,
    digest,
    env_digest,
    graph_digest,
    mapping_digest,
    model_digest,
    text_digest,
)
from dbt_dagster_sao.proxies import ContextView, Noted, TracedAttributes, TracedContext, TracedMapping
from dbt_dagster_sao.recorder import Frame, Recording, Session, current, note, shortened, stack
from dbt_dagster_sao.trace import SQL, Query

_IS_INCREMENTAL = "macro.dbt.is_incremental"
_SECRET = "DBT_ENV_SECRET"  # noqa: S105 (a prefix of names)
_ABOUT_EXISTENCE = frozenset({"already_exists", "check_schema_exists", "get_relation"})
_ASKS_NOTHING = frozenset(
    {
        "Column",
        "Relation",
        "assert_valid_snapshot_target_given_strategy",
        "batch_id_for_model",
        "behavior",
        "build_catalog_relation",
        "cache_added",
        "cache_dropped",
        "cache_renamed",
        "commit",
        "config",
        "convert_datetimes_to_strs",
        "convert_type",
        "create_schema",
        "disable_transactions",
        "dispatch",
        "drop_relation",
        "drop_schema",
        "ensure_transaction",
        "escape_sql_string",
        "expand_target_column_types",
        "external_read_location",
        "external_root",
        "external_write_options",
        "get_binding_char",
        "get_catalog_integration",
        "get_hard_deletes_behavior",
        "get_incremental_strategy_macro",
        "get_seed_file_path",
        "get_temp_relation_path",
        "is_motherduck",
        "parse_index",
        "quote",
        "quote_as_configured",
        "quote_seed_column",
        "rename_relation",
        "render_raw_columns_constraints",
        "render_raw_model_constraints",
        "standardize_grants_dict",
        "store_relation",
        "submit_python_job",
        "truncate_relation",
        "type",
        "valid_incremental_strategies",
        "verify_database",
        "warn_once",
    }
)
"""What an adapter offers to Jinja that asks the warehouse nothing. What is not listed counts as a question."""

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
        context, session = self.context, current.session
        recording = context.recording if type(context) is TracedContext else None
        if recording is None or session is None:
            return original(self, *arguments, **options)
        outer, macro = stack.frame, self.macro
        is_own = outer is not None and outer.is_own
        asks = is_own and macro.unique_id == _IS_INCREMENTAL
        if macro.package_name not in session.internal_packages:
            recording.macros.add(macro.unique_id)
            is_own = True
        stack.frame = Frame(recording, is_own=is_own and not asks)
        try:
            found = original(self, *arguments, **options)
        finally:
            stack.frame = outer
        if asks:
            recording.state.add(f"is_incremental() = {_word(found)}")
        return found

    return call


def _own_code(function: Wrapper, recording: Recording) -> Wrapper:
    """Return `render` of the context, with which dbt renders hooks."""

    @wraps(function)
    def render(*arguments: Any, **options: Any) -> Any:
        outer, stack.frame = stack.frame, Frame(recording, is_own=True)
        try:
            return function(*arguments, **options)
        finally:
            stack.frame = outer

    return render


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
        context = original(self)
        session, frame = current.session, stack.frame
        if session is None or frame is None or type(context) is not TracedContext or not self.provider.execute:
            return context
        uid = self.model.unique_id
        # An adapter executes macros in a context of their own.
        recording = frame.recording if uid.startswith("macro.") else session.of(uid)
        try:
            _Stage(self, context, recording, session).set()
        except Exception:  # noqa: BLE001 (as above)
            recording.is_void = True
        return context

    return to_dict


class _Stage:
    """The stand-ins of one context."""

    def __init__(self, of: Any, context: TracedContext, recording: Recording, session: Session) -> None:
        self._of = of
        self._context = context
        self._recording = recording
        self._session = session
        self._builtins = TracedContext()

    def set(self) -> None:
        """Replace values of the context, and of `builtins`, which holds the same."""
        context, recording = self._context, self._recording
        self._builtins.update(dict.__getitem__(context, "builtins"))
        target = self._mapping("target", dict.__getitem__(context, "target"))
        self._replace("target", target)
        self._replace("env", target)
        self._replace(
            "invocation_args_dict",
            self._mapping("invocation_args_dict", dict.__getitem__(context, "invocation_args_dict")),
        )
        self._replace("flags", TracedAttributes(*self._flags(dict.__getitem__(context, "flags"))))
        self._replace("graph", self._graph(dict.__getitem__(context, "graph")))
        self._replace("env_var", self._env_var(dict.__getitem__(context, "env_var")))
        self._replace("render", _own_code(dict.__getitem__(context, "render"), recording))
        if not self._of.model.unique_id.startswith("macro."):
            self._replace("model", self._model(dict.__getitem__(context, "model")))
            dict.__getitem__(context, "config").__dict__["_recording"] = recording
        context["builtins"] = self._builtins
        context["context"] = ContextView(context, lambda key: self._note(f"context: {key}", str, UNKNOWN))
        context.watched = self._builtins.watched = self._watched()
        context.recording = self._builtins.recording = recording

    def _replace(self, name: str, value: Any) -> None:
        self._context[name] = self._builtins[name] = value

    def _note(self, name: str, digest_of: Callable[..., str], *arguments: Any) -> None:
        note(self._recording, name, digest_of, *arguments)

    def _mapping(self, name: str, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return TracedMapping(values, lambda key: self._note(f"{name}: {key}", mapping_digest, values, key))

    def _flags(self, flags: Any) -> tuple[Any, Noted]:
        return flags, lambda key: self._note(f"flags: {key}", mapping_digest, vars(flags), key)

    def _graph(self, graph: dict[str, Any]) -> TracedMapping:
        def noted(key: str) -> None:
            del key
            self._note("graph: *", self._session.once, graph, graph_digest)

        return TracedMapping(graph, noted)

    def _model(self, values: dict[str, Any]) -> TracedMapping:
        def digest_of(key: str) -> str:
            if self._recording.before is not None:
                return model_digest(self._recording.before, key)
            # dbt translates the types of columns in `model`.
            whole = key in {WHOLE, "columns"}
            return model_digest(self._of.model.to_dict(omit_none=True) if whole else values, key)

        def noted(key: str) -> None:
            # What is read of the configuration, it notes itself.
            if key != "config":
                self._note(f"model: {key}", digest_of, key)

        def config_noted(key: str) -> None:
            name = "config" if key == WHOLE else f"config.{key}"
            self._note(f"model: {name}", digest_of, name)

        held = values.get("config")
        config = {"config": TracedMapping(held, config_noted)} if isinstance(held, dict) else {}
        return TracedMapping({**values, **config}, noted)

    def _env_var(self, function: Wrapper) -> Wrapper:
        overrides = getattr(getattr(self._of.model, "overrides", None), "env_vars", None) or {}

        @wraps(function)
        def env_var(var: Any, *arguments: Any, **options: Any) -> Any:
            # A read of a value counts whoever makes it.
            if isinstance(var, str) and not var.startswith(_SECRET) and var not in overrides:
                self._recording.read(f"env_var: {var}", env_digest, os.environ.get(var), self._session.key)
            return function(var, *arguments, **options)

        return env_var

    def _watched(self) -> dict[str, Callable[[], None]]:
        context = self._context

        def held(name: str) -> Any:
            return dict.__getitem__(context, name)

        def clock() -> None:
            self._note("clock", str, UNKNOWN)

        def unknown(name: str) -> Callable[[], None]:
            return lambda: self._note(f"{name}: *", str, UNKNOWN)

        def model(key: str) -> Callable[[], None]:
            return lambda: self._note(f"model: {key}", model_digest, self._of.model.to_dict(omit_none=True), key)

        watched = {
            "this": lambda: self._note("this: *", digest, str(held("this"))),
            "dbt_version": lambda: self._note("dbt_version: *", digest, held("dbt_version")),
            "run_started_at": clock,
            "invocation_id": clock,
            "thread_id": clock,
            "selected_resources": unknown("selected_resources"),
            "dbt_metadata_envs": unknown("dbt_metadata_envs"),
            "database": model("database"),
            "schema": model("schema"),
            "pre_hooks": model("config.pre-hook"),
            "post_hooks": model("config.post-hook"),
        }
        return {name: look for name, look in watched.items() if name in context}


def _test_arguments(original: Wrapper) -> Wrapper:
    """Let dbt copy a context whole in order to render a test's arguments, and note the names that these mention."""

    @wraps(original)
    def add(context: Any, node: Any, *arguments: Any, **options: Any) -> Any:
        if type(context) is not TracedContext:
            return original(context, node, *arguments, **options)
        watched, context.watched = context.watched, {}
        try:
            return original(context, node, *arguments, **options)
        finally:
            context.watched = watched
            text = str(getattr(getattr(node, "test_metadata", None), "kwargs", ""))
            for name, look in watched.items():
                if name in text:
                    look()

    return add


# Values


def _var_call(original: Wrapper) -> Wrapper:
    @wraps(original)
    def call(self: Any, var_name: Any, *arguments: Any, **options: Any) -> Any:
        recording = _recording_of_var(self, var_name)
        if recording is not None:
            recording.read(f"var: {var_name}", mapping_digest, self._merged, var_name)
        return original(self, var_name, *arguments, **options)

    return call


def _has_var(original: Wrapper) -> Wrapper:
    @wraps(original)
    def has_var(self: Any, var_name: Any) -> Any:
        found = original(self, var_name)
        recording = _recording_of_var(self, var_name)
        if recording is not None:
            recording.read(f"has_var: {var_name}", digest, found)
        return found

    return has_var


def _recording_of_var(var: Any, name: Any) -> Recording | None:
    context = var._context
    if type(context) is not TracedContext:
        return None
    # A unit test brings values of its own.
    overrides = getattr(getattr(var._node, "overrides", None), "vars", None) or {}
    return None if name in overrides else context.recording


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
        config = getattr(self.model, "config", None)
        note(self.__dict__.get("_recording"), f"{kind}: {name}", configured, config, name)
        return original(self, name, *arguments, **options)

    return lookup


# Questions to the warehouse


def _adapter_member(original: Wrapper) -> Wrapper:
    @wraps(original)
    def member(self: Any, name: str) -> Any:
        found = original(self, name)
        frame = stack.frame
        if frame is None or name in _ASKS_NOTHING:
            return found
        if not callable(found):
            if frame.is_own:
                _note_question(frame.recording, name, (), {}, found)
            return found
        return _asking(name, found)

    return member


def _asking(name: str, method: Wrapper) -> Wrapper:
    @wraps(method)
    def ask(*arguments: Any, **options: Any) -> Any:
        frame = stack.frame
        if frame is None or not frame.is_own:
            return method(*arguments, **options)
        # What the adapter does to answer is its own affair.
        stack.frame = Frame(frame.recording, is_own=False)
        try:
            answer = method(*arguments, **options)
        finally:
            stack.frame = frame
        _note_question(frame.recording, name, arguments, options, answer)
        return answer

    return ask


def _note_question(
    recording: Recording, name: str, arguments: tuple[Any, ...], options: Mapping[str, Any], answer: Any
) -> None:
    try:
        if name in _ABOUT_EXISTENCE:
            recording.state.add(_state_word(name, [*arguments, *options.values()], answer))
        elif name == "execute":
            _note_execute(recording, arguments, options, answer)
        elif name == "add_query":
            recording.queries[_query(SQL, [*arguments[:1], *_named(options, "sql")], UNKNOWN)] = None
        else:
            recording.queries[_query(name, [*arguments, *options.values()], answer_digest(answer))] = None
    except Exception:  # noqa: BLE001 (as above)
        recording.is_void = True


def _note_execute(recording: Recording, arguments: tuple[Any, ...], options: Mapping[str, Any], answer: Any) -> None:
    named = dict(zip(("sql", "auto_begin", "fetch", "limit"), arguments, strict=False)) | dict(options)
    if named.get("fetch"):
        recording.queries[_query(SQL, [named["sql"]], answer_digest(answer[1]))] = None


def _named(options: Mapping[str, Any], name: str) -> list[Any]:
    return [options[name]] if name in options else []


def _query(method: str, arguments: Iterable[Any], answer: str) -> Query:
    kept: list[Any] = []
    is_shortened = False
    for argument in arguments:
        value, shortens = _argument(argument)
        kept.append(value)
        is_shortened = is_shortened or shortens
    return Query(method, tuple(kept), answer, is_shortened)


def _argument(value: Any) -> tuple[Any, bool]:
    if value is None or isinstance(value, (bool, int, float)):
        return value, False
    if isinstance(value, str):
        return shortened(str(value).strip(), text_digest)
    if hasattr(value, "identifier") and hasattr(value, "render"):
        return (value.database, value.schema, value.identifier), False
    return digest(value), True


def _state_word(name: str, arguments: Iterable[Any], answer: Any) -> str:
    separator = "." if name == "get_relation" else ", "
    return f"{name}({separator.join(str(each) for each in arguments)}) = {_word(answer)}"


def _word(answer: Any) -> str:
    if answer is None:
        return ABSENT
    if hasattr(answer, "identifier"):
        return str(answer.type) if answer.type else "unknown"
    return str(answer).lower()


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
_OF_THE_CONTEXT = frozenset(
    {
        "clock",
        "context",
        "dbt_version",
        "env_var",
        "flags",
        "graph",
        "invocation_args_dict",
        "macros",
        "model",
        "target",
        "this",
    }
)
"""The kinds that are watched by stand-ins in the context."""
_MEMBERS = frozenset({"env_var", "flags", "graph", "invocation_args_dict", "model", "render", "target"})
"""What the context must have for that."""


def begin_session() -> None:
    """Trace the invocation of dbt that begins, where the environment asks for it. Another dbt than expected runs untraced."""
    current.session = None
    name = os.environ.get(TRACE_FILE)
    if not name:
        return
    try:
        kinds = _install()
        if kinds is None:
            return
        path = Path(*_target_folder(), name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        current.session = Session(path.resolve(), os.environ.get(TRACE_KEY, "").encode(), kinds)
    except Exception:  # noqa: BLE001 (as above)
        current.session = None


def _target_folder() -> tuple[str, str]:
    from dbt.flags import get_flags

    flags = get_flags()
    return str(flags.PROJECT_DIR), str(flags.TARGET_PATH or "target")


def _install() -> frozenset[str] | None:
    """Wrap the points, once per process. Returns the kinds that are watched, None when an essential point is missing."""
    owners = [_owner(point) for point in POINTS]
    missing = [point for point, owner in zip(POINTS, owners, strict=True) if not hasattr(owner, point.name)]
    if any(not point.kinds for point in missing):
        return None
    context = _attribute("dbt.context.providers", "ProviderContext")
    if not set(getattr(context, "_context_members_", ())) >= _MEMBERS:
        return None
    for point, owner in zip(POINTS, owners, strict=True):
        _wrap(point, owner)
    watched = _OF_THE_CONTEXT.union(*(point.kinds for point in POINTS))
    return watched.difference(*(point.kinds for point in missing if not _is_needless(point)))


def _wrap(point: Point, owner: Any) -> None:
    function = getattr(owner, point.name, None)
    if function is not None and not hasattr(function, _MARK):
        wrapped = point.wrap(function)
        setattr(wrapped, _MARK, True)
        setattr(owner, point.name, wrapped)


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
