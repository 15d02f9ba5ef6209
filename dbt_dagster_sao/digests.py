"""Digests of what a node read. The side that records and the side that verifies compute them with these functions.

Pure: values in, short texts out. It knows the shape of dbt's manifest.json, and nothing else of dbt.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from datetime import date, datetime, time
from enum import Enum
from hashlib import blake2b
from typing import Any

ABSENT = "-"
"""Stands for a value that was asked for and was not there."""
UNKNOWN = "?"
"""Stands for a value that cannot be computed again, or was not the same each time. It equals nothing, itself included."""
SECRET_PREFIX = "DBT_ENV_SECRET"  # noqa: S105 (a prefix of names)
"""The beginning of the names of environment variables that dbt keeps secret."""
WHOLE = "*"
"""The key that stands for a whole object: printed, iterated over or passed on."""

_DIGEST_BYTES = 6
_MAX_KEY_BYTES = 64
GRAPH_SECTIONS = (
    "exposures",
    "functions",
    "groups",
    "metrics",
    "nodes",
    "saved_queries",
    "semantic_models",
    "sources",
)
"""The keys of dbt's `graph`. It has others where a template puts them in."""
_UNSTABLE = frozenset(
    {
        "_event_status",
        "_pre_injected_sql",
        "batch",
        "build_path",
        "compiled",
        "compiled_code",
        "compiled_path",
        "compiled_sql",
        "config_call_dict",
        "created_at",
        "defer_relation",
        "deferred",
        "extra_ctes",
        "extra_ctes_injected",
        "index",
        "invocation_args",
        "previous_batch_results",
        "root_path",
        "state_relation",
        "timing",
        "unrendered_config_call_dict",
    }
)
"""Attributes of a node that change by themselves (from parse to parse, or while dbt builds it), or copy others."""
_BATCH_CONFIG = "__dbt_internal_"
_FREE_FORM = frozenset({"meta", "unrendered_config"})
"""Attributes whose keys are the user's: a null among them means something."""
_HOOK_NAMES = {"pre_hook": "pre-hook", "post_hook": "post-hook"}
"""The names of keys in dbt's config object, and in manifest.json."""


def digest(value: Any) -> str:
    """Return the digest of a value, UNKNOWN for one that has no lasting text."""
    try:
        return _hash(_canonical(value).encode())
    except _NoLastingTextError:
        return UNKNOWN


def env_digest(value: str | None, key: bytes) -> str:
    """Return the digest of an environment variable's value, hashed with a key so that nobody can try out short values."""
    return ABSENT if value is None else _hash(value.encode("utf-8", "surrogateescape"), key[:_MAX_KEY_BYTES])


def mapping_digest(values: Mapping[str, Any], key: str) -> str:
    """Return the digest of what a mapping (`target`, `flags`, variables) holds under a key, or of all it holds."""
    if key == WHOLE:
        return digest(values)
    return digest(values[key]) if key in values else ABSENT


def config_digest(config: Mapping[str, Any], key: str) -> str:
    """Return the digest of what `config.get(key)` finds in a node's `config` of manifest.json."""
    if key in _HOOK_NAMES.values():
        return ABSENT  # dbt's own config object knows these by their other names only
    return mapping_digest(config, _HOOK_NAMES.get(key, key))


def meta_digest(config: Mapping[str, Any], key: str) -> str:
    """Return the digest of what `config.meta_get(key)` finds in a node's `config` of manifest.json."""
    return mapping_digest(config.get("meta") or {}, key)


def model_digest(node: Mapping[str, Any], key: str) -> str:
    """Return the digest of what `model` holds under a key: an attribute, `config.KEY`, or `*` for all of it.

    Takes an entry of manifest.json or dbt's own dictionary of a node: they differ in nulls and in what changes by itself.
    """
    if key == WHOLE:
        return digest(_stable_node(node))
    if key.startswith("config."):
        return _nullable_digest("config", (node.get("config") or {}).get(key.removeprefix("config.")))
    return _nullable_digest(key, _stable_model_attribute(key, node.get(key)))


def graph_digest(manifest: Mapping[str, Any]) -> str:
    """Return the digest of dbt's `graph`, from a manifest.json or from the graph itself.

    Neither the order of its entries counts nor disabled ones: when dbt parses all files, it gives them in another order than
    when it parses some, and leaves some disabled tests among them.
    """
    return digest(
        {
            section: {
                uid: _stable_node(entry)
                for uid, entry in sorted((manifest.get(section) or {}).items())
                if (entry.get("config") or {}).get("enabled") is not False
            }
            for section in GRAPH_SECTIONS
        }
    )


def _stable_model_attribute(key: str, value: Any) -> Any:
    """Return the part of a node's attribute that counts: None if it changes by itself, and no nulls within."""
    if changes_by_itself(key) or value is None:
        return None
    if key in _FREE_FORM:
        return value
    if key == "depends_on" and isinstance(value, Mapping):
        # While dbt builds a node, it adds the macros that the node calls.
        return {"nodes": value.get("nodes") or []}
    if key == "config" and isinstance(value, Mapping):
        value = {name: held for name, held in value.items() if not is_of_a_batch(name)}
    return _without_nulls(value)


def changes_by_itself(key: str) -> bool:
    """Return whether an attribute of a node changes from parse to parse, or while dbt builds the node."""
    return key in _UNSTABLE


def is_of_a_batch(key: str) -> bool:
    """Return whether dbt puts a key into the configuration for the time of one batch of a microbatch model."""
    return str(key).startswith(_BATCH_CONFIG)


def answer_digest(answer: Any) -> str:
    """Return the digest of a warehouse's answer: a table (the order of its rows counts), columns, relations, a value."""
    return digest(answer)


def text_digest(text: str) -> str:
    """Return the digest that stands for a text too long to be kept."""
    return _hash(text.encode("utf-8", "surrogateescape"))


def _hash(content: bytes, key: bytes = b"") -> str:
    return blake2b(content, digest_size=_DIGEST_BYTES, key=key).hexdigest()


def _stable_node(node: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: _stable_model_attribute(key, node[key]) for key in sorted(node)}
    return {key: value for key, value in found.items() if value is not None}


def _nullable_digest(key: str, value: Any) -> str:
    # dbt leaves nulls out of `model`, so that a null and nothing are the same there.
    return ABSENT if value is None else digest(value if key in _FREE_FORM else _without_nulls(value))


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            name: held if name in _FREE_FORM else _without_nulls(held)
            for name, held in value.items()
            if held is not None
        }
    if isinstance(value, (list, tuple)):
        return [_without_nulls(each) for each in value]
    return value


class _NoLastingTextError(Exception):
    """A value has no text that would be the same in another process."""


def _canonical(value: Any) -> str:
    # A template may iterate over a mapping, so the order of its keys counts.
    return json.dumps(_plain(value), separators=(",", ":"))


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Mapping):
        return {_key(key): _plain(held) for key, held in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, (set, frozenset)):
        return sorted((_plain(each) for each in value), key=_canonical)
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    return _plain_object(value)


def _plain_object(value: Any) -> Any:
    if hasattr(value, "column_types") and hasattr(value, "rows"):  # a table of agate
        types = [type(each).__name__ for each in value.column_types]
        return {"columns": _plain(value.column_names), "types": types, "rows": _rows(value.rows)}
    if hasattr(value, "identifier") and hasattr(value, "render"):  # a relation of dbt
        return [_plain(part) for part in (value.database, value.schema, value.identifier, value.type)]
    if callable(getattr(value, "to_dict", None)):
        return _plain(value.to_dict())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    text = str(value)
    if hex(id(value)) in text:
        raise _NoLastingTextError
    return text


def _rows(rows: Iterable[Iterable[Any]]) -> list[list[Any]]:
    return [[_plain(cell) for cell in row] for row in rows]


def _key(key: Any) -> str:
    """Return a key as JSON spells it."""
    return key if isinstance(key, str) else json.dumps(_plain(key))
