"""Stand-ins for values of Jinja's context that note what is read of them. They know nothing of dbt.

Each behaves like the original: a dictionary stays a dictionary, even for `is mapping`, `tojson` and an adapter's own code.
"""

from __future__ import annotations

import copy
from collections import ChainMap
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

from dbt_dagster_sao.digests import WHOLE
from dbt_dagster_sao.recorder import Recording

_MISSING = object()
WATCHED = frozenset(
    {
        "database",
        "dbt_metadata_envs",
        "dbt_version",
        "invocation_id",
        "post_hooks",
        "pre_hooks",
        "run_started_at",
        "schema",
        "selected_resources",
        "this",
        "thread_id",
    }
)
"""The names whose values no stand-in can replace: looking one up counts as a read."""
Noted = Callable[[str], None]
"""Is called with the key that is read, or WHOLE."""


class TracedContext(dict[str, Any]):
    """Jinja's context of one node: tells `look` which names a template or macro looks up.

    It does not watch iteration: dbt and Jinja themselves copy it whole. Own code is given a `ContextView`.
    """

    __slots__ = ("look", "recording")

    def __init__(self) -> None:
        """Note nothing until dbt has filled it."""
        super().__init__()
        self.recording: Recording | None = None
        self.look: Callable[[str], None] | None = None

    def __getitem__(self, name: str) -> Any:
        value = super().__getitem__(name)
        if name in WATCHED and self.look is not None:
            self.look(name)
        return value

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self else default  # noqa: SIM401 (it would call itself)


def traced(context: object) -> TracedContext | None:
    """Return the traced context in what dbt hands out as one: since dbt 1.12, a chain with the macros before it."""
    if isinstance(context, ChainMap):
        context = context.maps[-1]
    return context if isinstance(context, TracedContext) else None


class ContextView(MutableMapping[str, Any]):
    """The `context` of own code: the context itself, except that reading all of it is noted, and what it does not have."""

    __slots__ = ("_context", "_missed", "_noted")

    def __init__(self, context: MutableMapping[str, Any], noted: Callable[[], None], missed: Noted) -> None:
        """Show `context`. `missed` is called with each name that is not there."""
        self._context = context
        self._noted = noted
        self._missed = missed

    def __getitem__(self, name: str) -> Any:
        if name not in self:
            raise KeyError(name)
        return self._context[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._context[name] = value

    def __delitem__(self, name: str) -> None:
        del self._context[name]

    def __contains__(self, name: object) -> bool:
        is_there = name in self._context
        if not is_there:
            self._missed(str(name))
        return is_there

    def __iter__(self) -> Iterator[str]:
        self._noted()
        return iter(self._context)

    def __len__(self) -> int:
        return len(self._context)

    def __repr__(self) -> str:
        self._noted()
        return repr(self._context)


class TracedMapping(dict[Any, Any]):
    """A dictionary that notes which keys are read, and when all of it is."""

    __slots__ = ("_noted",)

    def __init__(self, values: dict[Any, Any], noted: Noted) -> None:
        """Stand in for `values`."""
        super().__init__(values)
        self._noted = noted

    def __getitem__(self, key: Any) -> Any:
        self._noted(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self._noted(str(key))
        return super().__contains__(key)

    def get(self, key: Any, default: Any = None) -> Any:
        self._noted(key)
        return super().get(key, default)

    def setdefault(self, key: Any, default: Any = None) -> Any:
        self._noted(key)
        return super().setdefault(key, default)

    def pop(self, key: Any, default: Any = _MISSING) -> Any:
        self._noted(key)
        return super().pop(key) if default is _MISSING else super().pop(key, default)

    def popitem(self) -> tuple[Any, Any]:
        self._noted(WHOLE)
        return super().popitem()

    def __iter__(self) -> Iterator[Any]:
        self._noted(WHOLE)
        return super().__iter__()

    def __reversed__(self) -> Iterator[Any]:
        self._noted(WHOLE)
        return super().__reversed__()

    def __len__(self) -> int:
        self._noted(WHOLE)
        return super().__len__()

    def __bool__(self) -> bool:
        return super().__len__() > 0

    def keys(self) -> Any:
        self._noted(WHOLE)
        return super().keys()

    def values(self) -> Any:
        self._noted(WHOLE)
        return super().values()

    def items(self) -> Any:
        self._noted(WHOLE)
        return super().items()

    def copy(self) -> dict[Any, Any]:
        self._noted(WHOLE)
        return super().copy()

    def __or__(self, other: Any) -> dict[Any, Any]:
        return {**self.copy(), **other}

    def __ror__(self, other: Any) -> dict[Any, Any]:
        return {**other, **self.copy()}

    def __eq__(self, other: object) -> bool:
        self._noted(WHOLE)
        return super().__eq__(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None

    def __repr__(self) -> str:
        self._noted(WHOLE)
        return super().__repr__()

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[Any, Any]:
        return copy.deepcopy(self.copy(), memo)

    def __reduce__(self) -> Any:
        return dict, (self.copy(),)


class SharedMapping(TracedMapping):
    """A `TracedMapping` of a dictionary that templates of several nodes share: what one of them writes, all of them see."""

    __slots__ = ("_shared", "own")

    def __init__(self, values: dict[Any, Any], noted: Noted) -> None:
        """Stand in for `values`, and write to it."""
        self.own: set[Any] = set()
        """The keys that were written through this stand-in."""

        def current(key: str) -> None:
            self._follow()
            noted(key)

        self._shared = values
        super().__init__(values, current)

    def _follow(self) -> None:
        # Not cleared first: own code may iterate over it.
        for key in [key for key in dict.keys(self) if key not in self._shared]:
            dict.pop(self, key)
        dict.update(self, self._shared)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.update({key: value})

    def __delitem__(self, key: Any) -> None:
        del self._shared[key]
        self._follow()

    def __ior__(self, other: Any) -> Any:
        self.update(other)
        return self

    def update(self, *arguments: Any, **options: Any) -> None:
        written = dict(*arguments, **options)
        self.own.update(written)
        self._shared.update(written)
        self._follow()

    def clear(self) -> None:
        self._shared.clear()
        self._follow()

    def setdefault(self, key: Any, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]

    def pop(self, key: Any, default: Any = _MISSING) -> Any:
        found = super().pop(key, default)
        self._shared.pop(key, None)
        return found

    def popitem(self) -> tuple[Any, Any]:
        found = super().popitem()
        self._shared.pop(found[0], None)
        return found


class TracedAttributes:
    """An object that notes which of its attributes are read."""

    __slots__ = ("_noted", "_object")

    def __init__(self, stands_for: object, noted: Noted) -> None:
        """Stand in for an object."""
        self._object = stands_for
        self._noted = noted

    def __getattr__(self, name: str) -> Any:
        self._noted(name)
        return getattr(self._object, name)

    def __contains__(self, name: str) -> bool:
        self._noted(name)
        return name in vars(self._object)

    def __repr__(self) -> str:
        self._noted(WHOLE)
        return repr(self._object)


class TracedConfig:
    """dbt's `config`. It notes itself which settings are read; only reads of the node through it are noted here."""

    __slots__ = ("_config", "_noted")

    def __init__(self, config: Any, noted: Callable[[], None]) -> None:
        """Stand in for `config`."""
        self._config = config
        self._noted = noted

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._config(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        if name == "model":
            self._noted()
        return getattr(self._config, name)
