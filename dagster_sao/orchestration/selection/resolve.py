"""Which nodes a user means: dbt's own selection syntax, resolved against a manifest without a dbt process."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from dagster_sao.core.code.fingerprinter import Fingerprinter
from dagster_sao.core.code.variables import Variables
from dagster_sao.core.errors import EmptySelectionError, InvalidSelectionError, UnknownNodeError
from dagster_sao.core.manifest_diff import Comparison, compare, without_environment
from dagster_sao.core.suggestions import did_you_mean, nearest_names
from dagster_sao.orchestration.private.dbt_selection import (
    SELECTOR_METHOD,
    DbtSelector,
    WordSelector,
    check_methods,
    finds_selectors,
)
from dagster_sao.orchestration.project.loaded import LoadedProject, read_code
from dagster_sao.orchestration.project.orchestrated import OrchestratedProject
from dagster_sao.orchestration.project.read_files import known_forms, read_manifest, read_variables
from dagster_sao.orchestration.project.surroundings import moment_of
from dagster_sao.orchestration.selection.words import SelectionWords
from dagster_sao.orchestration.selection.yaml_selectors import (
    check_references,
    default_selector,
    methods_of_selector,
    methods_of_words,
    no_selector,
    read_selectors,
    selectors_of_words,
)

ALL = "fqn:*"
_STATE, _SOURCE_STATUS, _RESULT = "state", "source_status", "result"
_STATEFUL = frozenset({_STATE, _SOURCE_STATUS, _RESULT})
_NAMED = 3


class StateMode(str, Enum):
    """Who defines `state:modified`."""

    DBT = "dbt"
    """dbt: the text of a node's files and config."""
    SEMANTIC = "semantic"
    """This package's fingerprints: comments and white space do not count, macros and variables do."""


@dataclass(frozen=True, slots=True)
class NodeSelection:
    """A selection of nodes as dbt's command line takes it."""

    select: str = ""
    exclude: str = ""
    selector: str = ""
    state: Path | None = None
    """The folder with another environment's manifest.json, for `state:`; relative to the dbt project, as dbt has it."""
    state_mode: StateMode = StateMode.DBT

    def __str__(self) -> str:
        """Return the selection as messages quote it."""
        if self.selector:
            return f"selector:{self.selector}"
        return f"{self.select or ALL} --exclude {self.exclude}" if self.exclude else self.select or ALL


def resolve_selection(
    project: OrchestratedProject,
    loaded: LoadedProject,
    selection: NodeSelection,
    *,
    warn: Callable[[str], None] | None = None,
) -> set[str]:
    """Return the unique ids of the nodes of the project, without tests and sources, that are selected.

    With nothing selected these are the nodes of the project's default selector, or all without one. A criterion that depends
    on a state may match nothing; else EmptySelectionError is raised if nothing matches. `warn` gets a sentence for each of
    several criteria that matches nothing, as dbt warns of it. Raises InvalidSelectionError for a selection without meaning.
    """
    nodes = loaded.project.graph.nodes
    selectors = _selectors(project, loaded.manifest)
    name = _selector_name(selection, selectors)
    methods = _methods(selection, name, selectors)
    if not name and not selection.exclude and selection.select.strip() in {"", ALL}:
        _check_state_folder(project, selection, methods)
        return set(nodes)
    check_methods(sorted(methods))
    _check_state_folder(project, selection, methods)
    resolver = _resolver(project, loaded)
    selected = resolver.select(selection, name, selectors, methods) & nodes.keys()
    if not selected and not methods & _STATEFUL:
        raise EmptySelectionError(_nothing(selection, name, loaded))
    if warn is not None and not name:
        for word in resolver.unmatched(selection):
            warn(f"The selection criterion '{word}' does not match any enabled nodes.{_hint_for(word, loaded)}")
    return selected


def is_stateful(project: OrchestratedProject, selection: NodeSelection) -> bool:
    """Return whether only a run can resolve the selection: it has `state:`, `source_status:` or `result:`.

    Raises InvalidSelectionError for an unknown or cyclic yaml selector.
    """
    selectors = _selectors(project, project.load().manifest)
    return bool(_methods(selection, _selector_name(selection, selectors), selectors) & _STATEFUL)


def find_node(loaded: LoadedProject, text: str) -> str:
    """Return the unique id of the node or source that `text` names.

    A name, a versioned name (`orders.v2`), a path of names (`shop.staging.orders`), a source as `raw.orders`, or a
    unique id. Raises UnknownNodeError with the nearest names, and for a name that several nodes have.
    """
    graph = loaded.project.graph
    if text in graph.nodes or text in graph.sources:
        return text
    found = [uid for uid, names in _names(loaded).items() if text in names]
    if len(found) == 1:
        return found[0]
    if found:
        msg = f"{len(found)} nodes of {graph.project_name} are named '{text}': name one of {', '.join(sorted(found))}."
        raise UnknownNodeError(msg)
    near = nearest_names(text, (name for names in _names(loaded).values() for name in names))
    msg = f"There is no node or source '{text}' in {graph.project_name}.{did_you_mean(near)}"
    raise UnknownNodeError(msg)


def _names(loaded: LoadedProject) -> Mapping[str, set[str]]:
    graph = loaded.project.graph
    names = {
        uid: {node.label, ".".join(node.fqn), ".".join(node.fqn[1:]), str(loaded.manifest["nodes"][uid]["name"])}
        for uid, node in graph.nodes.items()
    }
    return {**names, **{uid: {source.label} for uid, source in graph.sources.items()}}


def _selectors(project: OrchestratedProject, manifest: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    return read_selectors(project.dbt_project.project_dir, manifest)


def _selector_name(selection: NodeSelection, selectors: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the yaml selector that is used, empty for none. Raises InvalidSelectionError when it cannot be."""
    if not selection.selector:
        name = "" if selection.select.strip() or selection.exclude.strip() else default_selector(selectors)
    elif selection.select.strip() not in {"", ALL} or selection.exclude.strip():
        msg = f"The yaml selector '{selection.selector}' cannot be combined with select or exclude: give one or the other."
        raise InvalidSelectionError(msg)
    elif selection.selector not in selectors:
        raise no_selector(selection.selector, selectors)
    else:
        name = selection.selector
    if name:
        check_references(selectors, in_any_order=finds_selectors())
    return name


def _methods(selection: NodeSelection, name: str, selectors: Mapping[str, Mapping[str, Any]]) -> set[str]:
    if name:
        return methods_of_selector(name, selectors)
    words = f"{selection.select} {selection.exclude}"
    methods = set(methods_of_words(words))
    if SELECTOR_METHOD in methods:
        check_methods([SELECTOR_METHOD])
        check_references(selectors, in_any_order=True)
        for inherited in selectors_of_words(words, selectors):
            methods |= methods_of_selector(inherited, selectors)
    return methods


def _check_state_folder(project: OrchestratedProject, selection: NodeSelection, methods: set[str]) -> None:
    """Raise InvalidSelectionError unless the state folder has what the methods compare with."""
    needed = {
        "manifest.json": _STATE in methods or not methods & _STATEFUL,
        "sources.json": _SOURCE_STATUS in methods,
        "run_results.json": _RESULT in methods,
    }
    if selection.state is None:
        if methods & _STATEFUL:
            names = ", ".join(f"`{method}:`" for method in sorted(methods & _STATEFUL))
            msg = f"The selection '{selection}' uses {names} and needs a state to compare with: give the folder as `state`."
            raise InvalidSelectionError(msg)
        return
    folder = project.dbt_project.project_dir / selection.state
    for file, is_needed in needed.items():
        if is_needed and not (folder / file).is_file():
            msg = f"The state folder {folder} has no {file}: copy the artifacts of the other environment into it."
            raise InvalidSelectionError(msg)
    current = project.dbt_project.manifest_path.parent / "sources.json"
    if _SOURCE_STATUS in methods and not current.is_file():
        msg = f"`source_status:` compares with {current}, which does not exist. Run `dbt source freshness` first."
        raise InvalidSelectionError(msg)


def _nothing(selection: NodeSelection, name: str, loaded: LoadedProject) -> str:
    text = f"selector:{name}" if name else str(selection)
    hint = _hint_for(selection.select, loaded)
    return f"The selection '{text}' matches no node of {loaded.project.graph.project_name}.{hint}"


def _hint_for(text: str, loaded: LoadedProject) -> str:
    word = text.strip("@+0123456789 ")
    names = [node.name for node in loaded.project.graph.nodes.values()]
    return did_you_mean(nearest_names(word, names)) if word.isidentifier() and word not in names else ""


class _Resolver:
    """dbt's view of one manifest, with the state that was last compared with."""

    def __init__(self, project: OrchestratedProject, loaded: LoadedProject) -> None:
        dbt_project = project.dbt_project
        self.manifest = loaded.manifest
        self._loaded = loaded
        self._project = dbt_project
        self._selector = DbtSelector(loaded.manifest, dbt_project.project_dir, dbt_project.profiles_dir)
        self._known: dict[str, tuple[object, Any]] = {}

    def select(
        self,
        selection: NodeSelection,
        name: str,
        selectors: Mapping[str, Mapping[str, Any]],
        methods: set[str],
    ) -> set[str]:
        is_semantic = _STATE in methods and selection.state_mode is StateMode.SEMANTIC
        of_dbt = methods & (_STATEFUL - {_STATE} if is_semantic else _STATEFUL)
        previous = state_search = None
        if selection.state is not None:
            folder = self._project.project_dir / selection.state
            previous = self._once("previous", folder, self._previous) if of_dbt else None
            state_search = self._once("comparison", folder, self._compare).select if is_semantic else None
        if name:
            return self._selector.select_by_name(name, selectors.values(), previous=previous, state_search=state_search)
        select, exclude = " ".join(selection.select.split()) or ALL, " ".join(selection.exclude.split())
        return self._selector.select(
            select,
            exclude,
            selectors=selectors.values() if SELECTOR_METHOD in methods else (),
            previous=previous,
            state_search=state_search,
        )

    def unmatched(self, selection: NodeSelection) -> list[str]:
        """Return the words of select and exclude that match nothing; what depends on a state may."""
        words = [*selection.select.split(), *selection.exclude.split()]
        # A yaml selector may depend on a state too; a missing one is an error.
        lasting = [word for word in words if {*_STATEFUL, SELECTOR_METHOD}.isdisjoint(methods_of_words(word))]
        return [word for word in lasting if not self._selector.select(word, "")]

    def _once(self, what: str, folder: Path, read: Callable[[Path], Any]) -> Any:  # noqa: ANN401 (either of two)
        """Return what `read` says of the folder, read again when one of its files changed."""
        target = self._project.manifest_path.parent
        files = [
            *(folder / name for name in ("manifest.json", "sources.json", "run_results.json")),
            target / "sources.json",
        ]
        stamp = (folder, [(file.stat().st_mtime_ns, file.stat().st_size) if file.exists() else None for file in files])
        if what not in self._known or self._known[what][0] != stamp:
            self._known[what] = stamp, read(folder)
        return self._known[what][1]

    def _previous(self, folder: Path) -> Any:  # noqa: ANN401 (dbt's object)
        return self._selector.previous_state(folder, self._project.manifest_path.parent)

    def _compare(self, folder: Path) -> Comparison:
        cache = known_forms(self._project)

        def code(manifest: Mapping[str, Any], variables: Variables) -> Fingerprinter:
            bare = without_environment(manifest)
            return read_code(self._project, bare, moment_of(self._project, variables, bare), cache=cache)

        other = read_manifest(folder / "manifest.json")
        return compare(code(self.manifest, self._loaded.variables), code(other, _variables_of(folder, self._loaded)))


def selection_words(project: OrchestratedProject, loaded: LoadedProject) -> SelectionWords:
    """Return the words that select single nodes and tests of a project in a dbt command."""
    manifest, own = loaded.manifest, project.dbt_project
    return SelectionWords(manifest, WordSelector(manifest, own.project_dir, own.profiles_dir))


def _variables_of(folder: Path, loaded: LoadedProject) -> Variables:
    """Return the variables that a state was made with, as far as its folder shows them; else the current ones.

    dbt keeps the values of `--vars` in run_results.json, and the values of the project only in dbt_project.yml. It is read from
    the copy of the project whose target folder has the state, or from beside the manifest.
    """
    variables = loaded.variables
    for root in (folder, folder.parent):
        if (root / "dbt_project.yml").is_file():
            variables = read_variables(root, variables.command_line)
            break
    try:
        args = json.loads((folder / "run_results.json").read_bytes())["args"]
        given = args["vars"] if isinstance(args["vars"], dict) else json.loads(args["vars"])
    except (OSError, ValueError, KeyError, TypeError):
        return variables
    return Variables(command_line=given, project=variables.project, packages=variables.packages)


_RESOLVERS: WeakKeyDictionary[OrchestratedProject, _Resolver] = WeakKeyDictionary()


def _resolver(project: OrchestratedProject, loaded: LoadedProject) -> _Resolver:
    """Return the resolver of the project's manifest, made once."""
    known = _RESOLVERS.get(project)
    if known is None or known.manifest is not loaded.manifest:
        known = _RESOLVERS[project] = _Resolver(project, loaded)
    return known
