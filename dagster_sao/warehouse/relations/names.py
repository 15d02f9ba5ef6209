"""Names of relations as dbt writes them, and as each database keeps them. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dagster_sao.warehouse.adapters import Folding, NameTraits, traits_of

# A doubled quote inside of a quoted part stands for one; brackets are T-SQL's.
_PART = re.compile(
    r'"(?P<double>(?:[^"]|"")+)"|`(?P<back>(?:[^`]|``)+)`|\[(?P<square>(?:[^\]]|\]\])+)\]|(?P<bare>[^\s."`\[\]\'()]+)'
)


@dataclass(frozen=True, slots=True)
class RelationName:
    """A relation as its database keeps it; `database` and `schema` are empty where the name leaves them out."""

    database: str
    schema: str
    identifier: str


def parse_relation_name(text: str, adapter_type: str) -> RelationName | None:
    """Return the relation that a dbt `relation_name` means on an adapter, None when the text is not a plain name.

    Names that an adapter compares without regard to case come in lower case.

    >>> parse_relation_name('"Shop"."raw".Orders', "postgres")
    RelationName(database='Shop', schema='raw', identifier='orders')
    >>> parse_relation_name('SHOP."Raw".orders', "snowflake")
    RelationName(database='SHOP', schema='Raw', identifier='ORDERS')
    >>> parse_relation_name('"a ""b"".c"', "postgres").identifier
    'a "b".c'
    >>> parse_relation_name("read_csv('x.csv')", "duckdb") is None
    True
    """
    names = traits_of(adapter_type).names
    parts: list[str] = []
    position = 0
    while match := _PART.match(text, position):
        parts.append(_kept(match, names))
        position = match.end()
        if position == len(text):
            break
        if text[position] != ".":
            return None
        position += 1
    most = 3
    if not parts or position != len(text) or len(parts) > most:
        return None
    database, schema, identifier = ("",) * (most - len(parts)) + tuple(parts)
    return RelationName(database, schema, identifier)


def listed_name(text: str, adapter_type: str) -> str:
    """Return a name from the database's own list, so that it can be compared with a parsed one."""
    return _comparable(text, traits_of(adapter_type).names)


def literal(text: str) -> str:
    """Return SQL for a text.

    >>> literal("it's")
    "'it''s'"
    """
    return "'" + text.replace("'", "''") + "'"


def _comparable(text: str, names: NameTraits) -> str:
    if names.longest is not None:
        text = text.encode()[: names.longest].decode(errors="ignore")
    return text.lower() if names.ignores_case else text


def _kept(match: re.Match[str], names: NameTraits) -> str:
    if match["bare"] is not None:
        return _comparable(_folded(match["bare"], names.folding), names)
    for group, quote in (("double", '"'), ("back", "`"), ("square", "]")):
        if match[group] is not None:
            return _comparable(match[group].replace(quote * 2, quote), names)
    raise AssertionError  # one of the alternatives matched


def _folded(bare: str, folding: Folding) -> str:
    if folding is Folding.NONE:
        return bare
    return bare.upper() if folding is Folding.UPPER else bare.lower()
