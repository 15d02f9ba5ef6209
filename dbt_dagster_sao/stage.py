"""Jinja's context of a node that dbt builds, with stand-ins for the values whose reads are noted.

Knows the documented names of that context, and nothing else of dbt.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, MutableMapping
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

from dbt_dagster_sao.digests import (
    ABSENT,
    GRAPH_SECTIONS,
    SECRET_PREFIX,
    UNKNOWN,
    WHOLE,
    changes_by_itself,
    digest,
    env_digest,
    graph_digest,
    is_of_a_batch,
    mapping_digest,
    model_digest,
)
from dbt_dagster_sao.proxies import (
    ContextView,
    SharedMapping,
    TracedAttributes,
    TracedConfig,
    TracedContext,
    TracedMapping,
)
from dbt_dagster_sao.recorder import CLOCK, Frame, Recording, Session, note, stack
from dbt_dagster_sao.trace import SHARED

KINDS = frozenset(
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
"""The kinds of reads that are noted here, or in every context."""
MEMBERS = frozenset({"config", "env_var", "flags", "graph", "invocation_args_dict", "model", "render", "target"})
"""The members that a context needs for this."""
_CLOCKS = frozenset({"invocation_id", "run_started_at", "thread_id"})
_COMPARABLE = frozenset({"dbt_version", "this"})
_OF_THE_NODE = {
    "database": "database",
    "post_hooks": "config.post-hook",
    "pre_hooks": "config.pre-hook",
    "schema": "schema",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """The stand-ins of one context."""

    context: TracedContext
    """As dbt has filled it."""
    whole: MutableMapping[str, Any]
    """The object that dbt hands out: the context, or a chain that ends with it."""
    recording: Recording
    session: Session
    node: Callable[[], dict[str, Any]] | None
    """Returns what dbt knows of the node, without nulls. None where an adapter executes a macro."""
    overrides: Collection[str]
    """The environment variables for which a unit test brings values of its own."""
    _builtins: TracedContext = field(default_factory=TracedContext, init=False)

    def set(self) -> None:
        """Replace values of the context, and of `builtins`, which holds the same."""
        held = dict(self.context)
        self._builtins.update(held["builtins"])
        target = self._mapping("target", held["target"])
        arguments = self._mapping("invocation_args_dict", held["invocation_args_dict"])
        self._replace(target=target, env=target, invocation_args_dict=arguments)
        self._replace(flags=self._flags(held["flags"]), graph=self._graph(held["graph"]))
        self._replace(env_var=self._env_var(held["env_var"]), render=_own_code(held["render"], self.recording))
        if self.node is not None:
            self._replace(model=self._model(held["model"], self.node), config=self._config(held["config"], self.node))
        self.context["builtins"] = self._builtins
        self.whole["context"] = ContextView(
            self.whole,
            lambda: self._note("context: *", str, UNKNOWN),
            lambda name: self._note(f"absent: {name}", str, ABSENT),
        )
        self.context.look = self._builtins.look = self._look
        self.context.recording = self._builtins.recording = self.recording

    def _replace(self, **values: Any) -> None:
        self.context.update(values)
        self._builtins.update(values)

    def _note(self, name: str, digest_of: Callable[..., str], *arguments: Any) -> None:
        note(self.recording, name, digest_of, *arguments)

    def _clock(self) -> None:
        self._note(CLOCK, str, UNKNOWN)

    def _mapping(self, name: str, values: dict[str, Any]) -> TracedMapping:
        return TracedMapping(values, lambda key: self._note(f"{name}: {key}", mapping_digest, values, key))

    def _flags(self, flags: Any) -> TracedAttributes:
        return TracedAttributes(flags, lambda key: self._note(f"flags: {key}", mapping_digest, vars(flags), key))

    def _graph(self, graph: dict[str, Any]) -> TracedMapping:
        def noted(key: str) -> None:
            names = set(graph) if key == WHOLE else {key}
            if not names.isdisjoint(GRAPH_SECTIONS):
                self._note("graph: *", self.session.once, graph, graph_digest)
            for name in names.difference(GRAPH_SECTIONS):
                is_of_others = name in graph and name not in stand_in.own
                self._note(f"{SHARED}: graph.{name}", str, UNKNOWN if is_of_others else ABSENT)

        stand_in = SharedMapping(graph, noted)
        return stand_in

    def _config(self, config: Any, node: Callable[[], dict[str, Any]]) -> TracedConfig:
        return TracedConfig(config, lambda: self._note("model: *", self._digest_of, node(), WHOLE))

    def _model(self, values: dict[str, Any], node: Callable[[], dict[str, Any]]) -> TracedMapping:
        def noted(key: str) -> None:
            if key == "batch":
                self._clock()
            # The configuration notes itself what is read of it.
            elif key != "config" and not changes_by_itself(key):
                # dbt translates the types of columns in `model`.
                self._note(f"model: {key}", self._digest_of, node() if key in {WHOLE, "columns"} else values, key)

        def config_noted(key: str) -> None:
            if is_of_a_batch(key):
                self._clock()
            else:
                name = "config" if key == WHOLE else f"config.{key}"
                self._note(f"model: {name}", self._digest_of, values, name)

        config = TracedMapping(values.get("config") or {}, config_noted)
        return TracedMapping({**values, "config": config}, noted)

    def _digest_of(self, values: dict[str, Any], key: str) -> str:
        return model_digest(values if self.recording.before is None else self.recording.before, key)

    def _env_var(self, function: Callable[..., str]) -> Callable[..., str]:
        @wraps(function)
        def env_var(var: Any, *arguments: Any, **options: Any) -> str:
            # A read of a value counts, whichever code reads it.
            if isinstance(var, str) and not var.startswith(SECRET_PREFIX) and var not in self.overrides:
                value = self.session.environment.get(var)
                self.recording.read(f"env_var: {var}", env_digest, value, self.session.key)
            return function(var, *arguments, **options)

        return env_var

    def _look(self, name: str) -> None:
        """Note that own code looks up a name in `WATCHED`."""
        if name in _CLOCKS:
            self._clock()
        elif name in _OF_THE_NODE:
            node = {} if self.node is None else self.node()
            self._note(f"model: {_OF_THE_NODE[name]}", self._digest_of, node, _OF_THE_NODE[name])
        elif name in _COMPARABLE:
            self._note(f"{name}: *", digest, str(dict.__getitem__(self.context, name)))
        else:
            self._note(f"{name}: *", str, UNKNOWN)


def _own_code(function: Callable[..., Any], recording: Recording) -> Callable[..., Any]:
    """Return `render`, with which dbt renders hooks, so that what it renders counts as own code."""

    @wraps(function)
    def render(*arguments: Any, **options: Any) -> Any:
        outer, stack.frame = stack.frame, Frame(recording, is_own=True)
        try:
            return function(*arguments, **options)
        finally:
            stack.frame = outer

    return render
