"""What Python code imports, and the names that it gives to it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

IMPORTERS = frozenset({"__import__", "import_module"})
"""Functions that import the module of a name."""


def imported_modules(code: str) -> Iterator[str]:
    """Yield the first names of the modules that code imports, as far as it spells them out.

    >>> sorted(imported_modules("import a.b; from c.d import e; from importlib import import_module as i; i('f')"))
    ['a', 'c', 'f', 'importlib']
    """
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return
    yield from (module.partition(".")[0] for module, _ in imports_of(tree))


def imports_of(tree: ast.AST) -> Iterator[tuple[str, list[str]]]:
    """Yield each module that code imports, as far as it is spelled out, and the full names of what is imported from it."""
    names = dict(names_of_imports(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, [alias.name]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module, [f"{node.module}.{alias.name}" for alias in node.names]
        elif (
            isinstance(node, ast.Call)
            and is_text(node.args[:1])
            and path_of(node.func, names).rpartition(".")[2] in IMPORTERS
        ):
            module = str(node.args[0].value)  # type: ignore[attr-defined]
            yield module, [module]


def names_of_imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield the names that code gives to what it imports, each with its full name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.asname, alias.name) for alias in node.names if alias.asname)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)


def path_of(node: ast.AST, names: Mapping[str, str]) -> str:
    """Return the full name of what code names, such as `os.environ`; it begins with a dot where it is of some other value."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    return ".".join([names.get(node.id, node.id) if isinstance(node, ast.Name) else "", *parts])


def is_text(arguments: list[ast.expr]) -> bool:
    """Return whether the first of some arguments is a text that is spelled out."""
    return bool(arguments) and isinstance(arguments[0], ast.Constant) and isinstance(arguments[0].value, str)
