"""dbt's own settings, as the environment has them."""

from __future__ import annotations

from collections.abc import Mapping

_PREFIXES = ("DBT_ENGINE_", "DBT_")
_YES = frozenset({"1", "on", "t", "true", "y", "yes"})
_NO = frozenset({"", "0", "f", "false", "n", "no", "none", "off"})


def setting(name: str, environ: Mapping[str, str]) -> str | None:
    """Return a setting of dbt from the environment, such as `TARGET` in DBT_ENGINE_TARGET or DBT_TARGET."""
    return next((value for prefix in _PREFIXES if (value := environ.get(f"{prefix}{name}"))), None)


def is_on(value: object) -> bool:
    """Return whether dbt takes the value of a switch for yes."""
    return str(value).lower() in _YES


def is_off(value: object) -> bool:
    """Return whether dbt takes the value of a setting for no, or for none."""
    return str(value).lower() in _NO
