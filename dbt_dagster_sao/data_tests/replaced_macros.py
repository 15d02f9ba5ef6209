"""Which of dbt's macros a project replaces, and what that means for its data tests. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable

# The macros that turn a test's query into its answer.
_MAKE_ANSWERS = frozenset({"get_test_sql", "get_limit_subquery_sql", "should_store_failures", "statement"})
_MATERIALIZATION = "materialization_test_"


def replaced_macros(macros: Iterable[tuple[str, str]], internal: Collection[str]) -> frozenset[str]:
    """Return the names, without the prefix of an adapter, of dbt's macros that the project or a package replaces.

    `macros` are the names of all macros, each with its package. `internal` are the packages of dbt and of the adapter.

    >>> sorted(replaced_macros([("default__statement", "dbt"), ("statement", "shop"), ("cents", "shop")], {"dbt"}))
    ['statement']
    """
    names = [(_plain_name(name), package in internal) for name, package in macros]
    of_dbt = {name for name, is_of_dbt in names if is_of_dbt}
    # A materialization for one adapter comes before dbt's, which has another name.
    return frozenset(
        name for name, is_of_dbt in names if not is_of_dbt and (name in of_dbt or name.startswith(_MATERIALIZATION))
    )


def why_dbt_answers(replaced: Iterable[str]) -> str:
    """Return in one sentence why dbt must run every data test itself; empty where it need not.

    >>> why_dbt_answers(["statement", "test_unique"])
    "The project replaces dbt's macro statement, which turns a test's query into its answer."
    """
    found = next((name for name in sorted(replaced) if name in _MAKE_ANSWERS or name.startswith(_MATERIALIZATION)), "")
    return f"The project replaces dbt's macro {found}, which turns a test's query into its answer." if found else ""


def _plain_name(name: str) -> str:
    prefix, separator, rest = name.partition("__")
    return rest if separator and prefix else name
