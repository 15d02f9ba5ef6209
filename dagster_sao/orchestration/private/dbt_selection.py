"""dbt's own classes for selecting nodes and its reader of seeds, and nothing else of dbt.

`tests/orchestration/private/test_dbt_selection.py` names each of them. dbt is imported where it is needed: it is slow.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextvars import copy_context
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from dagster_sao.core.errors import InvalidSelectionError
from dagster_sao.core.suggestions import did_you_mean, nearest_names
from dagster_sao.warehouse.dbt_private.config import ensure_flags

_MEMBERS = (
    "nodes",
    "sources",
    "exposures",
    "functions",
    "metrics",
    "semantic_models",
    "saved_queries",
    "unit_tests",
)
# dbt wants these although no selection needs them, and other engines leave them out.
_OF_EACH_SOURCE = {"path": "", "source_description": "", "loader": ""}
_RUN = frozenset({"nodes", "unit_tests", "functions"})
"""The members that have what dbt's commands build and run."""
_WILDCARDS = frozenset("*?[]")
SELECTOR_METHOD = "selector"
StateSearch = Callable[[str], AbstractSet[str]]
"""What stands in for dbt's comparison of states: the unique ids that `state:<word>` means."""


def inferred_columns(
    path: Path, text_columns: Iterable[str], delimiter: str, *, is_sized: bool
) -> list[list[Any]] | None:
    """Return the columns of a seed's file as dbt infers them: name, type, and what else its SQL type follows from.

    `is_sized` tells whether that may be the length of the values. None where dbt cannot read the file, or where there is no
    dbt. See `load_agate_table` in dbt/context/providers.py, and `convert_number_type` in dbt/adapters/base/impl.py.
    """
    try:
        import agate  # type: ignore[import-untyped]
        from dbt_common.clients.agate_helper import from_csv

        table = from_csv(str(path), text_columns=list(text_columns), delimiter=delimiter)
    except Exception:  # noqa: BLE001 (whatever is wrong with it, dbt says so when it loads it)
        return None
    found: list[list[Any]] = []
    for index, column in enumerate(table.columns):
        kind = type(column.data_type).__name__
        size = int(table.aggregate(agate.MaxPrecision(index))) if kind == "Number" else 0
        if kind == "Text" and is_sized:
            size = max((len(str(value).encode()) for value in column.values_without_nulls()), default=0)
        found.append([column.name, kind, size if is_sized else bool(size)])
    return found


class DbtSelector:
    """One manifest in the form that dbt's own selection needs. Made once per manifest, for many selections."""

    def __init__(self, manifest: Mapping[str, Any], project_dir: Path, profiles_dir: Path) -> None:
        """Turn a manifest's entries into dbt's objects.

        Raises InvalidSelectionError for an entry that the installed dbt does not know.
        """
        import networkx as nx  # what dbt's own graph is made of
        from dbt.graph.graph import Graph

        self._project_dir = project_dir
        self._profiles_dir = profiles_dir
        ensure_flags(project_dir, profiles_dir)
        try:
            self._manifest = _dbt_manifest(manifest)
        except Exception as error:  # the library that dbt reads with raises errors of many kinds
            written_by = manifest["metadata"].get("dbt_version")
            msg = (
                f"The installed dbt cannot select from this manifest, which dbt {written_by} wrote:"
                f" {' '.join(str(error).split())}. Parse the project again with the installed dbt."
            )
            raise InvalidSelectionError(msg) from error
        members = {uid: props for name in _MEMBERS for uid, props in (manifest.get(name) or {}).items()}
        graph = nx.DiGraph()
        graph.add_nodes_from(members)
        graph.add_edges_from((parent, uid) for uid, props in members.items() for parent in _parents(props, members))
        self._graph = Graph(graph)

    def select(
        self,
        select: str,
        exclude: str,
        *,
        selectors: Iterable[Mapping[str, Any]] = (),
        previous: Any = None,
        state_search: StateSearch | None = None,
    ) -> set[str]:
        """Return the unique ids, of tests and sources too, that a selection in dbt's command line syntax matches.

        `selectors` are the yaml selectors that `selector:` finds, and `previous` is what `previous_state` returned.
        Raises InvalidSelectionError.
        """
        from dbt.graph.cli import parse_union
        from dbt.graph.selector_spec import SelectionDifference

        def spec() -> Any:
            included = parse_union([select], expect_exists=False)
            excluded = parse_union([exclude] if exclude else [], expect_exists=False)
            return SelectionDifference(components=[included, excluded]) if exclude else included

        return self._search(spec, selectors, previous, state_search)

    def select_by_name(
        self,
        name: str,
        selectors: Iterable[Mapping[str, Any]],
        *,
        previous: Any = None,
        state_search: StateSearch | None = None,
    ) -> set[str]:
        """Return the unique ids that the yaml selector `name` of `selectors` matches. Raises InvalidSelectionError."""
        known = [dict(one) for one in selectors]
        return self._search(lambda: _selector_config(known)[name]["definition"], known, previous, state_search)

    def previous_state(self, folder: Path, target_dir: Path) -> Any:
        """Return the artifacts in `folder` as dbt compares with them, and the `sources.json` of the target folder.

        Raises InvalidSelectionError when dbt cannot read one.
        """
        from dbt.contracts.state import PreviousState

        ensure_flags(self._project_dir, self._profiles_dir)
        return _as_our_error(lambda: PreviousState(folder, target_dir, self._project_dir))

    def _search(
        self,
        spec: Callable[[], Any],
        selectors: Iterable[Mapping[str, Any]],
        previous: Any,
        state_search: StateSearch | None,
    ) -> set[str]:
        from dbt.graph.selector import NodeSelector
        from dbt.graph.selector_methods import MethodName
        from dbt_common.events.contextvars import task_contextvars

        ensure_flags(self._project_dir, self._profiles_dir)
        # Before dbt 1.12 a selector that inherits from another holds that one's definition.
        known = {"selectors": _as_our_error(lambda: _selector_config(selectors))} if finds_selectors() else {}
        selector = NodeSelector(self._graph, self._manifest, previous, **known)
        if state_search is not None:
            methods: dict[Any, Any] = {**selector.SELECTOR_METHODS, MethodName.State: _state_method(state_search)}
            selector.SELECTOR_METHODS = methods

        def search() -> set[str]:
            with task_contextvars(project_root=str(self._project_dir)):
                return _selected(selector, spec())

        # What dbt keeps in context variables stays in a copy.
        found: set[str] = _as_our_error(lambda: copy_context().run(search))
        return found


class WordSelector:
    """What single words match in one manifest, by dbt's own matching; for selections of many words.

    dbt compares each word with each entry, which for a thousand words of a thousand models takes it seconds. Here it compares a
    name only with the entries that have the last part of it among theirs: no other can match.
    """

    def __init__(self, manifest: Mapping[str, Any], project_dir: Path, profiles_dir: Path) -> None:
        """Take what the methods `fqn`, `file`, `package` and `resource_type` read, for everything that dbt builds or runs."""
        self._manifest = manifest
        self._folders = project_dir, profiles_dir

    @cached_property
    def _selector(self) -> Any:
        members = {name: _matched(self._manifest.get(name) or {}) if name in _RUN else {} for name in _MEMBERS}
        project = SimpleNamespace(project_name=self._manifest["metadata"].get("project_name"))
        unique_ids = frozenset(uid for entries in members.values() for uid in entries)
        return _node_selector(SimpleNamespace(**members, metadata=project), unique_ids)

    def select(self, words: Sequence[str], exclude: Sequence[str] = ()) -> set[str]:
        """Return the unique ids that arguments of `--select` and `--exclude` match, without tests that only read what matches.

        Raises InvalidSelectionError for words that dbt cannot read.
        """
        from dbt.graph.cli import parse_union
        from dbt.graph.selector_spec import SelectionDifference

        ensure_flags(*self._folders)

        def search() -> set[str]:
            spec = SelectionDifference(
                [parse_union(list(part), expect_exists=False) for part in (words, exclude) if part]
            )
            return _selected(self._selector, spec)

        found: set[str] = _as_our_error(search)
        return found


def finds_selectors() -> bool:
    """Return whether the installed dbt looks for yaml selectors while it selects, as the method `selector:` of dbt 1.12 does.

    An older dbt inlines the selectors that another inherits from while it reads the file, from top to bottom.
    """
    from dbt.graph.selector import NodeSelector

    return _takes(NodeSelector, "selectors")


def check_methods(names: Iterable[str]) -> None:
    """Raise InvalidSelectionError for a method that dbt's selection does not have."""
    from dbt.graph.selector_methods import MethodName

    known = [str(method.value) for method in MethodName]
    for name in names:
        if name == SELECTOR_METHOD and name not in known:
            msg = "The method `selector:` in a selection needs dbt 1.12 or newer. Give the yaml selector as `selector`."
            raise InvalidSelectionError(msg)
        if name not in known:
            hint = did_you_mean(nearest_names(name, known, most=1)) or f" It has {', '.join(known)}."
            msg = f"dbt's selection has no method '{name}'.{hint}"
            raise InvalidSelectionError(msg)


def _matched(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Return what dbt's selection reads of entries, as attributes."""
    from dbt.node_types import VERSIONED_NODE_TYPES

    return {
        uid: SimpleNamespace(
            unique_id=uid,
            fqn=props["fqn"],
            resource_type=props["resource_type"],
            package_name=props["package_name"],
            original_file_path=props.get("original_file_path") or "",
            is_versioned=props["resource_type"] in VERSIONED_NODE_TYPES and props.get("version") is not None,
            config=SimpleNamespace(enabled=bool((props.get("config") or {}).get("enabled", True))),
        )
        for uid, props in entries.items()
    }


def _node_selector(manifest: Any, unique_ids: AbstractSet[str]) -> Any:
    """Return dbt's selector over the entries of a manifest, without a graph and with a memory of its answers."""
    from dbt.graph.selector import NodeSelector
    from dbt.graph.selector_methods import MethodName, QualifiedNameSelectorMethod

    by_part: dict[str, list[tuple[str, Any]]] = {}
    entries = [entry for name in _RUN for entry in getattr(manifest, name).items()]
    for uid, entry in entries:
        for part in _parts(entry):
            by_part.setdefault(part, []).append((uid, entry))

    class Names(QualifiedNameSelectorMethod):
        def search(self, included_nodes: Any, selector: str) -> Iterator[Any]:
            last = selector.rsplit(".", 1)[-1]
            candidates = entries if _WILDCARDS.intersection(last) else by_part.get(last, [])
            yield from (
                uid
                for uid, entry in candidates
                if uid in included_nodes and self.node_is_match(selector, entry.fqn, entry.is_versioned)
            )

    class Selector(NodeSelector):
        SELECTOR_METHODS: dict[Any, Any] = {**NodeSelector.SELECTOR_METHODS, MethodName.FQN: Names}  # noqa: RUF012
        found: dict[Any, set[Any]] = {}  # noqa: RUF012 (the class is of one manifest)

        def select_included(self, included_nodes: Any, spec: Any) -> set[Any]:
            key = (spec.method, tuple(spec.method_arguments), spec.value)
            if key not in self.found:
                self.found[key] = super().select_included(included_nodes, spec)
            return self.found[key]

        def expand_selection(self, selected: Any, indirect_selection: Any = None) -> tuple[set[Any], set[Any]]:
            del indirect_selection  # runs tell dbt to add no tests
            return set(selected), set()

    class Nodes:
        """Stands in for dbt's graph: no word that is selected here needs its edges."""

        def nodes(self) -> AbstractSet[str]:
            return unique_ids

        def subgraph(self, nodes: Any) -> Nodes:
            del nodes
            return self

    graph: Any = Nodes()
    return Selector(graph, manifest)


def _parts(entry: Any) -> set[str]:
    """Return every last part of a name that dbt can match with an entry."""
    parts = {part for name in entry.fqn for part in name.split(".")}
    if entry.is_versioned:
        # dbt takes `_` and `.` for the same between the name of a versioned model and its version.
        words = "_".join(entry.fqn[-2:]).split("_")
        parts |= {"_".join(words[at:]) for at in range(len(words))}
    return parts


def _selected(selector: Any, spec: Any) -> set[str]:
    # A late 1.10 was the first that can be told not to warn.
    options = {"warn_on_no_nodes": False} if _takes(selector.select_nodes, "warn_on_no_nodes") else {}
    return {str(uid) for uid in selector.select_nodes(spec, **options)[0]}


def _takes(what: Callable[..., Any], parameter: str) -> bool:
    return parameter in inspect.signature(what).parameters


def _selector_config(selectors: Iterable[Mapping[str, Any]]) -> Any:
    from dbt.config.selectors import SelectorConfig

    return SelectorConfig.selectors_from_dict({"selectors": [dict(one) for one in selectors]})


def _as_our_error(what: Callable[[], Any]) -> Any:
    from dbt_common.exceptions import DbtBaseException

    try:
        return what()
    except DbtBaseException as error:
        msg = f"dbt cannot resolve the selection: {' '.join(str(error).split())}"
        raise InvalidSelectionError(msg) from error


def _parents(props: Mapping[str, Any], members: Mapping[str, Any]) -> Iterator[str]:
    for parent in (props.get("depends_on") or {}).get("nodes") or ():
        if parent in members:
            yield parent


def _dbt_manifest(raw: Mapping[str, Any]) -> Any:
    """Return dbt's Manifest: entry by entry, which takes a quarter of the time of its own reading of the whole."""
    from dbt.artifacts.schemas.manifest import ManifestMetadata
    from dbt.contracts.graph import nodes
    from dbt.contracts.graph.manifest import Manifest

    classes = {
        "model": nodes.ModelNode,
        "seed": nodes.SeedNode,
        "snapshot": nodes.SnapshotNode,
        "analysis": nodes.AnalysisNode,
        "operation": nodes.HookNode,
        "sql_operation": nodes.SqlNode,
    }
    collections = {
        "sources": nodes.SourceDefinition,
        "macros": nodes.Macro,
        "exposures": nodes.Exposure,
        "functions": getattr(nodes, "FunctionNode", None),  # since dbt 1.11
        "metrics": nodes.Metric,
        "semantic_models": nodes.SemanticModel,
        "saved_queries": nodes.SavedQuery,
        "unit_tests": nodes.UnitTestDefinition,
    }

    def node(props: Mapping[str, Any]) -> Any:
        if props["resource_type"] == "test":
            known: Any = nodes.GenericTestNode if props.get("test_metadata") else nodes.SingularTestNode
        else:
            known = classes[props["resource_type"]]
        return known.from_dict(props)

    def complete(name: str, props: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**_OF_EACH_SOURCE, **props} if name == "sources" else props

    found: dict[str, Any] = {
        name: {uid: known.from_dict(complete(name, props)) for uid, props in raw[name].items()}
        for name, known in collections.items()
        if known is not None and raw.get(name)
    }
    metadata = raw["metadata"]
    return Manifest(
        nodes={uid: node(props) for uid, props in raw["nodes"].items()},
        **found,
        metadata=ManifestMetadata(adapter_type=metadata.get("adapter_type"), project_name=metadata.get("project_name")),
    )


def _state_method(search: StateSearch) -> Any:
    from dbt.graph.selector_methods import StateSelectorMethod

    class FingerprintState(StateSelectorMethod):
        def search(self, included_nodes: Any, selector: str) -> Iterator[Any]:
            yield from (uid for uid in search(selector) if uid in included_nodes)

    return FingerprintState
