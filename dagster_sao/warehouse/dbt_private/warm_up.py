"""What dbt works out anew in each process: importing this module does it once, for all that are forked from this process.

It is half of the CPU of a dbt command that builds one model. Nothing of it depends on a project: dbt derives from its own classes how
to read, write and check them, and Python finds out which module each file belongs to. If a version of dbt does it in another way, its
commands only take longer.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from typing import Any

_IMPORTED_LATE = ("dbt.task.build", "dbt.parser.sql", "dbt_common.clients.agate_helper", "sqlparse.cli")
"""Modules that dbt imports only when it builds."""
_READ_AND_WRITTEN = (
    "dbt.artifacts.resources.",
    "dbt.artifacts.schemas.manifest.",
    "dbt.artifacts.schemas.run.",
    "dbt.contracts.files",
    "dbt.contracts.graph.manifest",
    "dbt.contracts.graph.nodes",
)
_CHECKED = ("dbt.contracts.project", "dbt.contracts.selection")
_NONE_AS_MSGPACK = b"\xc0"


def _warm_up() -> None:
    from dbt.adapters.contracts.connection import Credentials
    from dbt_common.dataclass_schema import dbtClassMixin

    for name in _IMPORTED_LATE:
        with suppress(ImportError):
            import_module(name)
    for of_dbt in set(_below(dbtClassMixin)):
        if of_dbt.__module__.startswith(_READ_AND_WRITTEN):
            _make_methods(of_dbt)
        elif of_dbt.__module__.startswith(_CHECKED) or issubclass(of_dbt, Credentials):
            with suppress(Exception):
                of_dbt.json_schema()
    inspect.stack()


def _below(of_dbt: Any) -> Iterator[Any]:
    for child in of_dbt.__subclasses__():
        yield child
        yield from _below(child)


def _make_methods(of_dbt: Any) -> None:
    """Let a class of dbt make its methods, which it does at their first call. Without a value they fail before they create an object.

    A manifest, for one, has a lock that comes with a process of its own.
    """
    for call in (
        lambda: of_dbt.from_dict(None),
        lambda: of_dbt.from_msgpack(_NONE_AS_MSGPACK),
        lambda: object.__new__(of_dbt).to_dict(),
    ):
        with suppress(Exception):
            call()


# Whoever forks from a process can only name modules for it to import.
with suppress(Exception):
    _warm_up()
