"""dbt's own classes for selecting nodes, and nothing else of dbt.

`tests/orchestration/test_dbt_selection_private.py` names each of them. dbt is imported where it is needed: it is slow.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextvars import copy_context
from pathlib import Path
from typing import Any

from dagster_sao.core.errors import InvalidSelectionError
from dagster_sao.warehouse.dbt_private import ensure_flags

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
# dbt asks for these though no selection does, and other engines leave them out.
_OF_EACH_SOURCE = {"path": "", "source_description": "", "loader": ""}
StateSearch = Callable[[str], AbstractSet[str]]
"""What stands in for dbt's comparison of states: the unique ids that `state:<word>` means."""


class DbtSelector:
    """One manifest as dbt's own selection wants it. Made once per manifest, and used for many selections."""

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
        previous: Any = None,
        state_search: StateSearch | None = None,
    ) -> set[str]:
        """Return the unique ids, of tests and sources too, that a selection in dbt's command line syntax matches.

        `previous` is what `previous_state` returned. Raises InvalidSelectionError.
        """
        from dbt.graph.cli import parse_union
        from dbt.graph.selector_spec import SelectionDifference

        def spec() -> Any:
            included = parse_union([select], expect_exists=False)
            excluded = parse_union([exclude] if exclude else [], expect_exists=False)
            return SelectionDifference(components=[included, excluded]) if exclude else included

        return self._search(spec, previous, state_search)

    def select_by_name(
        self,
        name: str,
        selectors: Iterable[Mapping[str, Any]],
        *,
        previous: Any = None,
        state_search: StateSearch | None = None,
    ) -> set[str]:
        """Return the unique ids that the yaml selector `name` of `selectors` matches. Raises InvalidSelectionError."""
        from dbt.config.selectors import SelectorConfig

        def spec() -> Any:
            return SelectorConfig.selectors_from_dict({"selectors": [dict(one) for one in selectors]})[name][
                "definition"
            ]

        return self._search(spec, previous, state_search)

    def previous_state(self, folder: Path, target_dir: Path) -> Any:
        """Return the artifacts in `folder` as dbt compares with them, and the `sources.json` of the target folder.

        Raises InvalidSelectionError when dbt cannot read one.
        """
        from dbt.contracts.state import PreviousState

        ensure_flags(self._project_dir, self._profiles_dir)
        return _as_our_error(lambda: PreviousState(folder, target_dir, self._project_dir))

    def _search(self, spec: Callable[[], Any], previous: Any, state_search: StateSearch | None) -> set[str]:
        from dbt.graph.selector import NodeSelector
        from dbt.graph.selector_methods import MethodName
        from dbt_common.events.contextvars import task_contextvars

        ensure_flags(self._project_dir, self._profiles_dir)
        selector = NodeSelector(self._graph, self._manifest, previous)
        if state_search is not None:
            methods: dict[Any, Any] = {**selector.SELECTOR_METHODS, MethodName.State: _state_method(state_search)}
            selector.SELECTOR_METHODS = methods

        def search() -> set[str]:
            with task_contextvars(project_root=str(self._project_dir)):
                return {str(uid) for uid in selector.select_nodes(spec(), warn_on_no_nodes=False)[0]}

        # What dbt keeps in context variables stays in a copy.
        found: set[str] = _as_our_error(lambda: copy_context().run(search))
        return found


def check_methods(names: Iterable[str]) -> None:
    """Raise InvalidSelectionError for a method that dbt's selection does not have."""
    from dbt.graph.selector_methods import MethodName

    known = [str(method.value) for method in MethodName]
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean '{close[0]}'?" if close else f" It has {', '.join(known)}."
            msg = f"dbt's selection has no method '{name}'.{hint}"
            raise InvalidSelectionError(msg)


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
