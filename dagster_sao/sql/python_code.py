"""The code of Python models and functions: its normal form, and the config that it reads."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

from dagster_sao.sql.compiled_sql import read_statements
from dagster_sao.sql.dialects import DUCKDB
from dagster_sao.sql.jinja_reads import ANY, Read

_READERS = frozenset(
    {
        "ParquetDataset", "ParquetFile", "call", "connect", "create_engine", "forName", "forPath", "from_csv_auto", "from_parquet",
        "genfromtxt", "get_stream", "getenv", "glob", "iglob", "iterdir", "listTables", "listdir", "load_model", "load_workbook", "loadtxt", "open", "rglob", "scandir",
        "table_function", "urlopen", "urlretrieve",
    }
)  # fmt: skip
_READER_NAMES = ("read_", "scan_")
"""Functions and methods, by name or its beginning, that read a file, a database or the environment."""
_OUTSIDE = frozenset(
    {
        "aiohttp", "boto3", "dbutils", "deltalake", "fsspec", "ftplib", "gcsfs", "gspread", "http", "httpx", "joblib", "paramiko",
        "pyiceberg", "pymongo", "redis", "requests", "s3fs", "socket", "subprocess", "torch", "urllib3",
    }
)  # fmt: skip
"""Modules, and an object of Databricks, whose functions may read anything."""
_FRAME_READERS = frozenset({"read", "readStream"})
"""Attributes of a session of Spark or Snowpark: what reads files, after options."""
_OPTIONS = frozenset({"format", "option", "options", "schema", "with_metadata"})
_IMPORTERS = frozenset({"__import__", "import_module"})
_RELATIONS = frozenset({"list_rows", "table", "view"})
_QUERIES = frozenset({"execute", "from_query", "query", "query_and_wait", "sql"})
"""Methods of a session of a database, with the name of a relation or with SQL."""
_SESSION_ONLY = "view"
"""Arrays have a method of this name too."""
_OF_FRAMES = "query"
"""Data frames have a method of this name too, whose text is a condition."""
_QUERY_STARTS = ("(", "from", "select", "show", "table", "values", "with", "{")


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

    >>> sorted(imported_modules("import a.b; from c.d import e; from importlib import import_module as i; i('f')"))
    ['a', 'c', 'f', 'importlib']
    """
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return
    imports = dict(_imports(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
        elif (
            isinstance(node, ast.Call)
            and _is_text(node.args[:1])
            and _path_of(node.func, imports).rpartition(".")[2] in _IMPORTERS
        ):
            yield str(node.args[0].value).partition(".")[0]  # type: ignore[attr-defined]


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
    imports = dict(_imports(tree))
    found: dict[str, None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            found.update(dict.fromkeys(name for name in _inputs_of_call(node, dialect, imports) if name not in own))
        elif isinstance(node, ast.Attribute | ast.Name) and _path_of(node, imports).endswith(".environ"):
            found["os.environ"] = None
    return list(found)


def _imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield the names that code gives to what it imports, each with its full name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.asname, alias.name) for alias in node.names if alias.asname)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)


def _path_of(node: ast.AST, imports: Mapping[str, str]) -> str:
    """Return the full name of what code names, such as `os.environ`; it begins with a dot where it is of some other value."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    return ".".join([imports.get(node.id, node.id) if isinstance(node, ast.Name) else "", *parts])


def _inputs_of_call(call: ast.Call, dialect: str, imports: Mapping[str, str]) -> Iterator[str]:
    path = _path_of(call.func, imports)
    root, name = path.partition(".")[0], path.rpartition(".")[2]
    arguments, own = call.args, ""
    if name == _OF_FRAMES and len(arguments) > 1 and _is_text(arguments) and _is_condition(arguments[0]):
        # `frame.query("name", sql)` of DuckDB: what the SQL calls the rows of the frame.
        own, arguments = str(arguments[0].value), arguments[1:]  # type: ignore[attr-defined]
    argument = arguments[0] if arguments else None
    is_query, is_import = _is_query(call, name, root, argument), name in _IMPORTERS
    if _reads(call, name, root) or ((is_query or is_import) and not _is_text(arguments)):
        yield f"{name}({ast.unparse(argument) if argument is not None else ''})"
    elif is_query and isinstance(argument, ast.Constant):
        query = str(argument.value)
        found = [query.lower()] if name in _RELATIONS else sorted(read_statements([query], dialect).relations)
        yield from (relation for relation in found if relation != own)


def _is_query(call: ast.Call, name: str, root: str, text: ast.expr | None) -> bool:
    """Return whether a call asks a database for the rows of a query or a relation. DuckDB's module has the functions of a session."""
    if name not in _QUERIES | _RELATIONS or not (isinstance(call.func, ast.Attribute) or root == DUCKDB):
        return False
    if name == _SESSION_ONLY:
        return root in {DUCKDB, "session"}
    return name != _OF_FRAMES or text is None or not _is_condition(text)


def _is_condition(text: ast.expr) -> bool:
    """Return whether the beginning of a text is spelled out and is not that of a query."""
    first: ast.expr = text
    while isinstance(first, ast.BinOp | ast.JoinedStr):
        first = first.left if isinstance(first, ast.BinOp) else (first.values or [ast.Constant("")])[0]
    return isinstance(first, ast.Constant) and not str(first.value).lstrip().lower().startswith(_QUERY_STARTS)


def _reads(call: ast.Call, name: str, root: str) -> bool:
    """Return whether a call reads from outside, other than by a query."""
    if name in _READERS or name.startswith(_READER_NAMES) or (root in _OUTSIDE and name != root):
        return True
    is_method = isinstance(call.func, ast.Attribute) and name not in _OPTIONS | _QUERIES | _RELATIONS
    return is_method and _is_frame_reader(call.func.value)  # type: ignore[attr-defined]


def _is_frame_reader(node: ast.AST) -> bool:
    """Return whether this is `session.read`, perhaps with options."""
    while isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _OPTIONS:
        node = node.func.value
    return isinstance(node, ast.Attribute) and node.attr in _FRAME_READERS
