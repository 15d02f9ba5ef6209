"""What a node's code is, in parts, so that a change can be named.

Computed from the manifest, the values of variables and the environment alone. Two bases are kept: the parts read off the
templates, always there; and the compiled SQL, where the manifest has it. Two fingerprints are compared by their compiled SQL
when both have it, which lets an edit of a macro without effect pass; else by their parts. So neither a `dbt parse` after
a `dbt compile` nor the reverse looks like a change.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from dagster_sao.core.graph import Node, ProjectGraph, ProjectTest, build_graph
from dagster_sao.core.versions import digest
from dagster_sao.sql.normal_form import FORM_VERSION, macro_form, may_select_star, normal_form
from dagster_sao.sql.template import Template, split_template
from dagster_sao.sql.volatility import is_volatile

# Of a node's config, all counts but this: settings of adapters and packages are not known in advance.
_WITHOUT_EFFECT = frozenset(
    {
        "access", "alias", "concurrent_batches", "database", "description", "docs", "enabled", "freshness", "group", "meta",
        "owner", "persist_docs", "pre-hook", "post-hook", "schema", "severity", "state", "static_analysis", "tags",
        "contract", "target_database", "target_schema",
    }
)  # fmt: skip
_WITHOUT_EFFECT_ON_TESTS = frozenset(
    {
        "alias", "database", "description", "docs", "enabled", "group", "meta", "owner", "schema", "static_analysis", "tags",
    }
)  # fmt: skip
# dbt calls them for each data test, and lists them among none's macros.
_CALLED_FOR_TESTS = ("get_test_sql", "get_where_subquery", "should_store_failures")
_UNIT_TEST_PARTS = ("given", "expect", "overrides", "checksum")
_HOOKS = ("pre-hook", "post-hook")
_SECRET_PREFIX = "DBT_ENV_SECRET"  # noqa: S105 (dbt's own prefix; such values are never read)
# Their compiled SQL depends on whether the relation existed when it was compiled.
_COMPILED_BY_STATE = frozenset({"incremental", "snapshot"})
_TEMPLATE_PARTS = ("sql", "macro:", "var:", "env_var:", "ephemeral:", "source:", "function:", "parents", "vars")


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

    def changes_since(self, before: Fingerprint) -> tuple[str, ...]:
        """Return the names of the parts that differ from `before`, the SQL first; empty when it is the same code."""
        if before.digest == self.digest:
            return ()
        changed = {name for name in (*before.parts, *self.parts) if before.parts.get(name) != self.parts.get(name)}
        if self.compiled is not None and before.compiled is not None and self.compiled == before.compiled:
            changed = {name for name in changed if not name.startswith(_TEMPLATE_PARTS)}
        return tuple(sorted(changed, key=lambda name: (name != "sql", name)))


@dataclass(frozen=True, slots=True)
class Variables:
    """The values of dbt's `var()`, by where they were set."""

    command_line: Mapping[str, Any] = field(default_factory=dict)
    project: Mapping[str, Any] = field(default_factory=dict)
    """`vars` of the root project's dbt_project.yml, entries for packages among them."""
    packages: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """`vars` of each installed package's own dbt_project.yml."""

    def lookup(self, name: str, package: str) -> Any:  # noqa: ANN401 (a variable holds anything)
        """Return the value that `var(name)` has in `package`, None where only a default applies.

        The order is dbt's: https://docs.getdbt.com/docs/build/project-variables#variable-precedence
        """
        own = self.packages.get(package, {})
        scopes = (self.command_line, self.project.get(package), self.project, own.get(package), own)
        for scope in scopes:
            if isinstance(scope, Mapping) and name in scope:
                return scope[name]
        return None


class Fingerprinter:
    """Computes the fingerprints of one manifest."""

    def __init__(  # noqa: PLR0913 (each is an input of the fingerprint)
        self,
        manifest: Mapping[str, Any],
        variables: Variables | None = None,
        environ: Mapping[str, str] | None = None,
        *,
        cache: MutableMapping[str, str] | None = None,
        seed_checksums: Mapping[str, str] | None = None,
        built: AbstractSet[str] | None = None,
    ) -> None:
        """Read nothing yet.

        `cache` keeps normal forms by content, for use beyond this manifest. `seed_checksums` holds, by unique id, the
        checksums of seed files over 1 MiB: of those dbt records only the path. `built` as in `build_graph`.
        """
        self._manifest = manifest
        self._nodes: Mapping[str, Mapping[str, Any]] = manifest["nodes"]
        self._macros: Mapping[str, Mapping[str, Any]] = manifest.get("macros") or {}
        self._dialect = str(manifest["metadata"].get("adapter_type") or "")
        self._variables = variables or Variables()
        self._environ = environ or {}
        self._cache = cache if cache is not None else {}
        self._seed_checksums = seed_checksums or {}
        self._built = built
        self._macro_forms: dict[str, str] = {}
        self._templates: dict[str, Template | None] = {}

    @cached_property
    def graph(self) -> ProjectGraph:
        """The project's graph, with volatile SQL counted as history-dependent."""
        plain = build_graph(self._manifest, self._built)
        nodes = {uid for uid, node in plain.nodes.items() if self._is_volatile(node)}
        return plain.with_volatile(nodes | {uid for uid, test in plain.tests.items() if self._is_volatile_test(test)})

    def fingerprint(self, node: Node) -> Fingerprint:
        """Return the fingerprint of a node of this manifest."""
        props = self._nodes[node.unique_id]
        found = [*self._config_parts(node, props)]
        if node.resource_type == "seed":
            recorded = (props.get("checksum") or {}).get("checksum")
            found.append(("file", _short(self._seed_checksums.get(node.unique_id, recorded))))
        else:
            found += self._code_parts(node, props)
        return Fingerprint(_by_name(found), self._compiled(node, props))

    def fingerprints(self, unique_ids: Iterable[str] | None = None) -> dict[str, Fingerprint]:
        """Return the fingerprints of nodes and tests by unique id: of all, or of those of `unique_ids` that exist."""
        graph = self.graph
        wanted = [*graph.nodes, *graph.tests] if unique_ids is None else unique_ids
        found = {uid: self.fingerprint(graph.nodes[uid]) for uid in wanted if uid in graph.nodes}
        for test in (graph.tests[uid] for uid in wanted if uid in graph.tests):
            model = found.get(test.model) or (self.fingerprint(graph.nodes[test.model]) if test.is_unit_test else None)
            found[test.unique_id] = self.test_fingerprint(test, model)
        return found

    def test_fingerprint(self, test: ProjectTest, model: Fingerprint | None = None) -> Fingerprint:
        """Return the fingerprint of a test of this manifest; of a unit test, `model` is the one of its model."""
        if test.is_unit_test:
            props = self._manifest["unit_tests"][test.unique_id]
            parts = {"definition": _short([props.get(name) for name in _UNIT_TEST_PARTS])}
            return Fingerprint({**parts, "model": _short(model.digest if model else None)})
        return Fingerprint(_by_name(self._data_test_parts(test, self._nodes[test.unique_id])))

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
            for text in self._code(node)
        )

    def _code(self, node: Node) -> list[str]:
        props = [self._nodes[uid] for uid in (node.unique_id, *node.ephemerals)]
        return [str(p.get("raw_code") or "") for p in props]

    def _is_volatile(self, node: Node) -> bool:
        if node.resource_type == "seed" or node.language != "sql":
            return False
        return any(is_volatile(text) for text in self._code(node)) or any(
            self._macro_is_volatile(macro) for macro in self._reached_macros(node)
        )

    def _is_volatile_test(self, test: ProjectTest) -> bool:
        if test.is_unit_test:
            return False
        if not test.reads:
            return True  # it reads what dbt does not know, if anything
        props = self._nodes[test.unique_id]
        ephemerals = (str(self._nodes[uid].get("raw_code") or "") for uid in test.ephemerals)
        texts = (str(props.get("raw_code") or ""), *_texts_of_test(props), *ephemerals)
        return any(map(is_volatile, texts)) or any(map(self._macro_is_volatile, self._macros_of_test(test, props)))

    def _macro_is_volatile(self, unique_id: str) -> bool:
        text = str(self._macros[unique_id]["macro_sql"])
        return self._cached("volatile", text, lambda text: "1" if is_volatile(text) else "") == "1"

    def _compiled(self, node: Node, props: Mapping[str, Any]) -> str | None:
        code = props.get("compiled_code")
        if not code or node.materialized in _COMPILED_BY_STATE or node.language != "sql":
            return None
        if self._has_hooks(props) or self._own_materialization(node.materialized):
            return None
        return self._cached("compiled", code, lambda text: normal_form(text, self._dialect, is_template=False))

    @staticmethod
    def _has_hooks(props: Mapping[str, Any]) -> bool:
        # Macros reached by a hook do not show in the compiled SQL, nor do those of a materialization.
        return any((props.get("config") or {}).get(hook) for hook in _HOOKS)

    def _config_parts(self, node: Node, props: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        config = props.get("config") or {}
        for name, value in config.items():
            if name not in _WITHOUT_EFFECT and value not in (None, "", [], {}):
                yield f"config: {name}", _short(value)
        for hook in _HOOKS:
            hooks = [h.get("sql") if isinstance(h, Mapping) else h for h in config.get(hook) or []]
            if hooks:
                yield f"config: {hook}", _short([self._normal_form(str(sql)) for sql in hooks])
        yield "config: relation_name", _short(node.relation_name)
        if (config.get("contract") or {}).get("enforced"):
            yield "config: contract", _short(_contract(props))

    def _code_parts(self, node: Node, props: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        raw = str(props.get("raw_code") or "")
        yield "sql", _python_form(raw) if node.language == "python" else self._normal_form(raw)
        yield from self._inlined_parts(node.ephemerals, node.parents)
        for unique_id in self._reached_macros(node):
            yield f"macro: {_macro_name(unique_id)}", self._macro_form(unique_id)
        yield from self._function_parts(props)
        yield from self._value_parts(node, props)

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

    def _function_parts(self, props: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        for unique_id in _functions(props):
            function = (self._manifest.get("functions") or {}).get(unique_id) or {}
            yield f"function: {unique_id.rsplit('.', 1)[-1]}", _short(function.get("raw_code"))

    def _value_parts(self, node: Node, props: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        hooks = [h.get("sql") for hook in _HOOKS for h in (props.get("config") or {}).get(hook) or []]
        own = [*map(str, hooks), *self._macro_texts(self._own_materialization(node.materialized))]
        for unique_id in (node.unique_id, *node.ephemerals):
            # A macro sees the variables of the model that calls it, whatever package the macro is of.
            scope = str(self._nodes[unique_id]["package_name"])
            texts = [
                *self._macro_texts(_macros_of(self._nodes[unique_id])),
                *(own if unique_id == node.unique_id else ()),
            ]
            if node.language == "sql":
                texts.append(str(self._nodes[unique_id].get("raw_code") or ""))
            for text in texts:
                yield from self._values_read(text, scope)

    def _data_test_parts(self, test: ProjectTest, props: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        for name, value in (props.get("config") or {}).items():
            if name not in _WITHOUT_EFFECT_ON_TESTS and value not in (None, "", [], {}):
                yield f"config: {name}", _short(str(value).lower() if name == "severity" else value)
        if props.get("relation_name"):
            yield "config: relation_name", _short(props["relation_name"])
        yield "sql", self._normal_form(str(props.get("raw_code") or ""))
        if props.get("test_metadata"):
            yield "arguments", _short(props["test_metadata"])
        yield from self._inlined_parts(test.ephemerals, test.reads)
        # While it runs a test, dbt adds macros of its own to those that it lists after a parse; they change only with dbt.
        called = [uid for uid in self._called_by_test(props) if self._is_of_test(uid)]
        inlined_macros = [macro for uid in test.ephemerals for macro in _macros_of(self._nodes[uid])]
        for unique_id in self._reached_from([*called, *inlined_macros]):
            yield f"macro: {_macro_name(unique_id)}", self._macro_form(unique_id)
        yield from self._function_parts(props)
        scope = str(props["package_name"])
        called_texts = self._macro_texts(called)
        for text in (str(props.get("raw_code") or ""), *_texts_of_test(props), *called_texts):
            yield from self._values_read(text, scope)
        for unique_id in test.ephemerals:
            inlined = self._nodes[unique_id]
            texts = [str(inlined.get("raw_code") or ""), *self._macro_texts(_macros_of(inlined))]
            for text in texts:
                yield from self._values_read(text, str(inlined["package_name"]))

    def _macros_of_test(self, test: ProjectTest, props: Mapping[str, Any]) -> list[str]:
        inlined = [macro for uid in test.ephemerals for macro in _macros_of(self._nodes[uid])]
        return self._reached_from([*self._called_by_test(props), *inlined])

    def _is_of_test(self, unique_id: str) -> bool:
        """Return whether a macro is a generic test, or not dbt's own."""
        macro = self._macros.get(unique_id)
        if macro is None or not _is_dbts_own(str(macro["package_name"])):
            return True
        return str(macro["name"]).startswith("test_")

    def _called_by_test(self, props: Mapping[str, Any]) -> list[str]:
        """Return the macros that dbt calls for a data test: those that it lists, and those that it does not."""
        named = {name for text in _texts_of_test(props) for name in self._names(text)}
        named.update(_CALLED_FOR_TESTS)
        prefixes = ("", "default__", f"{self._dialect}__")
        wanted = {f"{prefix}{name}" for name in named for prefix in prefixes}
        found = [uid for name in wanted for uid in self._own_macros_by_name.get(name, ())]
        return [*_macros_of(props), *found, *self._own_materialization("test")]

    def _names(self, text: str) -> set[str]:
        template = self._template(text)
        return template.names() if template is not None else set()

    @cached_property
    def _own_macros_by_name(self) -> Mapping[str, list[str]]:
        """The macros of the project and its packages, which take the place of dbt's own of the same name."""
        found: dict[str, list[str]] = {}
        for unique_id, macro in self._macros.items():
            if not _is_dbts_own(str(macro["package_name"])):
                found.setdefault(str(macro["name"]), []).append(unique_id)
        return found

    def _values_read(self, text: str, scope: str) -> Iterator[tuple[str, str]]:
        template = self._template(text)
        if template is None:
            return
        for name in template.calls("var"):
            if name is None:
                yield "vars", _short({**self._variables.project, **self._variables.command_line})
            else:
                yield f"var: {name}", _short(self._variables.lookup(name, scope))
        for name in template.calls("env_var"):
            if name is not None and not name.startswith(_SECRET_PREFIX):
                yield f"env_var: {name}", _short(self._environ.get(name))

    def _macro_texts(self, start: Iterable[str]) -> list[str]:
        return [str(self._macros[unique_id]["macro_sql"]) for unique_id in self._reached_from(start)]

    def _reached_macros(self, node: Node) -> list[str]:
        """Return the macros that the node and its ephemerals call, directly or not, in a stable order."""
        called = [m for uid in (node.unique_id, *node.ephemerals) for m in _macros_of(self._nodes[uid])]
        return self._reached_from([*called, *self._own_materialization(node.materialized)])

    def _reached_from(self, start: Iterable[str]) -> list[str]:
        reached: dict[str, None] = {}
        stack = list(start)
        while stack:
            unique_id = stack.pop()
            if unique_id in self._macros and unique_id not in reached:
                reached[unique_id] = None
                stack.extend(_macros_of(self._macros[unique_id]))
        return sorted(reached)

    def _own_materialization(self, materialized: str) -> list[str]:
        # dbt does not list the materialization among a node's macros; its own ones change only with dbt.
        suffixes = (self._dialect, "default")
        return [
            unique_id
            for unique_id, macro in self._materializations.items()
            if macro in {f"materialization_{materialized}_{suffix}" for suffix in suffixes}
        ]

    @cached_property
    def _materializations(self) -> Mapping[str, str]:
        return {
            unique_id: str(macro["name"])
            for unique_id, macro in self._macros.items()
            if str(macro["name"]).startswith("materialization_") and not _is_dbts_own(str(macro["package_name"]))
        }

    def _macro_form(self, unique_id: str) -> str:
        if unique_id not in self._macro_forms:
            self._macro_forms[unique_id] = self._cached("macro", str(self._macros[unique_id]["macro_sql"]), macro_form)
        return self._macro_forms[unique_id]

    def _normal_form(self, text: str) -> str:
        names = self._overridden
        what = " ".join(["sql", *sorted(names)])
        return self._cached(what, text, lambda text: normal_form(text, self._dialect, overridden=names))

    @cached_property
    def _overridden(self) -> AbstractSet[str]:
        """The names of dbt's own functions that macros of the project or a package take."""
        return {"ref", "source"} & self._own_macros_by_name.keys()

    def _template(self, text: str) -> Template | None:
        if text not in self._templates:
            self._templates[text] = split_template(text)
        return self._templates[text]

    def _cached(self, what: str, text: str, compute: Any) -> str:  # noqa: ANN401
        key = digest([what, FORM_VERSION, self._dialect, text])
        if key not in self._cache:
            self._cache[key] = compute(text)
        return self._cache[key]


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
    arguments = (props.get("test_metadata") or {}).get("kwargs") or {}
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


def _functions(props: Mapping[str, Any]) -> list[str]:
    return [uid for uid in (props.get("depends_on") or {}).get("nodes") or [] if uid.startswith("function.")]


def _is_dbts_own(package: str) -> bool:
    return package == "dbt" or (package.startswith("dbt_") and package.removeprefix("dbt_") in _ADAPTERS)


_ADAPTERS = frozenset(
    {
        "athena", "bigquery", "clickhouse", "databricks", "duckdb", "fabric", "glue", "postgres", "redshift", "snowflake",
        "spark", "sqlite", "sqlserver", "trino",
    }
)  # fmt: skip


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
