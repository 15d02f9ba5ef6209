"""The code of Python models and functions: its normal form, the config that it reads, and its other inputs."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

from dagster_sao.sql.compiled_sql import read_statements
from dagster_sao.sql.dialects import DUCKDB
from dagster_sao.sql.jinja_reads import ANY, Read
from dagster_sao.sql.python.imports import IMPORTERS, imports_of, is_text, names_of_imports, path_of

_READERS = frozenset(
    {
        "BZ2File", "Booster", "ConfigParser", "FileInput", "GzipFile", "LZMAFile", "ParquetDataset", "ParquetFile",
        "RawConfigParser", "TarFile", "ZipFile", "build_opener", "call", "connect", "create_engine", "exists",
        "forName", "forPath", "from_csv_auto", "from_parquet", "fromfile", "fwalk", "genfromtxt", "get_data",
        "get_stream", "getctime", "getenv", "getline", "getlines", "getmtime", "getsize", "glob", "iglob", "is_dir",
        "is_file", "isdir", "isfile", "iterdir", "listTables", "listdir", "load_model", "load_npz", "load_workbook",
        "loadmat", "loadtxt", "memmap", "open", "popen", "rglob", "scandir", "stat", "table_function", "urlopen",
        "urlretrieve", "walk",
    }
)  # fmt: skip
_READER_NAMES = ("read_", "scan_")
"""Functions and methods, by name or its beginning, that read a file, a database or the environment."""
_READER_PATHS = (
    "ElementTree.parse",
    "etree.parse",
    "minidom.parse",
    "numpy.load",
    "resources.files",
    "resources.path",
    "sax.parse",
)
"""Such functions whose names alone say too little."""
_FILES_OF_DATABRICKS = "dbutils."
_OPEN = "open"
_RUN_CODE = frozenset({"eval", "exec"})
_FRAME_READERS = frozenset({"read", "readStream"})
"""Attributes of a session of Spark or Snowpark: what reads files, after options."""
_OPTIONS = frozenset({"format", "option", "options", "schema", "with_metadata"})
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
    names = dict(names_of_imports(tree))
    modules = {module.partition(".")[0] for module, _ in imports_of(tree)}
    called = {node.func for node in ast.walk(tree) if isinstance(node, ast.Call)}
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    found: dict[str, None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if not (isinstance(node.func, ast.Name) and node.func.id in functions):
                found.update(dict.fromkeys(name for name in _inputs_of_call(node, dialect, names) if name not in own))
        elif isinstance(node, ast.Attribute | ast.Name) and node not in called:
            path = path_of(node, names)
            if path.endswith(".environ"):
                found["os.environ"] = None
            elif _is_reader(path) and (path == _OPEN or path.partition(".")[0] in modules):
                # It is passed on, as in `map(pandas.read_csv, files)`.
                found[ast.unparse(node)] = None
    return list(found)


def _inputs_of_call(call: ast.Call, dialect: str, names: Mapping[str, str]) -> Iterator[str]:
    path = path_of(call.func, names)
    root, name = path.partition(".")[0], path.rpartition(".")[2]
    arguments, own = call.args, ""
    if name == _OF_FRAMES and len(arguments) > 1 and is_text(arguments) and _is_condition(arguments[0]):
        # `frame.query("name", sql)` of DuckDB: what the SQL calls the rows of the frame.
        own, arguments = str(arguments[0].value), arguments[1:]  # type: ignore[attr-defined]
    argument = arguments[0] if arguments else None
    is_query, is_import = _is_query(call, name, root, argument), name in IMPORTERS
    if _reads(call, path) or ((is_query or is_import) and not is_text(arguments)):
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


def _reads(call: ast.Call, path: str) -> bool:
    """Return whether a call, of a function of this full name, reads from outside, other than by a query."""
    if _is_reader(path) or path.startswith(_FILES_OF_DATABRICKS) or path in _RUN_CODE:
        return True
    name = path.rpartition(".")[2]
    is_method = isinstance(call.func, ast.Attribute) and name not in _OPTIONS | _QUERIES | _RELATIONS
    return is_method and _is_frame_reader(call.func.value)  # type: ignore[attr-defined]


def _is_reader(path: str) -> bool:
    name = path.rpartition(".")[2]
    return name in _READERS or name.startswith(_READER_NAMES) or path.endswith(_READER_PATHS)


def _is_frame_reader(node: ast.AST) -> bool:
    """Return whether this is `session.read`, perhaps with options."""
    while isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _OPTIONS:
        node = node.func.value
    return isinstance(node, ast.Attribute) and node.attr in _FRAME_READERS
