"""What a node's code is, in parts, so that a change can be named.

Computed from the manifest, the values of variables and the environment alone. Two bases are kept: the parts read off the
templates, always there; and the compiled SQL, where the manifest has it. Two fingerprints are compared by their compiled SQL
when both have it, which lets an edit of a macro without effect pass; else by their parts. So neither a `dbt parse` after
a `dbt compile` nor the reverse looks like a change.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from dagster_sao.core.code.context_values import ContextValues, Surroundings
from dagster_sao.core.code.versions import digest
from dagster_sao.core.manifest.functions import (
    Function,
    definition,
    is_deterministic,
    language,
)
from dagster_sao.core.manifest.graph import Node, ProjectGraph, ProjectTest, build_graph
from dagster_sao.core.manifest.macros import Macros
from dagster_sao.sql.compiled_sql import relations_in_template
from dagster_sao.sql.jinja_reads import ANY, JinjaReads, Read, jinja_reads
from dagster_sao.sql.normal_form import FORM_VERSION, macro_form, may_select_star, normal_form
from dagster_sao.sql.volatility import is_volatile

_POINTER = "latest_version_pointer"
# Of a node's config, all counts but this: settings of adapters and packages are not known in advance.
_WITHOUT_EFFECT = frozenset(
    {
        "access", "alias", "concurrent_batches", "database", "description", "docs", "enabled", "freshness", "group", "meta",
        "owner", "persist_docs", "pre-hook", "post-hook", "schema", "severity", "state", "static_analysis", "tags",
        "contract", "target_database", "target_schema", "on_error", _POINTER,
    }
)  # fmt: skip
_WITHOUT_EFFECT_ON_TESTS = frozenset(
    {
        "alias", "database", "description", "docs", "enabled", "group", "meta", "owner", "schema", "static_analysis", "tags",
    }
)  # fmt: skip
_UNIT_TEST_PARTS = ("given", "expect", "overrides", "checksum")
SEED_FILE = "file"
"""The part of a seed's fingerprint that stands for the content of its file."""
SEED_COLUMNS = "columns"
"""The part that stands for the columns which dbt gives a seed's table."""
_HOOKS = ("pre-hook", "post-hook")
# What a hook at the start of each run may make something of without changing the rows of a model: it collects what dbt
# knows of the project.
_KEPT_BY_HOOKS_OF_RUNS = frozenset({"graph", "model", "config", "meta"})
# Their compiled SQL depends on whether the relation existed when it was compiled.
_COMPILED_BY_STATE = frozenset({"incremental", "snapshot"})
_TEMPLATE_PARTS = (
    "sql", "macro:", "var:", "env_var:", "ephemeral:", "source:", "parents", "meta:", "model:", "target:", "flags:",
    "graph:", "dispatch",
)  # fmt: skip
_FUNCTION = "function: "


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The code and build-relevant config of a node, as named parts with a short hash each."""

    parts: Mapping[str, str]
    compiled: str | None = None
    digest: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        """Derive the digest of the parts."""
        if not self.digest:
            object.__setattr__(self, "digest", digest(self.parts))

    @property
    def functions(self) -> frozenset[str]:
        """The names of the functions that it calls."""
        return frozenset(name.removeprefix(_FUNCTION) for name in self.parts if name.startswith(_FUNCTION))

    def changes_since(self, before: Fingerprint) -> tuple[str, ...]:
        """Return the names of the parts that differ from `before`, the SQL first; empty when it is the same code."""
        if before.digest == self.digest:
            return ()
        changed = {name for name in (*before.parts, *self.parts) if before.parts.get(name) != self.parts.get(name)}
        if self.compiles_like(before):
            changed = {name for name in changed if not name.startswith(_TEMPLATE_PARTS)}
        return tuple(sorted(changed, key=lambda name: (name != "sql", name)))

    def compiles_like(self, before: Fingerprint) -> bool:
        """Return whether both are known to compile to the same SQL."""
        return self.compiled is not None and self.compiled == before.compiled


def is_wide(part: str) -> bool:
    """Return whether a part of a fingerprint holds all values that some code may read, as it does not name those it reads."""
    return part.endswith(ANY)


def kind_of(part: str) -> str:
    """Return the kind of reads that a part of a fingerprint is about."""
    return part.partition(":")[0]


@dataclass(frozen=True, slots=True)
class _Unit:
    """A part of what a node or test is made of, that dbt renders in one context: its own template, or an ephemeral model's."""

    props: Mapping[str, Any]
    texts: Sequence[str]
    macros: Sequence[str]
    """All that the texts may call, directly or not, by unique id."""


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
        imported: Callable[[str], str] = lambda _code: "",
        seed_columns: Callable[[str], str] = lambda _unique_id: "",
    ) -> None:
        """Read nothing yet.

        `cache` keeps what is known of texts by their content, for use beyond this manifest. `seed_checksums` holds, by unique
        id, the checksums of seed files over 1 MiB: of those dbt records only the path. `built` as in `build_graph`.
        `imported` returns a digest of the project's own Python modules that the code of a Python model imports,
        `seed_columns` a text that differs where dbt gives a seed, by unique id, other columns; empty where nobody looked.
        """
        self._manifest = manifest
        self._nodes: Mapping[str, Mapping[str, Any]] = manifest["nodes"]
        self._dialect = str(manifest["metadata"].get("adapter_type") or "")
        self._surroundings = surroundings or Surroundings()
        self._values = ContextValues(manifest, self._surroundings)
        self._cache = cache if cache is not None else {}
        self._seed_checksums = seed_checksums or {}
        self._built = built
        self._imported = imported
        self._seed_columns = seed_columns
        self._macros = Macros(manifest, self._reads, _dispatching(self._surroundings.dispatch))
        self._macro_forms: dict[str, str] = {}
        self._known_reads: dict[str, JinjaReads] = {}
        self._functions: dict[str, Fingerprint] = {}

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
        found = [*self._config_parts(node, props), *self._start_of_runs]
        if node.resource_type == "seed":
            recorded = (props.get("checksum") or {}).get("checksum")
            found.append((SEED_FILE, _short(self._seed_checksums.get(node.unique_id, recorded))))
            if columns := self._seed_columns(node.unique_id):
                found.append((SEED_COLUMNS, _short(columns)))
        else:
            found += self._code_parts(node, props)
        found += self._reached_parts(self._units(node))
        return Fingerprint(_by_name(found), self._compiled(node, props))

    def fingerprints(self, unique_ids: Iterable[str] | None = None) -> dict[str, Fingerprint]:
        """Return the fingerprints of nodes, tests and functions by unique id.

        Of all, or of those of `unique_ids` that exist.
        """
        graph = self.graph
        wanted = [*graph.nodes, *graph.tests, *graph.functions] if unique_ids is None else list(unique_ids)
        found = {uid: self.fingerprint(graph.nodes[uid]) for uid in wanted if uid in graph.nodes}
        for test in (graph.tests[uid] for uid in wanted if uid in graph.tests):
            model = found.get(test.model) or (self.fingerprint(graph.nodes[test.model]) if test.is_unit_test else None)
            found[test.unique_id] = self.test_fingerprint(test, model)
        found.update({uid: self.function_fingerprint(uid) for uid in wanted if uid in graph.functions})
        return found

    def test_fingerprint(self, test: ProjectTest, model: Fingerprint | None = None) -> Fingerprint:
        """Return the fingerprint of a test of this manifest; of a unit test, `model` is the one of its model."""
        if test.is_unit_test:
            props = self._manifest["unit_tests"][test.unique_id]
            parts = {"definition": _short([props.get(name) for name in _UNIT_TEST_PARTS])}
            return Fingerprint({**parts, "model": _short(model.digest if model else None)})
        return Fingerprint(_by_name(self._data_test_parts(test, self._nodes[test.unique_id])))

    def value_now(self, unique_id: str, name: str) -> str:
        """Return a short hash of what a node or test reads now under a name such as `var: x` or `macro: macro.shop.cents`.

        `var: x of model.pack.m` is what an ephemeral model that is inlined reads.
        """
        kind, _, name = name.partition(": ")
        if kind == "macro":
            return self._macro_in_use(name)
        name, props = self._reader_of(unique_id, name)
        return self._values.digest((kind, name), props)

    def value_for_dbt(self, unique_id: str, name: str) -> str | None:
        """Return the hash that dbt itself would record of a value of variables or the environment, None for other values."""
        kind, _, name = name.partition(": ")
        name, props = self._reader_of(unique_id, name)
        return self._values.digest_of_dbt(kind, name, str(props["package_name"]))

    def _reader_of(self, unique_id: str, name: str) -> tuple[str, Mapping[str, Any]]:
        """Return the name of what is read, and the entry of the manifest for which it is read."""
        read, _, other = name.rpartition(" of ")
        collections = [self._manifest.get(of) or {} for of in ("nodes", "macros", "functions")]
        entry: Mapping[str, Any] | None = next((found[other] for found in collections if other in found), None)
        return (read, entry) if entry is not None else (name, self._nodes[unique_id])

    def relations_spelled_out(self, node: Node) -> list[str]:
        """Return the relations and files that a node's own templates name without `ref` and `source`."""
        if node.language != "sql" or node.resource_type == "seed":
            return []
        texts = [str(self._nodes[uid].get("raw_code") or "") for uid in (node.unique_id, *node.ephemerals)]
        found = (json.loads(self._cached("relations", text, self._relations_to_json)) for text in texts)
        return list(dict.fromkeys(name for names in found for name in names))

    def _relations_to_json(self, text: str) -> str:
        return json.dumps(sorted(relations_in_template(text, self._dialect)))

    def has_own_steps(self, node: Node) -> bool:
        """Return whether code of the project or a package takes part in building a node, beside its SQL."""
        props = self._nodes[node.unique_id]
        return bool(_hooks(props) or self._start_of_runs or self._macros.called_in_building(props))

    def written_config(self, node: Node) -> Mapping[str, Any]:
        """Return a node's config as the project's files spell it, before rendering, where the manifest has it."""
        return self._nodes[node.unique_id].get("unrendered_config") or {}

    def selects_star(self, node: Node) -> bool:
        """Return whether the node's columns may follow from its parents' columns."""
        if node.resource_type == "seed":
            return False
        if node.language != "sql":
            return True
        return any(
            self._cached("star", text, lambda text: "1" if may_select_star(text, self._dialect) else "") == "1"
            for unit in self._units(node)
            for text in unit.texts[:1]
        )

    # What a node or test is made of

    def _units(self, node: Node) -> Iterator[_Unit]:
        props = self._nodes[node.unique_id]
        raw = [str(props.get("raw_code") or "")] if node.language == "sql" else []
        yield self._unit(props, [*raw, *_hooks(props)], self._macros.called_in_building(props))
        yield from self._inlined(node.ephemerals)

    def _units_of_test(self, test: ProjectTest) -> Iterator[_Unit]:
        props = self._nodes[test.unique_id]
        texts = [str(props.get("raw_code") or ""), *_texts_of_test(props)]
        yield self._unit(props, texts, self._macros.called_in_testing())
        yield from self._inlined(test.ephemerals)

    def _inlined(self, ephemerals: Iterable[str]) -> Iterator[_Unit]:
        for unique_id in ephemerals:
            props = self._nodes[unique_id]
            yield self._unit(props, [str(props.get("raw_code") or "")])

    def _unit(self, props: Mapping[str, Any], texts: Sequence[str], called: Iterable[str] = ()) -> _Unit:
        reads = [self._reads(text) for text in texts]
        names = {name for read in reads for name in read.names}
        return _Unit(props, texts, self._macros.reached_from([*_macros_of(props), *called], names))

    def _is_volatile(self, node: Node) -> bool:
        if node.resource_type == "seed" or node.language != "sql":
            return False
        return self._any_volatile(self._units(node))

    def _is_volatile_test(self, test: ProjectTest) -> bool:
        if test.is_unit_test:
            return False
        # Without anything to read, it reads what dbt does not know, if anything.
        return not test.reads or self._any_volatile(self._units_of_test(test))

    def _any_volatile(self, units: Iterable[_Unit]) -> bool:
        return any(
            any(map(is_volatile, unit.texts)) or any(self._macro_is_volatile(macro) for macro in unit.macros)
            for unit in units
        )

    def _macro_is_volatile(self, unique_id: str) -> bool:
        text = self._macros.text(unique_id)
        return self._cached("volatile", text, lambda text: "1" if is_volatile(text) else "") == "1"

    # Parts

    def _compiled(self, node: Node, props: Mapping[str, Any]) -> str | None:
        """Return the normal form of the compiled SQL, where all that the node's templates do shows in it."""
        code = props.get("compiled_code")
        if not code or node.materialized in _COMPILED_BY_STATE or node.language != "sql":
            return None
        # What hooks do does not show in it, nor what macros do that build the relation.
        if self.has_own_steps(node):
            return None
        return self._cached("compiled", code, lambda text: normal_form(text, self._dialect, is_template=False))

    def _config_parts(self, node: Node, props: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        config = props.get("config") or {}
        for name, value in config.items():
            if name not in _WITHOUT_EFFECT and value not in (None, "", [], {}):
                yield f"config: {name}", _short(value)
        for hook in _HOOKS:
            if hooks := _hooks(props, hook):
                yield f"config: {hook}", _short([self._normal_form(sql) for sql in hooks])
        yield "config: relation_name", _short(node.relation_name)
        yield from self._pointer_parts(props)
        if (config.get("contract") or {}).get("enforced"):
            yield "config: contract", _short(_contract(props))
        if self._surroundings.dispatch:
            yield "dispatch", _short(self._surroundings.dispatch)

    def _pointer_parts(self, props: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield what becomes of the view that dbt points to the latest version of a model, and creates with it.

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
            macros = [self._macro_form(uid) for uid in self._macros.reached_from(sorted(naming))]
            yield f"config: {_POINTER}", _short([pointer.get("alias"), macros])

    def _code_parts(self, node: Node, props: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        raw = str(props.get("raw_code") or "")
        if node.language == "python":
            yield "sql", _python_form(raw)
            if imported := self._imported(raw):
                yield "imports", imported
            for read in _reads_of_python(raw):
                yield from self._value_parts(read, props)
        else:
            yield "sql", self._normal_form(raw)
        yield from self._inlined_parts(node.ephemerals, node.parents)
        yield from self._function_parts(node.functions)

    def _inlined_parts(self, ephemerals: Iterable[str], parents: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Yield what is read: the code of ephemeral models, and which relations."""
        for unique_id in ephemerals:
            ephemeral = self._nodes[unique_id]
            yield f"ephemeral: {ephemeral['name']}", self._normal_form(str(ephemeral.get("raw_code") or ""))
        yield "parents", _short(sorted(parents))
        for parent in parents:
            source = self.graph.sources.get(parent)
            if source is not None:
                yield f"source: {source.label}", _short(source.relation_name)

    def _function_parts(self, functions: Iterable[str]) -> Iterator[tuple[str, str]]:
        for unique_id in functions:
            name = self.graph.functions[unique_id].name
            yield f"{_FUNCTION}{name}", self.function_fingerprint(unique_id).digest[:12]

    def function_fingerprint(self, unique_id: str) -> Fingerprint:
        """Return the fingerprint of a function of this manifest: of its own code, and of the functions that it calls."""
        if unique_id not in self._functions:
            function = self.graph.functions[unique_id]
            self._functions[unique_id] = Fingerprint(_by_name(self._parts_of_function(function)))
        return self._functions[unique_id]

    def _parts_of_function(self, function: Function) -> Iterator[tuple[str, str]]:
        props = self._manifest["functions"][function.unique_id]
        yield "definition", _short(definition(props))
        yield "config: relation_name", _short(function.relation_name)
        yield "sql", self._body_form(props)
        yield from self._inlined_parts(function.ephemerals, function.parents)
        yield from self._reached_parts(self._units_of_function(function))
        yield from self._function_parts(function.functions)

    def _body_form(self, props: Mapping[str, Any]) -> str:
        body = str(props.get("raw_code") or "")
        if language(props) == "sql":
            return self._normal_form(body)
        return _python_form(body) if language(props) == "python" else _short(body)

    def _units_of_function(self, function: Function) -> Iterator[_Unit]:
        props = self._manifest["functions"][function.unique_id]
        # After a build dbt also lists those of its own macros that created the function.
        called = [uid for uid in _macros_of(props) if uid in self._macros.own]
        yield self._unit(
            {**props, "depends_on": {}},
            [str(props.get("raw_code") or ""), *_hooks(props)],
            [*called, *self._macros.called_in_building(props)],
        )
        yield from self._inlined(function.ephemerals)

    def _is_volatile_function(self, function: Function) -> bool:
        props = self._manifest["functions"][function.unique_id]
        return not is_deterministic(props, has_volatile_code=self._any_volatile(self._units_of_function(function)))

    def _data_test_parts(self, test: ProjectTest, props: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        for name, value in (props.get("config") or {}).items():
            if name not in _WITHOUT_EFFECT_ON_TESTS and value not in (None, "", [], {}):
                yield f"config: {name}", _short(str(value).lower() if name == "severity" else value)
        if props.get("relation_name"):
            yield "config: relation_name", _short(props["relation_name"])
        yield "sql", self._normal_form(str(props.get("raw_code") or ""))
        if props.get("decided_test_metadata"):
            yield "arguments", _short(props["decided_test_metadata"])
        yield from self._inlined_parts(test.ephemerals, test.reads)
        yield from self._function_parts(test.functions)
        yield from self._start_of_runs
        for unit in self._units_of_test(test):
            yield from self._reached_parts([unit])

    def _reached_parts(self, units: Iterable[_Unit]) -> Iterator[tuple[str, str]]:
        """Yield the macros that may be called, and the values that they and the templates may read."""
        for unit in units:
            for unique_id in unit.macros:
                yield f"macro: {_macro_name(unique_id)}", self._macro_form(unique_id)
            # A macro sees the variables of the model that calls it, whatever package the macro is of.
            for read in self._values_read(unit):
                yield from self._value_parts(read, unit.props)

    def _values_read(self, unit: _Unit) -> set[Read]:
        texts = [*unit.texts, *(self._macros.text(uid) for uid in unit.macros if uid in self._macros.own)]
        return {read for text in texts for read in self._reads(text).values}

    def _value_parts(self, read: Read, props: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        kind, name = read
        if kind == "macro":
            yield "macro: *", self._any_macro
        elif kind != "config" or not _counts_anyway(name, props):
            yield f"{kind}: {name}", self._values.digest(read, props)

    @cached_property
    def _any_macro(self) -> str:
        return _short([[uid, self._macro_form(uid)] for uid in sorted(self._macros.own)])

    @cached_property
    def _start_of_runs(self) -> list[tuple[str, str]]:
        """The parts of what dbt does at the start of each run: functions that it creates, settings of the session."""
        found: list[tuple[str, str]] = []
        for unique_id in sorted(self._nodes):
            props = self._nodes[unique_id]
            if props["resource_type"] != "operation" or "on-run-start" not in (props.get("tags") or ()):
                continue
            raw = str(props.get("raw_code") or "")
            unit = self._unit(props, [raw])
            found.append(("on-run-start", self._normal_form(raw)))
            found += [(f"macro: {_macro_name(uid)}", self._macro_form(uid)) for uid in unit.macros]
            for read in self._values_read(unit):
                if read[0] not in _KEPT_BY_HOOKS_OF_RUNS:
                    found += self._value_parts(read, props)
        return found

    def _macro_in_use(self, unique_id: str) -> str:
        """Return a short hash of a macro, and of those that dbt may call in its place; empty where there is none any more."""
        if unique_id not in self._macros:
            return ""
        return _short([[uid, self._macro_form(uid)] for uid in self._macros.rivals(unique_id)])

    # What is known of a text

    def _macro_form(self, unique_id: str) -> str:
        if unique_id not in self._macro_forms:
            self._macro_forms[unique_id] = self._cached("macro", self._macros.text(unique_id), macro_form)
        return self._macro_forms[unique_id]

    def _normal_form(self, text: str) -> str:
        names = self._overridden
        what = " ".join(["sql", *sorted(names)])
        return self._cached(what, text, lambda text: normal_form(text, self._dialect, overridden=names))

    @cached_property
    def _overridden(self) -> AbstractSet[str]:
        """The names of dbt's own functions that macros of the project or a package take."""
        return {"ref", "source"}.intersection(self._macros.own.values())

    def _reads(self, text: str) -> JinjaReads:
        if text not in self._known_reads:
            values, names = json.loads(self._cached("reads", text, _reads_to_json))
            self._known_reads[text] = JinjaReads(frozenset((kind, name) for kind, name in values), frozenset(names))
        return self._known_reads[text]

    def _cached(self, what: str, text: str, compute: Callable[[str], str]) -> str:
        key = digest([what, FORM_VERSION, self._dialect, text])
        if key not in self._cache:
            self._cache[key] = compute(text)
        return self._cache[key]


def _reads_to_json(text: str) -> str:
    reads = jinja_reads(text)
    return json.dumps([sorted(reads.values), sorted(reads.names)])


def _dispatching(setting: object) -> frozenset[str]:
    """Return the packages in which dbt looks for macros by the project's `dispatch` setting."""
    entries = setting if isinstance(setting, list) else []
    return frozenset(
        str(package) for entry in entries if isinstance(entry, Mapping) for package in (entry.get("search_order") or ())
    )


def _counts_anyway(name: str, props: Mapping[str, Any]) -> bool:
    """Return whether a name of a node's config is part of its fingerprint whether or not some code reads it."""
    without = _WITHOUT_EFFECT_ON_TESTS if props["resource_type"] == "test" else _WITHOUT_EFFECT
    return name in _HOOKS or (name not in without and not name.endswith(ANY))


def _hooks(props: Mapping[str, Any], *kinds: str) -> list[str]:
    hooks = [hook for kind in kinds or _HOOKS for hook in (props.get("config") or {}).get(kind) or []]
    return [str(hook.get("sql") if isinstance(hook, Mapping) else hook) for hook in hooks]


def _reads_of_python(code: str) -> Iterator[Read]:
    """Yield what a Python model reads of its config: `dbt.config.get("name")`, or all where the name is not spelled out.

    https://docs.getdbt.com/docs/build/python-models#configuring-python-models
    """
    try:
        tree = ast.parse(code)
    except SyntaxError:
        yield "config", ANY
        return
    called: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _is_config(node.func.value):
            called.add(id(node.func.value))
            kind = "meta" if node.func.attr.startswith("meta_") else "config"
            argument = node.args[0] if node.args else None
            is_spelled = isinstance(argument, ast.Constant) and isinstance(argument.value, str)
            yield kind, str(argument.value) if is_spelled else ANY  # type: ignore[union-attr]
        elif _is_config(node) and id(node) not in called:
            yield "config", ANY


def _is_config(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "config"


def _by_name(found: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the parts by name. Macros of two packages, or a variable with two scopes, may have one name; both count."""
    values: dict[str, set[str]] = {}
    for name, value in found:
        values.setdefault(name, set()).add(value)
    return {
        name: next(iter(of_name)) if len(of_name) == 1 else _short(sorted(of_name)) for name, of_name in values.items()
    }


def _texts_of_test(props: Mapping[str, Any]) -> list[str]:
    """Return the templates that a data test has beside its SQL: what it is called with, and how it is configured."""
    arguments = (props.get("decided_test_metadata") or {}).get("kwargs") or {}
    config = {name: v for name, v in (props.get("config") or {}).items() if name not in _WITHOUT_EFFECT_ON_TESTS}
    return list(_strings_in([arguments, config]))


def _strings_in(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _strings_in(inner)
    elif isinstance(value, Iterable):
        for inner in value:
            yield from _strings_in(inner)


def _macros_of(props: Mapping[str, Any]) -> list[str]:
    return list((props.get("depends_on") or {}).get("macros") or [])


def _package(macro: str) -> str:
    return macro.split(".", 2)[1]


def _macro_name(unique_id: str) -> str:
    return unique_id.rsplit(".", 1)[-1]


def _contract(props: Mapping[str, Any]) -> list[Any]:
    columns = props.get("columns") or {}
    return [
        props.get("constraints"),
        [[c.get("name"), c.get("data_type"), c.get("constraints")] for c in columns.values()],
    ]


def _python_form(code: str) -> str:
    try:
        return _short(ast.dump(ast.parse(code)))
    except SyntaxError:
        return _short(code)


def _short(value: object) -> str:
    return digest(value)[:12]
