"""The properties that the constraints of a model's contract have the database enforce, from the model's entry in dbt's manifest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dagster_sao.sql.built_rows import has_its_constraints
from dagster_sao.sql.dialects import semantics_of
from dagster_sao.sql.proofs.column_types import is_scalar_type
from dagster_sao.sql.proofs.properties import Known, NotNull, Property, Unique
from dagster_sao.sql.proofs.scope import fold

_LABEL = "a constraint of the table"
# Of a model's own constraints, dbt writes no others into the statement that creates its table.
_WRITTEN_FOR_TABLES = frozenset({"primary_key", "unique"})


def enforced_properties(model: Mapping[str, Any], adapter: str) -> tuple[Known, ...]:
    """Return the properties of a model's table that the database enforces; none where that is not certain."""
    semantics = semantics_of(adapter)
    if semantics is None or not has_its_constraints(model):
        return ()
    columns: Mapping[str, Mapping[str, Any]] = model.get("columns") or {}
    names = {name: _name(name, column) for name, column in columns.items()}
    found: list[tuple[str, tuple[str, ...]]] = []
    for name, column in columns.items():
        found.extend((str(constraint.get("type")), (names[name],)) for constraint in _plain(column))
    for constraint in _plain(model):
        of_table = [str(name) for name in constraint.get("columns") or ()]
        if (kind := str(constraint.get("type"))) in _WRITTEN_FOR_TABLES:
            found.append((kind, tuple(names.get(name, name) for name in of_table)))
    # A row of NULLs is a value to a constraint, and none to a test.
    scalar = {names[name] for name, column in columns.items() if is_scalar_type(str(column.get("data_type")))}
    known = [(kind, about) for kind, about in found if about and kind in semantics.enforces]
    holds = [
        one
        for kind, about in known
        if scalar.issuperset(about) or not semantics.has_composites
        for one in _meaning(kind, about)
    ]
    return tuple(Known(one, "", _LABEL) for one in dict.fromkeys(holds))


def contract_types(model: Mapping[str, Any], adapter: str) -> Mapping[str, str]:
    """Return the type of each column in a model's contract, both as the catalog spells them."""
    semantics = semantics_of(adapter)
    if semantics is None:
        return {}
    return {
        fold(name, quoted=bool(column.get("quote")), semantics=semantics): str(column.get("data_type"))
        for name, column in (model.get("columns") or {}).items()
    }


def _plain(entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the constraints of a model or column without extra words such as `not valid` or `nulls not distinct`."""
    return [found for found in entry.get("constraints") or () if not found.get("expression")]


def _name(name: str, column: Mapping[str, Any]) -> str:
    return f'"{name}"' if column.get("quote") else name


def _meaning(kind: str, columns: tuple[str, ...]) -> Iterator[Property]:
    """Yield what a constraint says; one on uniqueness ignores NULLs."""
    if kind == "not_null":
        yield from map(NotNull, columns)
        return
    yield Unique(columns)
    if kind == "primary_key":
        yield Unique(columns, nulls_equal=True)
        yield from map(NotNull, columns)
