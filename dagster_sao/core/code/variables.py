"""The values of dbt's `var()`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Variables:
    """The values of dbt's `var()`, by where they were set."""

    command_line: Mapping[str, Any] = field(default_factory=dict)
    project: Mapping[str, Any] = field(default_factory=dict)
    """`vars` of the root project's dbt_project.yml, entries for packages among them."""
    packages: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """`vars` of each installed package's own dbt_project.yml."""

    def lookup(self, name: str, package: str) -> list[Any] | None:
        """Return the value that `var(name)` has in `package`, as a list of one; None where only a default applies.

        The order is dbt's: https://docs.getdbt.com/docs/build/project-variables#variable-precedence
        """
        for scope in self._scopes(package):
            if name in scope:
                return [scope[name]]
        return None

    def beginning_with(self, prefix: str, package: str) -> dict[str, Any]:
        """Return all variables of `package` whose names begin with `prefix`, with their values."""
        found: dict[str, Any] = {}
        for scope in self._scopes(package):
            found.update(
                {name: value for name, value in scope.items() if name not in found and name.startswith(prefix)}
            )
        return found

    def _scopes(self, package: str) -> Iterator[Mapping[str, Any]]:
        own = self.packages.get(package, {})
        for scope in (self.command_line, self.project.get(package), self.project, own.get(package), own):
            if isinstance(scope, Mapping):
                yield scope


def as_json(value: object) -> object:
    """Return a value of YAML with what JSON lacks as text: keys that are numbers or dates, dates, sets.

    >>> as_json({1: "a", "1": "b"})
    {'(int) 1': 'a', '1': 'b'}
    """
    if isinstance(value, Mapping):
        return {name if isinstance(name, str) else _typed(name): as_json(held) for name, held in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(held) for held in value]
    if isinstance(value, set | frozenset):
        return sorted(_typed(held) for held in value)
    return value if value is None or isinstance(value, str | int | float) else _typed(value)


def _typed(value: object) -> str:
    return f"({type(value).__name__}) {value}"
