"""The names that users import."""

from __future__ import annotations

import re

import dagster_sao
from dagster_sao import api, errors

INTERNAL = {
    "DbtStartError", "FunctionTableError", "LeaseError", "NotAQueryError", "TableError", "VerdictError", "WriterError",
}  # fmt: skip
"""Of this package's own tables, statements and processes: a user catches DagsterSaoError."""


def subclasses(error):
    return {error}.union(*map(subclasses, error.__subclasses__()))


def test_every_error_of_the_package_can_be_imported_and_stands_in_the_tree():
    found = subclasses(errors.DagsterSaoError)
    ours = {one.__name__ for one in found if one.__module__.startswith("dagster_sao.") and one.__name__[0] != "_"}
    drawn = re.findall(r"\b(\w+Error|DbtBuildFailed)\b", errors.__doc__)
    assert ours <= {*errors.__all__, *INTERNAL}
    assert sorted(drawn) == sorted(errors.__all__)


def test_result_types_and_errors_can_be_imported_from_the_package():
    assert set(api.__all__) <= set(dagster_sao.__all__)
    assert all(hasattr(dagster_sao, name) for name in dagster_sao.__all__)
