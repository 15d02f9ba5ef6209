"""The arguments of public functions: a value of another type than the signature says is refused in one sentence."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from enum import Enum
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar, get_args, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from dagster_sao.core.errors import DagsterSaoError

_P = ParamSpec("_P")
_R = TypeVar("_R")
_MODULES = re.compile(r"\b(?:\w+\.)+")


def with_checked_arguments(
    refusal: type[DagsterSaoError], *, but: Collection[str] = ()
) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Let a function raise `refusal` for an argument that is not of the type in its signature.

    Arguments in `but` have a check of their own.
    """

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        signature = inspect.signature(function)

        @wraps(function)
        def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            given = _named(signature, signature.bind(*args, **kwargs).arguments)
            types = {name: kind for name, kind in get_type_hints(function).items() if name not in but}
            check_types(types, given, refusal)
            return function(*args, **kwargs)

        return call

    return decorate


def check_types(
    types: Mapping[str, Any], given: Mapping[str, Any] | Iterator[tuple[str, Any]], refusal: type[DagsterSaoError]
) -> None:
    """Raise `refusal` for the first value that is not of the type of its name. Names without a type take anything.

    >>> check_types({"select": str}, {"select": ["orders", "customers"]}, DagsterSaoError)
    Traceback (most recent call last):
    dagster_sao.core.errors.DagsterSaoError: `select` takes str, not a list of str.
    """
    for name, value in given.items() if isinstance(given, Mapping) else given:
        if name in types and not _is_a(types[name], value):
            taken = _MODULES.sub("", inspect.formatannotation(types[name]))
            msg = f"`{name}` takes {taken}, not {_what(value)}."
            raise refusal(msg)


def _named(signature: inspect.Signature, arguments: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in arguments.items():
        is_many = signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL
        yield from ((name, one) for one in (value if is_many else [value]))


def _what(value: object) -> str:
    """Return what a value is. The value itself stays out of messages: a variable may be a secret."""
    if value is None:
        return "None"
    name = type(value).__name__
    items = _types(value) if isinstance(value, (list, tuple)) else ""
    if isinstance(value, Mapping) and value:
        items = f"{_types(value)} to {_types(value.values())}"
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}{' of ' if items else ''}{items}"


def _types(values: Iterable[object]) -> str:
    return " and ".join(sorted({type(value).__name__ for value in values}))


def _is_a(kind: Any, value: object) -> bool:  # noqa: ANN401 (a type, or a union of some)
    try:
        _adapter(kind).validate_python(value, strict=True)
    except ValidationError:
        return False
    return True


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:  # noqa: ANN401 (as above)
    # The values of these enums may be given as texts, and are checked where they are read.
    kinds = [one for one in (kind, *get_args(kind)) if isinstance(one, type)]
    is_text = any(issubclass(one, str) and issubclass(one, Enum) for one in kinds)
    return TypeAdapter(kind | str if is_text else kind, config=ConfigDict(arbitrary_types_allowed=True))
