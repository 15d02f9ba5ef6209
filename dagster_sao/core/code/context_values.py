"""The values that dbt's Jinja context gives to a node, as short digests: the same now as when they are read again later.

All are computed from the manifest, the variables, the environment and the profile's target alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from dagster_sao.core.code.variables import Variables, as_json
from dagster_sao.core.code.versions import digest
from dagster_sao.core.dbt_settings import is_off, is_on, setting
from dagster_sao.core.manifest import inert_settings
from dagster_sao.sql.jinja_reads import ANY, Read
from dbt_dagster_sao.digests import SECRET_PREFIX, WHOLE, env_digest, graph_digest, mapping_digest, model_digest

_DIGITS = 12
_DIGITS_OF_NAME = 4
# Flags that a run sets for its own command, and flags that change nothing that is built.
_FLAGS_OF_A_COMMAND = frozenset({"FULL_REFRESH", "INDIRECT_SELECTION", "WHICH"})


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What dbt's Jinja context holds beside the manifest."""

    variables: Variables = field(default_factory=Variables)
    environ: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[str, Any] = field(default_factory=dict)
    """`flags` of dbt_project.yml."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """The flags that the arguments of dbt's commands set, of those that change what dbt makes of a test's answer."""
    dispatch: object = None
    """`dispatch` of dbt_project.yml: where dbt looks for a macro first."""
    session: Mapping[str, Any] = field(default_factory=dict)
    """The settings of the target under which the database runs all SQL, such as a time zone, by name."""
    target: Callable[[], Mapping[str, Any]] = dict
    """Returns the target of the profile as dbt's Jinja has it, without secrets. It is asked for when some code reads it."""


VARIABLES = "vars"
"""The kind of a read of many variables at once, whose name is made of codes: see `code_of_names`."""


def code_of_names(names: Iterable[str]) -> str:
    """Return a short text that stands for the names of variables. It may stand for a few others too."""
    return "".join(sorted({_code_of(name) for name in names}))


def _code_of(name: str) -> str:
    return digest(name)[:_DIGITS_OF_NAME]


class ContextValues:
    """What the nodes of one manifest read of their context, by the name of what is read."""

    def __init__(self, manifest: Mapping[str, Any], surroundings: Surroundings) -> None:
        """Read nothing yet."""
        self._manifest = manifest
        self._surroundings = surroundings
        self._variables_of: dict[tuple[str, str], Mapping[str, Any]] = {}

    def digest(self, read: Read, props: Mapping[str, Any]) -> str:
        """Return a short hash of what `read` gives to the node with the entry `props`."""
        return digest(as_json(self._value(read, props)), keeps_order=True)[:_DIGITS]

    def digest_of_dbt(self, kind: str, name: str, package: str) -> str | None:
        """Return the hash that dbt records of a variable or of the environment, None for other kinds."""
        if kind == "var":
            return mapping_digest(self._surroundings.variables.beginning_with("", package), name)
        return env_digest(self._surroundings.environ.get(name), b"") if kind == "env_var" else None

    def _value(self, read: Read, props: Mapping[str, Any]) -> object:
        kind, name = read
        prefix = name.removesuffix(ANY) if name.endswith(ANY) else None
        config = props.get("config") or {}
        if kind == "var":
            return self._variable(name, prefix, str(props["package_name"]))
        if kind == VARIABLES:
            return self._variables(name, str(props["package_name"]))
        if kind == "env_var":
            return self._environment(name, prefix)
        if kind == "config":
            return config.get(name) if prefix is None else _beginning_with(prefix, config)
        if kind == "meta":
            meta = config.get("meta") or {}
            return meta.get(name) if prefix is None else _beginning_with(prefix, meta)
        if kind == "model":
            return model_digest(props, name if prefix is None else WHOLE)
        if kind == "target":
            return self._target.get(name) if prefix is None else self._target
        if kind == "flags":
            return self._flag(name) if prefix is None else self._flags()
        if kind == "dbt_version":
            return self._manifest["metadata"].get("dbt_version")
        return self._graph if kind == "graph" else None

    def templates(self, reads: Iterable[Read], props: Mapping[str, Any]) -> set[str]:
        """Return the variables with Jinja in them, which dbt renders when it reads them."""
        package = str(props.get("package_name"))
        values = (
            value
            for kind, name in reads
            if kind == "var"
            for variable, value in self._surroundings.variables.beginning_with(name.removesuffix(ANY), package).items()
            if name.endswith(ANY) or variable == name
        )
        return {value for value in values if isinstance(value, str) and ("{{" in value or "{%" in value)}

    def _variable(self, name: str, prefix: str | None, package: str) -> object:
        variables = self._surroundings.variables
        if prefix is None:
            return variables.lookup(name, package)
        return dict(sorted(variables.beginning_with(prefix, package).items()))  # no template sees their order

    def _variables(self, codes: str, package: str) -> object:
        if (codes, package) not in self._variables_of:  # the records of all nodes ask for the same
            found = self._surroundings.variables.beginning_with("", package).items()
            among = {codes[at : at + _DIGITS_OF_NAME] for at in range(0, len(codes), _DIGITS_OF_NAME)}
            self._variables_of[codes, package] = dict(sorted(one for one in found if _code_of(one[0]) in among))
        return self._variables_of[codes, package]

    def _environment(self, name: str, prefix: str | None) -> object:
        environ = self._surroundings.environ
        if prefix is None:
            return None if name.startswith(SECRET_PREFIX) else environ.get(name)
        if not prefix:
            return None  # the environment as a whole differs between processes, so it is not compared
        found = {n: value for n, value in environ.items() if n.startswith(prefix) and not n.startswith(SECRET_PREFIX)}
        return dict(sorted(found.items()))

    def _flag(self, name: str) -> object:
        if name.upper() in _FLAGS_OF_A_COMMAND:
            return None
        of_project = self._surroundings.flags.get(name.lower(), self._surroundings.flags.get(name.upper()))
        return [setting(name.upper(), self._surroundings.environ), of_project]

    def _flags(self) -> object:
        environ = self._surroundings.environ
        names = {name.upper() for name in self._surroundings.flags}
        return {name: self._flag(name) for name in sorted(names)} | {
            f"DBT_{name}": value for name in sorted(_KNOWN_FLAGS) if (value := setting(name, environ)) is not None
        }

    def flags_of_dbt(self) -> Iterator[tuple[str, object]]:
        """Yield the project's flags that may change what dbt itself does, by name: its macros, and what it chooses.

        https://docs.getdbt.com/reference/global-configs/behavior-changes
        """
        for name, value in sorted(self._surroundings.flags.items()):
            if str(name).lower() not in inert_settings.OF_FLAGS:
                yield str(name).lower(), as_json(value)

    def flags_of_answers(self) -> Iterator[tuple[str, object]]:
        """Yield the settings by which dbt takes the warnings of data tests for failures, by name.

        https://docs.getdbt.com/reference/global-configs/warnings
        """
        given = self._surroundings
        for name in inert_settings.OF_ANSWERS:
            value = given.arguments.get(name) or setting(name.upper(), given.environ) or given.flags.get(name)
            if not is_off(value):
                yield name, "on" if is_on(value) else as_json(value)

    @cached_property
    def _target(self) -> Mapping[str, Any]:
        return self._surroundings.target()

    @cached_property
    def _graph(self) -> str:
        return graph_digest(self._manifest)


# The flags that dbt reads from the environment and that a template may use.
_KNOWN_FLAGS = frozenset(
    {
        "EMPTY",
        "SAMPLE",
        "DEFER",
        "FAVOR_STATE",
        "INTROSPECT",
        "STORE_FAILURES",
        "USE_COLORS",
    }
)


def _beginning_with(prefix: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in values.items() if name.startswith(prefix)}
