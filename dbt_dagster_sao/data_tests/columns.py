"""The types of a relation's columns, as far as they show which values are equal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any


def comparable_types(
    columns: Mapping[str, str], adapter: str, ask: Callable[[str], Sequence[Any]]
) -> Mapping[str, str]:
    """Return the type of each column, another or an empty one if a collation may hide behind it.

    `columns` are the columns in order, each with its type as the catalog spells it. `ask` returns the one row that a query
    gives. Raises what `ask` raises.
    """
    from dagster_sao.sql.dialects import semantics_of
    from dagster_sao.sql.proofs.column_types import COLLATED, is_scalar_type, may_have_collation

    texts = {name for name, kind in columns.items() if may_have_collation(kind)}
    semantics = semantics_of(adapter)
    query = semantics.hidden_collations if texts and semantics is not None else ""
    if not query or not ask(query)[0]:
        return columns
    hidden = {name: COLLATED if is_scalar_type(columns[name]) else "" for name in texts}
    return {**columns, **hidden}
