"""The code of Python models and functions: its normal form, and the config that it reads."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dagster_sao.sql.jinja_reads import ANY, Read


def python_form(code: str) -> str:
    """Return a text that comments and white space do not change; the code itself where it cannot be parsed.

    >>> python_form("f( 1 )  # why") == python_form("f(1)")
    True
    """
    try:
        return ast.dump(ast.parse(code))
    except SyntaxError:
        return code


def reads_of_python(code: str) -> Iterator[Read]:
    """Yield what a Python model reads of its config: `dbt.config.get("name")`, or everything where the name is not spelled out.

    >>> sorted(reads_of_python("dbt.config.get('rate'); dbt.config.meta_get(name)"))
    [('config', 'rate'), ('meta', '*')]

    https://docs.getdbt.com/docs/build/python-models#configuring-python-models
    """
    try:
        tree = ast.parse(code)
    except SyntaxError:
        yield "config", ANY
        return
    called: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _is_config(node.func.value):
            called.add(node.func.value)
            kind = "meta" if node.func.attr.startswith("meta_") else "config"
            argument = node.args[0] if node.args else None
            is_spelled = isinstance(argument, ast.Constant) and isinstance(argument.value, str)
            yield kind, str(argument.value) if is_spelled else ANY  # type: ignore[union-attr]
        elif _is_config(node) and node not in called:
            yield "config", ANY


def _is_config(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "config"
