"""The libraries that Python models import: which of them are known to compute only, and which may read anything."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable

from dagster_sao.sql.dialects import DUCKDB
from dagster_sao.sql.python.imports import imports_of

IMPORT = "import "
"""How the labels of libraries begin."""
_COMPUTING = frozenset(
    {
        "Levenshtein", "annotated_types", "arrow", "attr", "attrs", "babel", "bigframes", "bs4", "cachetools",
        "catboost", "category_encoders", "cloudpickle", "cvxpy", "cytoolz", "dask", "dateparser", "dateutil", "delta",
        DUCKDB, "emoji", "faker", "fastparquet", "feature_engine", "ftfy", "fuzzywuzzy", "geopandas",
        "google.cloud.bigquery", "h3", "holidays", "humanize", "ibis", "imblearn", "inflection", "isodate", "jellyfish",
        "jinja2", "jmespath", "jsonschema", "langdetect", "lifelines", "lightgbm", "markdown", "mmh3", "modin",
        "more_itertools", "msgpack", "narwhals", "networkx", "numba", "numexpr", "numpy", "openpyxl", "orjson",
        "packaging", "pandas", "pandera", "patsy", "pendulum", "phonenumbers", "pint", "polars", "prophet", "pulp",
        "pyarrow", "pycountry", "pydantic", "pyproj", "pyspark", "pytz", "rapidfuzz", "regex", "ruptures", "scipy",
        "shapely", "simplejson", "sklearn", "slugify", "snowflake.ml.modeling", "snowflake.snowpark",
        "sortedcontainers", "sqlalchemy", "sqlglot", "statsmodels", "sympy", "tabulate", "textdistance", "thefuzz",
        "toolz", "tqdm", "typing_extensions", "tzdata", "tzlocal", "unidecode", "user_agents", "xgboost", "xmltodict",
        "xxhash", "yaml",
    }
)  # fmt: skip
"""Libraries that compute, beside the standard library. Those of their functions that read are known by name (`inputs_of_python`)."""
_READING = frozenset(
    {
        "asyncio", "asyncore", "ctypes", "ftplib", "http", "imaplib", "mailbox", "multiprocessing.connection",
        "nntplib", "poplib", "pwd", "pyarrow.dataset", "pyarrow.flight", "pyarrow.fs", "runpy", "scipy.datasets",
        "selectors", "sklearn.datasets", "smtplib", "socket", "socketserver", "ssl", "statsmodels.datasets",
        "subprocess", "telnetlib", "urllib.request", "winreg", "xmlrpc",
    }
)  # fmt: skip
"""Their modules, and those of the standard library, that exist to reach what is outside of the process."""


def libraries_of_python(code: str) -> list[str]:
    """Return the libraries that code imports and that are not known to compute only, by label.

    Modules of the project are among them: the code alone does not tell which these are.

    >>> libraries_of_python("import json, acme.rates; from numpy import array; from acme import fees")
    ['import acme.rates', 'import acme']
    """
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return []
    labels = (f"{IMPORT}{module}" for module, names in imports_of(tree) if not all(map(_computes, names)))
    return list(dict.fromkeys(labels))


def is_of(label: str, libraries: Iterable[str]) -> bool:
    """Return whether a label is that of one of `libraries`, or of a module of one.

    >>> is_of("import acme.rates", ["acme"]), is_of("import acmes", ["acme"]), is_of("acme", ["acme"])
    (True, False, False)
    """
    return label.startswith(IMPORT) and _is_within(label.removeprefix(IMPORT), frozenset(libraries))


def _computes(name: str) -> bool:
    is_known = name.partition(".")[0] in sys.stdlib_module_names or _is_within(name, _COMPUTING)
    return is_known and not _is_within(name, _READING)


def _is_within(name: str, modules: frozenset[str]) -> bool:
    """Return whether a dotted name is one of `modules`, or in one of them."""
    parts = name.split(".")
    return any(".".join(parts[:size]) in modules for size in range(1, len(parts) + 1))
