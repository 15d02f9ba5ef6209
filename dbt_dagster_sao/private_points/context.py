"""The values that dbt's Jinja context gives to templates, and the questions to the warehouse that it passes on."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import ismethod
from typing import Any

from dbt_dagster_sao.digests import UNKNOWN, digest, is_of_a_batch, mapping_digest
from dbt_dagster_sao.private_points.point import Wrapper
from dbt_dagster_sao.proxies import WATCHED, TracedContext, traced
from dbt_dagster_sao.questions import ASK_NOTHING, asking, asking_nothing, note_question
from dbt_dagster_sao.recorder import CLOCK, Recording, Session, current, note, stack
from dbt_dagster_sao.stage import Stage
from dbt_dagster_sao.trace import OF

_MACRO = "macro."


def context_init(original: Wrapper) -> Wrapper:
    """Give a context that records what is read to a node that dbt builds."""

    @wraps(original)
    def init(self: Any, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        if stack.frame is not None:
            self._ctx = TracedContext()

    return init


def context_to_dict(original: Wrapper) -> Wrapper:
    """Put the recording stand-ins into the context of a node that dbt builds; leave a context for parsing alone."""

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
        # An unknown kind of context: reads from it would go unseen.
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


def test_arguments(original: Wrapper) -> Wrapper:
    """Let dbt copy a whole context to render a test's arguments, and record the names that the arguments mention."""

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


def var_call(original: Wrapper) -> Wrapper:
    """Record a read of `var(name)`."""

    @wraps(original)
    def call(self: Any, var_name: Any, *arguments: Any, **options: Any) -> Any:
        _note_var("var", self, var_name, lambda: mapping_digest(self._merged, var_name))
        return original(self, var_name, *arguments, **options)

    return call


def has_var_call(original: Wrapper) -> Wrapper:
    """Record a read of `var.has_var(name)`."""

    @wraps(original)
    def has_var(self: Any, var_name: Any) -> Any:
        found = original(self, var_name)
        _note_var("has_var", self, var_name, lambda: digest(found))
        return found

    return has_var


def _note_var(kind: str, var: Any, name: Any, digest_of: Callable[[], str]) -> None:
    """Record a read of a variable. It counts whichever code reads it."""
    # Since dbt 1.12 a variable holds the object that makes the context.
    context, node = traced(getattr(var._context, "_ctx", var._context)), var._node
    if context is None and stack.frame is not None and kind == "var":
        # An unknown kind of context. (dbt renders query comments in a context without a node.)
        stack.frame.recording.is_void = True
    if context is None or context.recording is None:
        return
    # A unit test brings values of its own.
    if name in (getattr(getattr(node, "overrides", None), "vars", None) or {}):
        return
    # A macro that an adapter executes gets the variables of its own package.
    of = _of(node.unique_id, is_it=node.package_name == context.recording.package)
    context.recording.read(f"{kind}: {name}{of}", digest_of)


def _of(unique_id: str, *, is_it: bool) -> str:
    return "" if is_it else f"{OF}{unique_id}"


def config_lookup(original: Wrapper) -> Wrapper:
    """Record a read of a setting of the node's config."""

    def configured(config: Any, name: str) -> str:
        if hasattr(config, name):
            return digest(getattr(config, name))
        return mapping_digest(getattr(config, "_extra", {}), name)

    return _lookup("config", original, configured)


def meta_lookup(original: Wrapper) -> Wrapper:
    """Record a read of the `meta` of the node's config."""

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


def adapter_member(original: Wrapper) -> Wrapper:
    """Record the questions that templates ask the warehouse through `adapter`."""

    @wraps(original)
    def member(self: Any, name: str) -> Any:
        found = original(self, name)
        if stack.frame is None:
            return found
        if name in ASK_NOTHING:
            return asking_nothing(found) if ismethod(found) else found
        if callable(found):
            return asking(name, found)
        note_question(stack.frame, name, (), {}, found)
        return found

    return member
