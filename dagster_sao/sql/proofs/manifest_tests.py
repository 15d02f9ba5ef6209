"""The property that a generic test of dbt states, read from its entry in the manifest."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from dagster_sao.sql.proofs.properties import AcceptedValues, NotNull, NotProvable, Property, Relationship, Unique

RelationOf = Callable[[str], str | None]
"""Returns the key of the relation of a node, by the node's unique id."""
_PACKAGES = {None: "dbt", "dbt_utils": "dbt_utils"}
_DEFAULT_CONDITION = re.compile(r"\s*(!=|<>|>)\s*0\s*")
_PARENT = re.compile(r"\s*(\{\{)?\s*(ref|source)\s*\([^{}]*\)\s*(\}\})?\s*")
_NUMBER = re.compile(r"\d{1,18}")
_BOOLEANS = {"true", "false"}


def wanted_property(test: Mapping[str, Any], relation_of: RelationOf) -> Property | NotProvable:
    """Return the property that holds if and only if a generic test finds 0 rows.

    A test with `where` asks for less: it follows from the same property of all rows, if the `where` is no error.
    """
    metadata = test.get("test_metadata") or {}
    name, package = str(metadata.get("name")), metadata.get("namespace")
    arguments = metadata.get("kwargs") or {}
    if str(_config(test).get("fail_calc") or "count(*)").replace(" ", "").lower() != "count(*)":
        return NotProvable("the test counts its failures in its own way")
    read = _READERS.get((package, name))
    if read is None:
        return NotProvable(f"nothing is known of the test {name}")
    if (overriding := _overriding(test, name, package)) is not None:
        return NotProvable(f"the test runs {overriding}, which is not dbt's own")
    return read(test, arguments, relation_of)


def known_property(test: Mapping[str, Any], relation_of: RelationOf) -> Property | NotProvable:
    """Return the property of all rows that a test states when it passes."""
    config = _config(test)
    if config.get("where"):
        return NotProvable("the test has a where, so that it says nothing about the other rows")
    if config.get("limit") is not None:
        return NotProvable("the test has a limit")
    for option in ("warn_if", "error_if"):
        if not _DEFAULT_CONDITION.fullmatch(str(config.get(option) or "!= 0")):
            return NotProvable(f"the test has its own {option}, so that it may pass with failures")
    return wanted_property(test, relation_of)


def _config(test: Mapping[str, Any]) -> Mapping[str, Any]:
    config: Mapping[str, Any] = test.get("config") or {}
    return config


def _overriding(test: Mapping[str, Any], name: str, package: str | None) -> str | None:
    """Return the macro of another package that a test runs."""
    home = _PACKAGES[package]
    macros = (test.get("depends_on") or {}).get("macros") or ()
    own = f"macro.{home}.test_{name}"
    others = [macro for macro in macros if macro != own and not str(macro).startswith("macro.dbt.")]
    return str(others[0]) if others else None if own in macros else f"no macro {own}"


def _column(test: Mapping[str, Any], arguments: Mapping[str, Any]) -> str:
    return _plain(arguments.get("column_name") or test.get("column_name"))


def _plain(value: object) -> str:
    """Return a text without Jinja; empty where there is none."""
    return value.strip() if isinstance(value, str) and "{" not in value else ""


def _unique(test: Mapping[str, Any], arguments: Mapping[str, Any], _: RelationOf) -> Property | NotProvable:
    column = _column(test, arguments)
    return Unique((column,)) if column else NotProvable("the test's column is not spelled out")


def _not_null(test: Mapping[str, Any], arguments: Mapping[str, Any], _: RelationOf) -> Property | NotProvable:
    column = _column(test, arguments)
    return NotNull(column) if column else NotProvable("the test's column is not spelled out")


def _combination(test: Mapping[str, Any], arguments: Mapping[str, Any], _: RelationOf) -> Property | NotProvable:
    del test
    columns = arguments.get("combination_of_columns")
    if arguments.get("quote_columns") or not isinstance(columns, list) or not columns:
        return NotProvable("the test's columns are not spelled out")
    names = tuple(_plain(column) for column in columns)
    return Unique(names, nulls_equal=True) if all(names) else NotProvable("the test's columns are not spelled out")


def _accepted(test: Mapping[str, Any], arguments: Mapping[str, Any], _: RelationOf) -> Property | NotProvable:
    column, values, quoted = _column(test, arguments), arguments.get("values"), arguments.get("quote", True)
    if not column or not isinstance(values, list) or not values or not isinstance(quoted, bool):
        return NotProvable("the test's values are not spelled out")
    # As Jinja prints them.
    texts = frozenset(str(value) if quoted else str(value).lower() for value in values)
    is_plain = all(_is_literal(text, quoted=quoted) for text in texts)
    return (
        AcceptedValues(column, texts, quoted) if is_plain else NotProvable("the test's values are not plain literals")
    )


def _is_literal(text: str, *, quoted: bool) -> bool:
    if quoted:
        return not any(sign in text for sign in "'\\{")
    return _NUMBER.fullmatch(text) is not None or text in _BOOLEANS


def _relationship(
    test: Mapping[str, Any], arguments: Mapping[str, Any], relation_of: RelationOf
) -> Property | NotProvable:
    column, field = _column(test, arguments), _plain(arguments.get("field"))
    if not column or not field or not _PARENT.fullmatch(str(arguments.get("to") or "")):
        return NotProvable("the test's parent is not spelled out")
    own = test.get("attached_node")
    others = {node for node in (test.get("depends_on") or {}).get("nodes") or () if node != own}
    if len(others) > 1 or not own:
        return NotProvable("the test reads more than its parent")
    relation = relation_of(others.pop() if others else str(own))
    return Relationship(column, relation, field) if relation else NotProvable("the test's parent has no relation")


_READERS: Mapping[
    tuple[str | None, str], Callable[[Mapping[str, Any], Mapping[str, Any], RelationOf], Property | NotProvable]
] = {
    (None, "unique"): _unique,
    (None, "not_null"): _not_null,
    (None, "accepted_values"): _accepted,
    (None, "relationships"): _relationship,
    ("dbt_utils", "unique_combination_of_columns"): _combination,
}
