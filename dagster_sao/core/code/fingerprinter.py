"""Computes the fingerprints of a manifest: of its nodes, tests and functions.

They follow from the manifest, the values of variables and the environment alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from collections.abc import Set as AbstractSet
from functools import cached_property
from typing import Any

from dagster_sao.core.code.context_values import ContextValues, Surroundings
from dagster_sao.core.code.fingerprint import (
    FUNCTION,
    RELATION_NAME,
    SEED_COLUMNS,
    SEED_FILE,
    Fingerprint,
    Part,
    by_name,
    short,
)
from dagster_sao.core.code.reached_code import EMPTY, ReachedCode, StartHook, parts_of_start
from dagster_sao.core.code.text_facts import TextFacts
from dagster_sao.core.code.units import HOOKS, Units, hooks_of, settings_of_hooks
from dagster_sao.core.code.variables import as_json
from dagster_sao.core.manifest import inert_settings
from dagster_sao.core.manifest.functions import Function, definition, is_deterministic, language
from dagster_sao.core.manifest.graph import Node, ProjectGraph, ProjectTest
from dagster_sao.core.manifest.macros import Macros, is_dbts_own
from dagster_sao.core.manifest.policy import read_policy
from dagster_sao.core.manifest.read_graph import build_graph
from dagster_sao.core.manifest.relation_parts import contract_of, parts_of_parents, settings_of_columns, stored_names
from dagster_sao.sql.built_rows import has_contract
from dagster_sao.sql.python.code import python_form, reads_of_python
from dagster_sao.sql.python.libraries import is_of

_POINTER = "latest_version_pointer"
_UNIT_TEST_PARTS = ("given", "expect", "overrides", "checksum")
# Their compiled SQL depends on whether the relation existed when it was compiled.
_COMPILED_BY_STATE = frozenset({"incremental", "snapshot"})


class Fingerprinter:
    """Computes the fingerprints of one manifest."""

    def __init__(  # noqa: PLR0913 (each is an input of the fingerprint)
        self,
        manifest: Mapping[str, Any],
        surroundings: Surroundings | None = None,
        *,
        cache: MutableMapping[str, str] | None = None,
        seed_checksums: Mapping[str, str] | None = None,
        built: AbstractSet[str] | None = None,
        imported: Callable[[str], Mapping[str, str]] = lambda _code: {},
        seed_columns: Callable[[str], str] = lambda _unique_id: "",
    ) -> None:
        """Read nothing yet.

        `cache` keeps facts about texts by their content, for use beyond this manifest. `seed_checksums` holds, by unique
        id, the checksums of seed files: dbt's own leave out a part of the content. `built` as in `build_graph`.
        `imported` returns the texts of the project's own Python modules that the code of a Python model imports,
        `seed_columns` a text for a seed, by unique id, that differs when its columns do; empty where they are not known.
        """
        self._manifest = manifest
        self._nodes: Mapping[str, Mapping[str, Any]] = manifest["nodes"]
        self._surroundings = surroundings or Surroundings()
        self._values = ContextValues(manifest, self._surroundings)
        self._seed_checksums = seed_checksums or {}
        self._built = built
        self._imported = imported
        self._seed_columns = seed_columns
        self._facts = TextFacts(str(manifest["metadata"].get("adapter_type") or ""), cache)
        self._macros = Macros(manifest, self._facts.reads, _dispatching(self._surroundings.dispatch))
        self._units = Units(manifest, self._macros, self._facts)
        self._reached = ReachedCode(self._macros, self._units, self._facts, self._values)
        self._functions: dict[str, Fingerprint] = {}
        session = self._surroundings.session
        self._session_parts = [
            *(Part(f"profile: {name}", short(as_json(session[name]))) for name in session),
            *(Part(f"dbt flag: {name}", short(value)) for name, value in self._values.flags_of_dbt()),
        ]

    @cached_property
    def graph(self) -> ProjectGraph:
        """The project's graph.

        A node with volatile SQL counts as history-dependent. So does one that the project's own materialization builds,
        whatever its name: what it makes of the SQL is not known.
        """
        plain = build_graph(self._manifest, self._built)
        own = {uid for uid, node in plain.nodes.items() if self._macros.own_materialization(node.materialized)}
        plain = plain.with_history_dependent(own)
        functions = {uid for uid, function in plain.functions.items() if self._is_volatile_function(function)}
        nodes = {
            uid
            for uid, node in plain.nodes.items()
            if not functions.isdisjoint(node.functions) or self._is_volatile(node)
        }
        tests = {
            uid
            for uid, test in plain.tests.items()
            if (not functions.isdisjoint(test.functions) and not test.is_unit_test) or self._is_volatile_test(test)
        }
        return plain.with_volatile(nodes | tests)

    def fingerprint(self, node: Node) -> Fingerprint:
        """Return the fingerprint of a node of this manifest."""
        props = self._nodes[node.unique_id]
        found = [*self._config_parts(node, props)]
        if node.resource_type == "seed":
            recorded = (props.get("checksum") or {}).get("checksum")
            found.append(Part(SEED_FILE, short(self._seed_checksums.get(node.unique_id, recorded))))
            if columns := self._seed_columns(node.unique_id):
                found.append(Part(SEED_COLUMNS, short(columns)))
        else:
            found += self._code_parts(node, props)
        found += self._reached.parts(self._units.of_node(node), node.unique_id)
        return Fingerprint(by_name(found), self._compiled(node, props))

    def fingerprints(self, unique_ids: Iterable[str] | None = None) -> dict[str, Fingerprint]:
        """Return the fingerprints of nodes, tests and functions, by unique id: of all, or of those in `unique_ids`."""
        graph = self.graph
        wanted = [*graph.nodes, *graph.tests, *graph.functions] if unique_ids is None else list(unique_ids)
        found = {uid: self.fingerprint(graph.nodes[uid]) for uid in wanted if uid in graph.nodes}
        for test in (graph.tests[uid] for uid in wanted if uid in graph.tests):
            model = found.get(test.model) or (self.fingerprint(graph.nodes[test.model]) if test.is_unit_test else None)
            found[test.unique_id] = self.test_fingerprint(test, model)
        found.update({uid: self._function_fingerprint(uid) for uid in wanted if uid in graph.functions})
        return found

    def test_fingerprint(self, test: ProjectTest, model: Fingerprint | None = None) -> Fingerprint:
        """Return the fingerprint of a test of this manifest; of a unit test, `model` is the one of its model."""
        if test.is_unit_test:
            props = self._manifest["unit_tests"][test.unique_id]
            definition_of = short([props.get(name) for name in _UNIT_TEST_PARTS])
            return Fingerprint({"definition": definition_of, "model": short(model.digest if model else None)})
        return Fingerprint(by_name(self._data_test_parts(test, self._nodes[test.unique_id])))

    def value_now(self, unique_id: str, name: str) -> str:
        """Return a short hash of what a node or test reads now under a name such as `var: x` or `macro: macro.shop.cents`.

        `var: x of model.pack.m` is what an ephemeral model that is inlined reads.
        """
        kind, _, name = name.partition(": ")
        if kind == "macro":
            return self._reached.macro_in_use(name)
        if kind == "absent":
            return self._reached.macros_named(name)
        name, props = self._reader_of(unique_id, name)
        return self._values.digest((kind, name), props)

    def value_for_dbt(self, unique_id: str, name: str) -> str | None:
        """Return the hash that dbt itself would record of a value of variables or the environment, None for other values."""
        kind, _, name = name.partition(": ")
        name, props = self._reader_of(unique_id, name)
        return self._values.digest_of_dbt(kind, name, str(props["package_name"]))

    def _reader_of(self, unique_id: str, name: str) -> tuple[str, Mapping[str, Any]]:
        """Return the name of the value, and the manifest entry that reads it."""
        read, _, other = name.rpartition(" of ")
        collections = [self._manifest.get(of) or {} for of in ("nodes", "macros", "functions")]
        entry: Mapping[str, Any] | None = next((found[other] for found in collections if other in found), None)
        return (read, entry) if entry is not None else (name, self._nodes[unique_id])

    def relations_spelled_out(self, node: Node) -> list[str]:
        """Return what a node's own templates or Python code, and its hooks, name without `ref` and `source`.

        Relations and files, and of Python code the libraries that may read anything, by label.
        """
        raw = [str(self._nodes[uid].get("raw_code") or "") for uid in (node.unique_id, *node.ephemerals)]
        if node.language == "python":
            return self._inputs_of_python(raw[0], self._nodes[node.unique_id])
        texts = [*hooks_of(self._nodes[node.unique_id]), *(raw if node.resource_type != "seed" else ())]
        return list(dict.fromkeys(name for text in texts for name in self._facts.relations(text)))

    def _inputs_of_python(self, code: str, props: Mapping[str, Any]) -> list[str]:
        """Return what a Python model and the project's modules read, and the libraries that may read anything."""
        own = self._imported(code)
        texts = [code, *own.values()]
        known = {*(name.partition("/")[0] for name in own), *read_policy(props).policy.trusted_imports}
        libraries = [label for text in texts for label in self._facts.python_libraries(text) if not is_of(label, known)]
        return list(dict.fromkeys([name for text in texts for name in self._facts.python_inputs(text)] + libraries))

    def has_own_steps(self, node: Node) -> bool:
        """Return whether code of the project or a package takes part in building a node, beside its SQL."""
        props = self._nodes[node.unique_id]
        return bool(hooks_of(props) or self._macros.called_in_building(props))

    def runs_own_statements(self, node: Node) -> bool:
        """Return whether code of the project or a package may run statements when a node is built, beside its own SQL."""
        props = self._nodes[node.unique_id]
        if hooks_of(props) or (props.get("config") or {}).get("sql_header") or self._macros.called_in_building(props):
            return True
        return self._units.runs_statements(self._units.of_node(node))

    def written_config(self, node: Node) -> Mapping[str, Any]:
        """Return a node's config as the project's files spell it, before rendering, where the manifest has it."""
        return self._nodes[node.unique_id].get("unrendered_config") or {}

    def selects_star(self, node: Node) -> bool:
        """Return whether the node's columns may follow from its parents' columns."""
        if node.resource_type == "seed":
            return False
        if node.language != "sql":
            return True
        return any(self._facts.selects_star(text) for unit in self._units.of_node(node) for text in unit.texts[:1])

    def may_ask(self, node: Node) -> bool:
        """Return whether the templates of a node, or macros that they call, may query the warehouse."""
        return self._units.may_ask(self._units.of_node(node))

    # What a node or test is made of

    def _is_volatile(self, node: Node) -> bool:
        if node.resource_type == "seed" or node.language != "sql":
            return False
        return self._units.is_volatile(self._units.of_node(node))

    def _is_volatile_test(self, test: ProjectTest) -> bool:
        if test.is_unit_test:
            return False
        # A test that reads nothing that dbt knows may read something else.
        return not test.reads or self._units.is_volatile(self._units.of_test(test))

    # Parts

    def _compiled(self, node: Node, props: Mapping[str, Any]) -> str | None:
        """Return the normal form of the compiled SQL, where all that the node's templates do shows in it."""
        code = props.get("compiled_code")
        if not code or node.materialized in _COMPILED_BY_STATE or node.language != "sql":
            return None
        # What hooks do does not show in it, nor what macros do that build the relation, nor what a query changes or answers.
        if self.has_own_steps(node) or self.runs_own_statements(node) or self.may_ask(node):
            return None
        return self._facts.compiled_form(code)

    def _config_parts(self, node: Node, props: Mapping[str, Any]) -> Iterator[Part]:
        config = props.get("config") or {}
        for name, value in config.items():
            if name not in inert_settings.OF_NODES and value not in EMPTY:
                yield Part(f"config: {name}", short(value), node.unique_id)
        for hook in HOOKS:
            if hooks := hooks_of(props, hook):
                forms = [
                    [form, settings] if settings else form
                    for form, settings in zip(
                        map(self._reached.normal_form, hooks), settings_of_hooks(props, hook), strict=True
                    )
                ]
                yield Part(f"config: {hook}", short(forms), node.unique_id)
        yield Part(RELATION_NAME, short(node.relation_name))
        yield from self._pointer_parts(props)
        if has_contract(props):
            yield Part("config: contract", short(contract_of(props)))
        if settings_at_columns := settings_of_columns(props):
            yield Part("config: columns", short(settings_at_columns))
        yield from self._parts_of_all

    @cached_property
    def start_hooks(self) -> Sequence[StartHook]:
        """The hooks that dbt runs at the start of each run."""
        return self._reached.start_hooks(self._nodes.values())

    @cached_property
    def _parts_of_all(self) -> list[Part]:
        """The parts of everything that dbt runs: settings of project and profile, and the code at the start of each run."""
        dispatch = self._surroundings.dispatch
        return [
            *self._session_parts,
            *([Part("dispatch", short(dispatch))] if dispatch else []),
            *parts_of_start(self.start_hooks),
        ]

    def _pointer_parts(self, props: Mapping[str, Any]) -> Iterator[Part]:
        """Yield the parts for the view that dbt creates with the latest version of a model, and that points to it.

        https://docs.getdbt.com/reference/resource-configs/latest_version_pointer
        """
        pointer = (props.get("config") or {}).get(_POINTER)
        # Before dbt 1.12 there is none.
        if not isinstance(pointer, Mapping) or props.get("version") is None:
            return
        enabled = pointer.get("enabled")
        if enabled is None:
            enabled = self._surroundings.flags.get("latest_version_pointer_enabled_by_default")
        if enabled and props["version"] == props.get("latest_version"):
            naming = [uid for uid, name in self._macros.own.items() if name == "generate_latest_version_pointer_alias"]
            macros = [self._reached.macro_form(uid) for uid in self._macros.reached_from(sorted(naming))]
            yield Part(f"config: {_POINTER}", short([pointer.get("alias"), macros]))

    def _code_parts(self, node: Node, props: Mapping[str, Any]) -> Iterator[Part]:
        raw = str(props.get("raw_code") or "")
        # Own code that takes part in building may look into the SQL, with its comments.
        form = short if self._macros.called_in_building(props) else self._reached.normal_form
        if node.language == "python":
            yield Part("sql", short(python_form(raw)))
            if imported := self._imported(raw):
                yield Part("imports", short(imported))
            # A build from before these were found did not record them.
            if inputs := self._inputs_of_python(raw, props):
                yield Part("inputs", short(inputs))
            for read in reads_of_python(raw):
                yield from self._reached.value_parts(read, props)
        else:
            yield Part("sql", form(raw))
        yield from self._inlined_parts(props, node.ephemerals, node.parents, form)
        of_parents = parts_of_parents(node, self.graph, self._nodes)
        yield from (Part(name, short(value), parent) for parent, name, value in of_parents)
        yield from self._function_parts(node.functions)

    def _inlined_parts(
        self, props: Mapping[str, Any], ephemerals: Iterable[str], parents: Iterable[str], form: Callable[[str], str]
    ) -> Iterator[Part]:
        """Yield the parts for what an entry of the manifest reads: the code of ephemeral models, and the relations."""
        yield from self._ref_parts(props)
        for unique_id in ephemerals:
            ephemeral = self._nodes[unique_id]
            yield Part(f"ephemeral: {ephemeral['name']}", form(str(ephemeral.get("raw_code") or "")), unique_id)
            yield from self._ref_parts(ephemeral)
        yield Part("parents", short(sorted(parents)))
        for parent in parents:
            source = self.graph.sources.get(parent)
            if source is not None:
                yield Part(f"source: {source.label}", short(source.relation_name), parent)

    def _ref_parts(self, props: Mapping[str, Any]) -> Iterator[Part]:
        """Yield the versions that a `ref` without one resolves to: https://docs.getdbt.com/reference/resource-properties/latest_version."""
        names = {entry.get("name") for entry in props.get("refs") or () if entry.get("version") is None}
        for unique_id in (props.get("depends_on") or {}).get("nodes") or ():
            parent = self._nodes.get(unique_id) or {}
            version = parent.get("version")
            if version is not None and version == parent.get("latest_version") and parent["name"] in names:
                yield Part(f"ref: {parent['name']}", short(unique_id), str(props["unique_id"]))

    def _function_parts(self, functions: Iterable[str]) -> Iterator[Part]:
        for unique_id in functions:
            name = self.graph.functions[unique_id].name
            yield Part(f"{FUNCTION}{name}", self._function_fingerprint(unique_id).digest[:12], unique_id)

    def _function_fingerprint(self, unique_id: str) -> Fingerprint:
        """Return the fingerprint of a function of this manifest: of its own code, and of the functions that it calls."""
        if unique_id not in self._functions:
            function = self.graph.functions[unique_id]
            self._functions[unique_id] = Fingerprint(by_name(self._parts_of_function(function)))
        return self._functions[unique_id]

    def _parts_of_function(self, function: Function) -> Iterator[Part]:
        props = self._manifest["functions"][function.unique_id]
        yield Part("definition", short(definition(props)))
        yield Part(RELATION_NAME, short(function.relation_name))
        yield Part("sql", self._body_form(props))
        yield from self._parts_of_all
        yield from self._inlined_parts(props, function.ephemerals, function.parents, self._reached.normal_form)
        yield from (Part(name, short(value), uid) for uid, name, value in stored_names(function.parents, self.graph))
        yield from self._reached.parts(self._units.of_function(function), function.unique_id)
        yield from self._function_parts(function.functions)

    def _body_form(self, props: Mapping[str, Any]) -> str:
        body = str(props.get("raw_code") or "")
        if language(props) == "sql":
            return self._reached.normal_form(body)
        return short(python_form(body) if language(props) == "python" else body)

    def _is_volatile_function(self, function: Function) -> bool:
        props = self._manifest["functions"][function.unique_id]
        return not is_deterministic(props, has_volatile_code=self._units.is_volatile(self._units.of_function(function)))

    def _data_test_parts(self, test: ProjectTest, props: Mapping[str, Any]) -> Iterator[Part]:
        for name, value in (props.get("config") or {}).items():
            if name not in inert_settings.OF_TESTS and value not in EMPTY:
                lowered = str(value).lower() if name == "severity" else value
                yield Part(f"config: {name}", short(lowered), test.unique_id)
        yield from (Part(f"dbt flag: {name}", short(value)) for name, value in self._values.flags_of_answers())
        if props.get("relation_name"):
            yield Part(RELATION_NAME, short(props["relation_name"]))
        yield Part("sql", self._reached.normal_form(str(props.get("raw_code") or "")))
        if props.get("test_metadata"):
            yield Part("arguments", short(props["test_metadata"]))
        yield from self._inlined_parts(props, test.ephemerals, test.reads, self._reached.normal_form)
        yield from self._function_parts(test.functions)
        yield from self._parts_of_all
        yield from self._reached.parts(self._units.of_test(test), test.unique_id)


def _dispatching(setting: object) -> frozenset[str]:
    """Return the packages in which dbt looks for its own macros by the project's `dispatch` setting."""
    entries = setting if isinstance(setting, list) else []
    return frozenset(
        str(package)
        for entry in entries
        if isinstance(entry, Mapping) and is_dbts_own(str(entry.get("macro_namespace")))
        for package in (entry.get("search_order") or ())
    )
