"""The values that a dbt template reads from its context, found in Jinja's syntax tree.

Nothing is rendered, so what a name stands for is known only where the template spells it out. Otherwise (an alias, a name
that is put together, an object that is passed on), all values of the kind count as read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from jinja2 import Environment, TemplateSyntaxError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser

from dagster_sao.sql.template import split_template
from dbt_dagster_sao.digests import GRAPH_SECTIONS

ANY = "*"
"""Stands for every name of a kind."""

Read = tuple[str, str]
"""The kind of what is read (`var`, `env_var`, `config`, `meta`, `model`, `target`, `flags`, `graph`, `macro`, `dbt_version`), and
its name.

A name that ends in `*` stands for all names with this beginning.
"""
OF_A_PACKAGE: Read = ("macros", "of a package")
"""A look-up in a package, under a name that is not spelled out. dbt traces no look-up that finds nothing."""
_FUNCTIONS = frozenset({"var", "env_var"})
"""The functions that are called with the name of a value."""
_OBJECTS = frozenset({"config", "model", "target", "flags"})
"""The objects whose attributes are values."""
EVERYTHING: frozenset[Read] = frozenset((kind, ANY) for kind in (*_FUNCTIONS, *_OBJECTS, "graph", "macro"))
_WHOLE: dict[str, Iterable[Read]] = {
    "graph": [("graph", ANY)],
    # The arguments of the command hold the variables of the command line too.
    "invocation_args_dict": [("var", ANY), ("flags", ANY)],
    "dbt_metadata_envs": [("env_var", "DBT_ENV_CUSTOM_ENV_*")],
    "env": [("target", ANY)],
    "dbt_version": [("dbt_version", ANY)],
    # With these, a template reaches whatever dbt offers.
    "adapter_macro": EVERYTHING,
    "builtins": EVERYTHING,
    "context": EVERYTHING,
    "render": EVERYTHING,
}
_GETTERS = frozenset({"get", "require"})
_META_GETTERS = frozenset({"meta_get", "meta_require"})
# Attributes of the objects by which all of them is read, if not called with a name that is spelled out. What is not a dictionary
# does not have the others.
_OF_THE_WHOLE = (
    _GETTERS | _META_GETTERS | {"copy", "items", "keys", "model", "pop", "popitem", "setdefault", "update", "values"}
)
_OF_A_MACRO = frozenset({"caller", "kwargs", "loop", "varargs"})
"""The names that Jinja binds by itself."""
_WITHOUT_READING = {"config": frozenset({"persist_relation_docs", "persist_column_docs"})}
"""Attributes and methods that do not change rows."""
_BUILTINS = {"context", "builtins"}
_NOT_A_PACKAGE = {*_WHOLE, "exceptions", "modules", "results", "schemas", "this"}


@dataclass(frozen=True, slots=True)
class JinjaReads:
    """The reads of one template."""

    values: frozenset[Read]
    names: frozenset[str]
    """All names that the template does not bind itself: macros, packages, and dbt's own functions among them."""


def jinja_reads(template: str) -> JinjaReads:
    """Return what a template reads: everything, if it cannot be parsed.

    >>> sorted(jinja_reads("{{ var('a') }} {{ env_var('B_' ~ region) }} {{ config.get('meta') }}").values)
    [('config', 'meta'), ('env_var', 'B_*'), ('var', 'a')]
    """
    if "{{" not in template and "{%" not in template:
        return JinjaReads(frozenset(), frozenset())
    try:
        tree = _ENVIRONMENT.parse(template)
    except (TemplateSyntaxError, RecursionError):
        pieces = split_template(template)
        return JinjaReads(EVERYTHING, frozenset(pieces.names() if pieces is not None else ()))
    reader = _Reader()
    reader.read_all(tree.body, frozenset())
    return JinjaReads(frozenset(reader.values), frozenset(reader.names))


class _DbtTags(Extension):
    """Reads dbt's own blocks as macros: only the names that they bind and their content matter here."""

    tags = frozenset({"test", "data_test", "materialization", "snapshot", "docs"})  # type: ignore[assignment]

    def parse(self, parser: Parser) -> nodes.Node:
        tag = next(parser.stream)
        macro = nodes.Macro(lineno=tag.lineno)
        macro.args, macro.defaults = [], []
        macro.name = parser.stream.expect("name").value
        if parser.stream.current.type == "lparen":
            parser.parse_signature(macro)
        while parser.stream.current.type != "block_end":  # `default`, `adapter='duckdb'`, `supported_languages=[…]`
            next(parser.stream)
        macro.body = parser.parse_statements((f"name:end{tag.value}",), drop_needle=True)
        return macro


_ENVIRONMENT = Environment(  # noqa: S701 (only parses, never renders)
    extensions=["jinja2.ext.do", "jinja2.ext.loopcontrols", _DbtTags]
)


class _Reader:
    """Walks a syntax tree with the names that are bound on the way."""

    def __init__(self) -> None:
        self.values: set[Read] = set()
        self.names: set[str] = set()

    def read_all(self, statements: Iterable[nodes.Node], bound: frozenset[str]) -> None:
        for statement in statements:
            self.read(statement, bound)
            # After an `if`, a name that only one branch binds may still be dbt's.
            if isinstance(statement, nodes.Assign | nodes.AssignBlock):
                bound |= _targets(statement.target)
            elif isinstance(statement, nodes.Macro):
                bound |= {statement.name}

    def read(self, node: nodes.Node, bound: frozenset[str]) -> None:
        if isinstance(node, nodes.Name):
            self._name(node, bound)
        elif isinstance(node, nodes.Call):
            self._call(node, bound)
        elif isinstance(node, nodes.Getattr | nodes.Getitem):
            self._attribute(node, bound)
        elif isinstance(node, nodes.Macro | nodes.CallBlock):
            self._macro(node, bound)
        elif isinstance(node, nodes.For):
            self._loop(node, bound)
        elif isinstance(node, nodes.Assign | nodes.AssignBlock):
            self._assignment(node, bound)
        elif isinstance(node, nodes.With):
            self._read_children(node.values, bound)
            self.read_all(node.body, bound.union(*map(_targets, node.targets)))
        else:
            for statements in _bodies(node):
                self.read_all(statements, bound)
            self._read_children((child for child in node.iter_child_nodes(exclude=_BODIES)), bound)

    def _read_children(self, children: Iterable[nodes.Node], bound: frozenset[str]) -> None:
        for child in children:
            self.read(child, bound)

    def _name(self, node: nodes.Name, bound: AbstractSet[str]) -> None:
        if node.ctx != "load" or node.name in bound:
            return
        self.names.add(node.name)
        if node.name in _FUNCTIONS or node.name in _OBJECTS:
            self.values.add((node.name, ANY))
        self.values.update(_WHOLE.get(node.name, ()))
        if node.name == "adapter":  # passed on, with everything that it can dispatch
            self.values |= EVERYTHING

    def _call(self, node: nodes.Call, bound: frozenset[str]) -> None:
        called, arguments = node.node, [*node.args, *node.kwargs]
        if isinstance(called, nodes.Name) and called.name not in bound:
            if called.name in _FUNCTIONS and node.args:
                self.values.add((called.name, _spelled(node.args[0])))
                self._read_children(arguments, bound)
                return
            if called.name == "config":
                return  # dbt keeps its arguments in the node's config
            if called.name == "set_sql_header":
                self.names.add(called.name)
                self.values.add(("config", "sql_header"))
                return
        if isinstance(called, nodes.Getattr) and _is_free(called.node, bound):
            self._method(called, node, bound)
        else:
            self.read(called, bound)
        self._read_children([*arguments, *(part for part in (node.dyn_args, node.dyn_kwargs) if part)], bound)

    def _method(self, called: nodes.Getattr, node: nodes.Call, bound: frozenset[str]) -> None:
        """Read `owner.method(…)`, where the owner is a name of the context."""
        owner, method = called.node.name, called.attr  # type: ignore[attr-defined]
        if owner == "adapter":
            self.names.add(owner)
            if method == "dispatch":
                self._dispatch(node)
        elif owner == "var" and method == "has_var" and node.args:
            self.values.add(("var", _spelled(node.args[0])))
        elif owner in _OBJECTS and method in _GETTERS and node.args:
            self.values.add((owner, _spelled(node.args[0])))
        elif (
            owner not in _OBJECTS and owner not in _OF_A_MACRO and method in {"get", "pop", "setdefault"} and node.args
        ):
            self._held(owner, _spelled(node.args[0]), called.node)
        elif owner == "config" and method in _META_GETTERS and node.args:
            self.values.add(("meta", _spelled(node.args[0])))
        elif method not in _WITHOUT_READING.get(owner, ()):
            self._attribute(called, bound)

    def _dispatch(self, node: nodes.Call) -> None:
        named = {keyword.key: keyword.value for keyword in node.kwargs}
        argument = node.args[0] if node.args else named.get("macro_name")
        name = _spelled(argument) if argument is not None else ANY
        if name.endswith(ANY):
            self.values |= EVERYTHING
        else:
            self.names.add(name)

    def _attribute(self, node: nodes.Getattr | nodes.Getitem, bound: frozenset[str]) -> None:
        if not _is_free(node.node, bound):
            self._read_children(node.iter_child_nodes(), bound)
            return
        owner = node.node.name  # type: ignore[attr-defined]
        name = node.attr if isinstance(node, nodes.Getattr) else _spelled(node.arg)
        if owner in _OBJECTS:
            self._value(owner, name)
        elif owner == "adapter" and not name.endswith(ANY) and name != "dispatch":
            self.names.add(owner)
        elif owner in _OF_A_MACRO or (isinstance(getattr(node, "arg", None), nodes.Const) and name.endswith(ANY)):
            self.read(node.node, bound)  # an item of a list
        elif owner in _BUILTINS and name in _OF_THE_WHOLE:
            self.read(node.node, bound)
        else:
            self._held(owner, name, node.node)
        if isinstance(node, nodes.Getitem):
            self.read(node.arg, bound)

    def _held(self, owner: str, name: str, node: nodes.Node) -> None:
        """Read what an object holds under a name: perhaps a macro of the package `owner`."""
        if owner in _BUILTINS and not name.endswith(ANY):
            self._name(nodes.Name(name, "load"), frozenset())
            return
        if owner == "graph" and name in GRAPH_SECTIONS:
            self.names.add(owner)
            self.values.add((owner, name))
            return
        self.read(node, frozenset())
        if not name.endswith(ANY):
            self.names.add(name)
        elif owner not in _BUILTINS and owner not in _NOT_A_PACKAGE:
            self.values.update([("macro", ANY), OF_A_PACKAGE])

    def _value(self, owner: str, name: str) -> None:
        """Read an attribute of one of the objects."""
        is_whole = name in _OF_THE_WHOLE
        self.values.add((owner, ANY if is_whole else name))
        if owner == "config" and is_whole:
            self.values.update([("meta", ANY), ("model", ANY)] if name == "model" else [("meta", ANY)])

    def _macro(self, node: nodes.Macro | nodes.CallBlock, bound: frozenset[str]) -> None:
        self._read_children(node.defaults, bound)
        if isinstance(node, nodes.CallBlock):
            self.read(node.call, bound)
        self.read_all(node.body, bound.union(*map(_targets, node.args)))

    def _loop(self, node: nodes.For, bound: frozenset[str]) -> None:
        self.read(node.iter, bound)
        within = bound | _targets(node.target) | {"loop"}
        if node.test is not None:
            self.read(node.test, within)
        self.read_all(node.body, within)
        self.read_all(node.else_, bound)

    def _assignment(self, node: nodes.Assign | nodes.AssignBlock, bound: frozenset[str]) -> None:
        if isinstance(node, nodes.Assign):
            self.read(node.node, bound)
            return
        if node.filter is not None:
            self.read(node.filter, bound)
        self.read_all(node.body, bound)


_BODIES = ("body", "elif_", "else_")


def _bodies(node: nodes.Node) -> Iterator[list[nodes.Node]]:
    for name in _BODIES:
        statements = getattr(node, name, None)
        if isinstance(statements, list):
            yield statements


def _targets(node: nodes.Node) -> frozenset[str]:
    """Return the names that a target of an assignment, a loop or a signature binds."""
    names = [node] if isinstance(node, nodes.Name) else list(node.find_all(nodes.Name))
    return frozenset(name.name for name in names)


def _is_free(node: nodes.Node, bound: AbstractSet[str]) -> bool:
    return isinstance(node, nodes.Name) and node.name not in bound


def _spelled(node: nodes.Node) -> str:
    """Return the text that an expression spells out, with `*` for the parts that it does not."""
    if isinstance(node, nodes.Const):
        return node.value if isinstance(node.value, str) else ANY
    if isinstance(node, nodes.Concat):
        return _spelled_start(node.nodes)
    if isinstance(node, nodes.Add):
        return _spelled_start([node.left, node.right])
    return ANY


def _spelled_start(parts: Iterable[nodes.Node]) -> str:
    text = ""
    for part in parts:
        text += _spelled(part)
        if text.endswith(ANY):
            break
    return text
