"""The code of Python models and functions: its normal form, and the config that it reads."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dagster_sao.sql.compiled_sql import read_statements
from dagster_sao.sql.jinja_reads import ANY, Read

_READERS = frozenset(
    {
        "call", "connect", "create_engine", "forName", "forPath", "from_csv_auto", "from_parquet", "genfromtxt", "get_stream", "getenv",
        "glob", "iglob", "iterdir", "listTables", "listdir", "load_model", "load_workbook", "loadtxt", "open", "rglob", "scandir",
        "table_function", "urlopen", "urlretrieve",
    }
)  # fmt: skip
_READER_NAMES = ("read_", "scan_")
"""Functions and methods, by name or its beginning, that read a file, a database or the environment."""
_OUTSIDE = frozenset({"boto3", "dbutils", "httpx", "joblib", "requests", "socket", "subprocess", "torch", "urllib3"})
"""Modules, and an object of Databricks, whose functions may read anything."""
_FRAME_READERS = frozenset({"read", "readStream"})
"""Attributes of a session of Spark or Snowpark: what reads files, after options."""
_OPTIONS = frozenset({"format", "option", "options", "schema", "with_metadata"})
_IMPORTERS = frozenset({"__import__", "import_module"})
_QUERIES = frozenset({"execute", "sql", "table"})
"""Methods of a session of a database."""


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


def imported_modules(code: str) -> Iterator[str]:
    """Yield the first names of the modules that code imports, as far as it spells them out.

    >>> sorted(imported_modules("import a.b; from c.d import e; importlib.import_module('f')"))
    ['a', 'c', 'f']
    """
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
        elif isinstance(node, ast.Call) and _name_of(node) in _IMPORTERS and _is_text(node.args[:1]):
            yield str(node.args[0].value).partition(".")[0]  # type: ignore[attr-defined]


def _name_of(call: ast.Call) -> str:
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else str(getattr(function, "id", ""))


def _is_text(arguments: list[ast.expr]) -> bool:
    """Return whether the first of some arguments is a text that is spelled out."""
    return bool(arguments) and isinstance(arguments[0], ast.Constant) and isinstance(arguments[0].value, str)


def _is_config(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "config"


def inputs_of_python(code: str, dialect: str) -> list[str]:
    """Return what a Python model reads beside `dbt.ref` and `dbt.source`, as far as its calls say so, by label.

    >>> inputs_of_python("def model(dbt, session): return session.sql('select * from raw.rates')", "duckdb")
    ['raw.rates']
    >>> inputs_of_python("import os; pd.read_csv(path); os.environ['A']", "duckdb")
    ['read_csv(path)', 'os.environ']
    """
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return []
    # A query of a data frame, as DuckDB allows it, names a variable.
    own = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    own |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    found: dict[str, None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            found.update(dict.fromkeys(name for name in _inputs_of_call(node, dialect) if name not in own))
        elif isinstance(node, ast.Attribute) and node.attr == "environ":
            found["os.environ"] = None
    return list(found)


def _inputs_of_call(call: ast.Call, dialect: str) -> Iterator[str]:
    name = _name_of(call)
    argument = call.args[0] if call.args else None
    is_query, is_import = isinstance(call.func, ast.Attribute) and name in _QUERIES, name in _IMPORTERS
    if _reads(call, name) or ((is_query or is_import) and not _is_text(call.args)):
        yield f"{name}({ast.unparse(argument) if argument is not None else ''})"
    elif is_query and isinstance(argument, ast.Constant):
        query = str(argument.value)
        yield from [query.lower()] if name == "table" else sorted(read_statements([query], dialect).relations)


def _reads(call: ast.Call, name: str) -> bool:
    """Return whether a call reads from outside, other than by a query."""
    if name in _READERS or name.startswith(_READER_NAMES):
        return True
    if not isinstance(call.func, ast.Attribute):
        return False
    is_frame = name not in _OPTIONS | _QUERIES and _is_frame_reader(call.func.value)
    return is_frame or (isinstance(call.func.value, ast.Name | ast.Attribute) and _root_of(call.func) in _OUTSIDE)


def _is_frame_reader(node: ast.AST) -> bool:
    """Return whether this is `session.read`, perhaps with options."""
    while isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _OPTIONS:
        node = node.func.value
    return isinstance(node, ast.Attribute) and node.attr in _FRAME_READERS


def _root_of(node: ast.AST) -> str:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""
