"""Reads the graph of a dbt project from the dictionary of a `manifest.json`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple

from dagster_sao.core.errors import InvalidProjectError
from dagster_sao.core.manifest.build_settings import read_build_settings
from dagster_sao.core.manifest.functions import Function, function_entries, functions_called, is_function, read_function
from dagster_sao.core.manifest.gates import find_gates
from dagster_sao.core.manifest.graph import Node, NodeKind, ProjectGraph, ProjectTest, Source

# dbt-core 1.8 to 1.13 all write version 12; the manifest of dbt v2 keeps the layout and says 20.
# https://docs.getdbt.com/reference/artifacts/manifest-json
_NEWEST_MANIFEST_VERSION = 20
_OLDEST_MANIFEST_VERSION = 12

_KNOWS_ON_ERROR = (1, 12)
_VIEW_MATERIALIZATIONS = frozenset({"view"})
_DETERMINISTIC_MATERIALIZATIONS = frozenset({"table", "seed"})


def build_graph(manifest: Mapping[str, Any], built: AbstractSet[str] | None = None) -> ProjectGraph:
    """Return the graph of a manifest.

    `built` restricts the nodes and data tests (None: all); a node outside it that others read is built by somebody else,
    and so counts as a source. A unit test goes with its model.

    Raises InvalidProjectError for a manifest of an unknown version, an unknown parent or a cycle.
    """
    check_manifest_version(manifest)
    here = {uid: p for uid, p in _built_nodes(manifest).items() if built is None or uid in built}
    ephemerals = _ephemerals(manifest)
    sources = {uid: _source(props) for uid, props in manifest["sources"].items() if _enabled(props)}

    entries = function_entries(manifest, ephemerals)
    functions: dict[str, Function] = {}
    for uid, props in entries.items():
        functions[uid] = read_function(props, *_collapse(uid, props, entries, functions, ephemerals))

    def collapse(unique_id: str, props: Mapping[str, Any]) -> _Reads:
        reads = _collapse(unique_id, props, entries, functions, ephemerals)
        for parent in reads.parents:
            if parent not in here and parent not in sources:
                sources[parent] = _external_node(props, parent, manifest, is_excluded=built is not None)
        return reads

    knows_on_error = _dbt_version(manifest) >= _KNOWS_ON_ERROR
    found = {
        unique_id: _node(props, collapse(unique_id, props), knows_on_error=knows_on_error)
        for unique_id, props in here.items()
    }
    nodes = {unique_id: found[unique_id] for unique_id in _topological(found)}
    tests = {
        uid: _data_test(props, collapse(uid, props))
        for uid, props in manifest["nodes"].items()
        if props["resource_type"] == "test" and _enabled(props) and (built is None or uid in built)
    }
    tests.update(
        {
            uid: replace(test, functions=nodes[test.model].functions)
            for uid, test in _unit_tests(manifest)
            if test.model in here
        }
    )
    callers: list[Node | ProjectTest] = [*nodes.values(), *tests.values()]
    called = {uid for caller in callers for uid in caller.functions}
    return ProjectGraph(
        project_name=manifest["metadata"].get("project_name") or "dbt",
        adapter_type=manifest["metadata"].get("adapter_type") or "",
        nodes=nodes,
        sources=sources,
        tests=tests,
        gates=find_gates(
            nodes,
            {uid: [test.model] if test.model else _depends_on(manifest["nodes"][uid]) for uid, test in tests.items()},
            {uid: _depends_on(props) for uid, props in _ordered_by_dbt(manifest)},
            itself={uid for uid, test in tests.items() if test.is_unit_test},
        ),
        # One that nothing calls is built by whoever builds all of the project.
        functions={uid: function for uid, function in functions.items() if built is None or uid in called},
    )


def check_manifest_version(manifest: Mapping[str, Any]) -> None:
    """Raise InvalidProjectError unless `manifest` has the layout this package reads."""
    metadata = manifest.get("metadata")
    if not isinstance(metadata, Mapping) or "nodes" not in manifest or "sources" not in manifest:
        msg = "This is not a dbt manifest: it has no `metadata`, `nodes` and `sources`. Run `dbt parse` to write a new one."
        raise InvalidProjectError(msg)
    url = str(metadata.get("dbt_schema_version"))
    digits = url.rsplit("/v", 1)[-1].removesuffix(".json")
    version = int(digits) if digits.isdecimal() else 0
    if version > _NEWEST_MANIFEST_VERSION:
        msg = (
            f"The manifest has schema version {version}, written by dbt {metadata.get('dbt_version')}, and dagster_sao reads up"
            f" to {_NEWEST_MANIFEST_VERSION}. Upgrade dagster-sao, or parse the project with an older dbt."
        )
        raise InvalidProjectError(msg)
    if version < _OLDEST_MANIFEST_VERSION:
        msg = (
            f"The manifest has schema version {digits or 'unknown'}, written by dbt {metadata.get('dbt_version')}, and dagster_sao"
            f" reads from {_OLDEST_MANIFEST_VERSION} (dbt 1.8) on. Parse the project again with a newer dbt."
        )
        raise InvalidProjectError(msg)


def _dbt_version(manifest: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the first two numbers of the version of the dbt that wrote a manifest, none if it has none."""
    numbers = str(manifest["metadata"].get("dbt_version") or "").split(".")[:2]
    return tuple(int(number) for number in numbers) if all(map(str.isdecimal, numbers)) else ()


def _enabled(props: Mapping[str, Any]) -> bool:
    return bool((props.get("config") or {}).get("enabled", True))


def _built_nodes(manifest: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {
        unique_id: props
        for unique_id, props in manifest["nodes"].items()
        if props["resource_type"] in {"model", "seed", "snapshot"}
        and _enabled(props)
        and _materialized(props) != "ephemeral"
        and not _belongs_elsewhere(props)
    }


def _belongs_elsewhere(props: Mapping[str, Any]) -> bool:
    # dbt Mesh adds the public models of other projects to `nodes`, without code and without a file.
    return props["resource_type"] == "model" and not props.get("original_file_path")


def _materialized(props: Mapping[str, Any]) -> str:
    return str((props.get("config") or {}).get("materialized") or props["resource_type"])


def _ephemerals(manifest: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {
        unique_id: props
        for unique_id, props in manifest["nodes"].items()
        if props["resource_type"] == "model" and _materialized(props) == "ephemeral"
    }


def _depends_on(props: Mapping[str, Any]) -> Sequence[str]:
    return list((props.get("depends_on") or {}).get("nodes") or [])


class _Reads(NamedTuple):
    """The parents, inlined models and functions of a node, test or function."""

    parents: tuple[str, ...]
    ephemerals: tuple[str, ...]
    functions: tuple[str, ...]


def _collapse(
    unique_id: str,
    props: Mapping[str, Any],
    entries: Mapping[str, Mapping[str, Any]],
    functions: Mapping[str, Function],
    ephemerals: Mapping[str, Mapping[str, Any]],
) -> _Reads:
    """Return the direct parents with ephemerals and functions replaced by theirs, those ephemerals, and all functions.

    `entries` are the manifest's functions, and `functions` the ones among them that this may call.
    """
    parents: set[str] = set()
    inlined: dict[str, None] = {}
    called: list[str] = []
    stack = list(reversed(_depends_on(props)))
    while stack:
        parent = stack.pop()
        if parent in ephemerals:
            if parent not in inlined:
                inlined[parent] = None
                stack.extend(reversed(_depends_on(ephemerals[parent])))
        elif parent in functions:
            # Its body reads relations of its own whenever it is called.
            called.append(parent)
            parents.update(functions[parent].parents)
        elif is_function(parent) or parent.split(".", 1)[0] in {"model", "seed", "snapshot", "source"}:
            parents.add(parent)  # a function that is not there is an unknown parent
    parents.discard(unique_id)  # an incremental model may name itself
    # In an order of ours: dbt's own parser hands sources over as a set, in another order each time.
    return _Reads(tuple(sorted(parents)), tuple(inlined), functions_called(called, entries, functions))


def _node(props: Mapping[str, Any], reads: _Reads, *, knows_on_error: bool) -> Node:
    materialized = _materialized(props)
    return Node(
        unique_id=props["unique_id"],
        name=_display_name(props),
        resource_type=props["resource_type"],
        kind=_kind(props["resource_type"], materialized, props.get("language") or "sql"),
        materialized=materialized,
        language=props.get("language") or "sql",
        file=props["original_file_path"],
        fqn=tuple(props["fqn"]),
        relation_name=props.get("relation_name"),
        parents=reads.parents,
        ephemerals=reads.ephemerals,
        functions=reads.functions,
        settings=read_build_settings(props),
        # dbt asks it of models only: https://docs.getdbt.com/reference/resource-configs/on_error
        continues_on_error=knows_on_error
        and props["resource_type"] == "model"
        and (props.get("config") or {}).get("on_error") == "continue",
    )


def _display_name(props: Mapping[str, Any]) -> str:
    version = props.get("version")
    return f"{props['name']}.v{version}" if version is not None else str(props["name"])


def _kind(resource_type: str, materialized: str, language: str) -> NodeKind:
    if resource_type == "seed":
        return NodeKind.SEED
    if materialized in _VIEW_MATERIALIZATIONS:
        return NodeKind.VIEW
    if materialized in _DETERMINISTIC_MATERIALIZATIONS and language == "sql":
        return NodeKind.DETERMINISTIC
    return NodeKind.HISTORY_DEPENDENT


def _source(props: Mapping[str, Any]) -> Source:
    return Source(
        unique_id=props["unique_id"],
        source_name=props["source_name"],
        name=props["name"],
        file=props["original_file_path"],
        database=props.get("database"),
        schema=props.get("schema"),
        identifier=props.get("identifier") or props["name"],
        relation_name=props.get("relation_name"),
        definition=props,
    )


def _external_node(
    child_props: Mapping[str, Any], parent: str, manifest: Mapping[str, Any], *, is_excluded: bool
) -> Source:
    props = manifest["nodes"].get(parent)
    if props is None or not (is_excluded or _belongs_elsewhere(props)):
        known_but_off = parent in (manifest.get("disabled") or {}) or props is not None
        why = "which is disabled" if known_but_off else "which the manifest does not contain"
        msg = (
            f"{child_props['name']} ({child_props['original_file_path']}) depends on {parent}, {why}."
            f" Parse the project again, or correct the {'function()' if is_function(parent) else 'ref() or source()'}."
        )
        raise InvalidProjectError(msg)
    return Source(
        unique_id=parent,
        source_name=props.get("package_name") or parent.split(".")[1],
        name=_display_name(props),
        file="",
        database=props.get("database"),
        schema=props.get("schema"),
        identifier=props.get("alias") or props["name"],
        relation_name=props.get("relation_name"),
        definition=props,
    )


def _data_test(props: Mapping[str, Any], reads: _Reads) -> ProjectTest:
    return ProjectTest(
        unique_id=props["unique_id"],
        name=props["name"],
        fqn=tuple(props["fqn"]),
        file=str(props.get("original_file_path") or ""),
        reads=reads.parents,
        functions=reads.functions,
        is_error=str((props.get("config") or {}).get("severity") or "error").lower() == "error",
        ephemerals=reads.ephemerals,
    )


def _unit_tests(manifest: Mapping[str, Any]) -> Iterator[tuple[str, ProjectTest]]:
    for unique_id, props in (manifest.get("unit_tests") or {}).items():
        models = _depends_on(props)
        if models and _enabled(props):
            file = str(props.get("original_file_path") or "")
            # dbt runs it for the first: https://docs.getdbt.com/reference/resource-properties/unit-tests
            test = ProjectTest(unique_id, props["name"], tuple(props["fqn"]), file, model=models[0])
            yield unique_id, test


def _ordered_by_dbt(manifest: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield what has a place in dbt's order of building: functions and ephemeral models too, tests not."""
    for unique_id, props in manifest["nodes"].items():
        if props["resource_type"] != "test" and _enabled(props):
            yield unique_id, props
    yield from (manifest.get("functions") or {}).items()


def _topological(nodes: Mapping[str, Node]) -> Sequence[str]:
    sorter = TopologicalSorter({uid: [p for p in node.parents if p in nodes] for uid, node in nodes.items()})
    try:
        return list(sorter.static_order())
    except CycleError as error:
        path = " → ".join(nodes[unique_id].name for unique_id in error.args[1])
        msg = f"The project has a cycle: {path}. Remove one of these ref() calls and parse again."
        raise InvalidProjectError(msg) from None
