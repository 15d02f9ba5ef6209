"""The user-defined functions of a dbt project (dbt 1.11 and newer): what each one is, and which of them a node calls.

A function has no rows. It is code that the warehouse keeps and that its callers run. So it is part of the code of every node
that calls it, and dbt has to create it before any of them is built.
https://docs.getdbt.com/docs/build/udfs
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

from dagster_sao.core.errors import InvalidProjectError
from dagster_sao.core.manifest import inert_settings

_PREFIX = "function."
# All other entries of a function in the manifest count, also those that a later dbt adds.
_WITHOUT_EFFECT = frozenset(
    {
        "build_path", "checksum", "columns", "compiled", "compiled_code", "compiled_path", "config", "config_call_dict",
        "contract", "created_at", "defer_function", "depends_on", "deprecation_date", "description", "doc_blocks", "docs",
        "extra_ctes", "extra_ctes_injected", "fqn", "functions", "group", "meta", "metrics", "original_file_path",
        "package_name", "patch_path", "path", "raw_code", "refs", "resource_type", "root_path", "sources", "tags",
        "time_spine", "unique_id", "unrendered_config", "unrendered_config_call_dict",
    }
)  # fmt: skip
_DETERMINISTIC = "deterministic"
_NON_DETERMINISTIC = "non-deterministic"


@dataclass(frozen=True, slots=True)
class Function:
    """A user-defined function that dbt creates."""

    unique_id: str
    name: str
    file: str
    fqn: tuple[str, ...]
    relation_name: str
    parents: tuple[str, ...] = ()
    """Unique ids of the nodes and sources that its body reads, and the functions that it calls read."""
    ephemerals: tuple[str, ...] = ()
    """Unique ids of the ephemeral models that dbt inlines into its body."""
    functions: tuple[str, ...] = ()
    """Unique ids of the functions that it calls, directly or not, each after those that it calls itself."""

    @property
    def label(self) -> str:
        """The name that messages use."""
        return self.name


def function_entries(
    manifest: Mapping[str, Any], ephemerals: Mapping[str, Mapping[str, Any]]
) -> Mapping[str, Mapping[str, Any]]:
    """Return the entries of the functions of a manifest by unique id, each after those that it calls itself.

    `ephemerals` are the models that a body may have inlined. The entries depend on the sources that the body reads, which dbt
    itself does not list there. Raises InvalidProjectError when functions call each other in a
    circle.
    """
    found: Mapping[str, Mapping[str, Any]] = manifest.get("functions") or {}
    entries = {uid: _with_sources(props, manifest) for uid, props in found.items()}
    calls = {
        uid: [called for called in _inlined(props, ephemerals) if called in entries] for uid, props in entries.items()
    }
    try:
        return {uid: entries[uid] for uid in TopologicalSorter(calls).static_order()}
    except CycleError as error:
        path = " → ".join(str(entries[uid]["name"]) for uid in error.args[1])
        msg = f"The project's functions call each other in a circle: {path}. Remove one of these calls and parse again."
        raise InvalidProjectError(msg) from None


def read_function(
    props: Mapping[str, Any], parents: tuple[str, ...], ephemerals: tuple[str, ...], functions: tuple[str, ...]
) -> Function:
    """Return a function from its entry in the manifest."""
    uid = str(props["unique_id"])
    _, package, name = uid.split(".", 2)
    return Function(
        unique_id=uid,
        name=str(props.get("name") or name),
        file=str(props.get("original_file_path") or ""),
        fqn=tuple(props.get("fqn") or (package, name)),
        relation_name=".".join(str(props[part]) for part in ("database", "schema", "alias") if props.get(part)),
        parents=parents,
        ephemerals=ephemerals,
        functions=functions,
    )


def is_function(unique_id: str) -> bool:
    """Return whether a unique id of the manifest is a function's."""
    return unique_id.startswith(_PREFIX)


def definition(props: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the part of a function's entry that affects what it returns, without its body.

    >>> definition({"name": "f", "raw_code": "select 1", "description": "", "returns": {"data_type": "int"}})
    {'config': {}, 'name': 'f', 'returns': {'data_type': 'int'}}
    """
    config = {
        name: value
        for name, value in (props.get("config") or {}).items()
        if name not in inert_settings.OF_FUNCTIONS and value not in (None, "", [], {})
    }
    own = {
        name: _without_descriptions(value)
        for name, value in props.items()
        if name not in _WITHOUT_EFFECT and value not in (None, "", [], {})
    }
    return {"config": config, **own}


def is_deterministic(props: Mapping[str, Any], *, has_volatile_code: bool) -> bool:
    """Return whether a function is known to return the same for the same arguments and data.

    `has_volatile_code` tells whether its body, or what this reaches, mentions the time or a random value. That decides for
    SQL; code in another language is only believed to be deterministic where its config says so.
    """
    volatility = str((props.get("config") or {}).get("volatility") or "").lower()
    if has_volatile_code or volatility == _NON_DETERMINISTIC:
        return False
    return volatility == _DETERMINISTIC or language(props) == "sql"


def language(props: Mapping[str, Any]) -> str:
    """Return the language of a function's body."""
    return str(props.get("language") or "sql")


def functions_called(
    called: Iterable[str], entries: Mapping[str, Mapping[str, Any]], known: Mapping[str, Function]
) -> tuple[str, ...]:
    """Return the functions that something calls, directly or not, in the order in which they are to be created.

    `called` are the direct ones and `entries` all of a project, in that order. `known` holds those that these may call.
    """
    found = {uid for direct in called if direct in entries for uid in (direct, *known[direct].functions)}
    return tuple(uid for uid in entries if uid in found) if found else ()


def needed(
    functions: Mapping[str, Function], callers: Iterable[Sequence[str]], but: Iterable[str] = ()
) -> Iterator[str]:
    """Yield the functions that callers need, in the order in which they are to be created, without the functions in `but`."""
    wanted = {uid for called in callers for uid in called} - set(but)
    return (uid for uid in functions if uid in wanted)


def _without_descriptions(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _without_descriptions(inner) for key, inner in value.items() if key != "description"}
    if isinstance(value, list | tuple):
        return [_without_descriptions(inner) for inner in value]
    return value


def _inlined(props: Mapping[str, Any], ephemerals: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield what a body depends on, ephemeral models replaced by what they depend on."""
    seen: set[str] = set()
    stack = list(_depends_on(props))
    while stack:
        uid = stack.pop()
        if uid in ephemerals and uid not in seen:
            seen.add(uid)
            stack.extend(_depends_on(ephemerals[uid]))
        else:
            yield uid


def _with_sources(props: Mapping[str, Any], manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the entry of a function that depends on the sources that it names too: dbt resolves them for nodes alone."""
    read = [_source_named(source, table, props, manifest) for source, table in props.get("sources") or ()]
    nodes = dict.fromkeys([*_depends_on(props), *(uid for uid in read if uid)])
    return {**props, "depends_on": {**(props.get("depends_on") or {}), "nodes": list(nodes)}}


def _source_named(source: str, table: str, props: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    """Return the unique id of a source table as dbt finds it, in the root project first; empty if there is none."""
    sources = manifest["sources"]
    named = [uid for uid, one in sources.items() if (one["source_name"], one["name"]) == (source, table)]
    first = [manifest["metadata"].get("project_name"), props.get("package_name")]
    of_package = {sources[uid]["package_name"]: uid for uid in named}
    return next((of_package[package] for package in [*first, *of_package] if package in of_package), "")


def _depends_on(props: Mapping[str, Any]) -> Sequence[str]:
    return list((props.get("depends_on") or {}).get("nodes") or [])
