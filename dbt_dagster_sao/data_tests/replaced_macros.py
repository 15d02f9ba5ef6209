"""The macros of dbt that a project replaces, and what that means for its data tests. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import PurePath

# The macros that turn a test's query into its answer.
_MAKE_ANSWERS = frozenset({"get_test_sql", "get_limit_subquery_sql", "should_store_failures", "statement"})
_MATERIALIZATION = re.compile(r"materialization_(table|test|view)_.*")
_TEST = "materialization_test"
_BUILD_NOTHING = frozenset(
    {"freshness.sql", "generic", "generic_test_sql", "get_custom_name", "unit_test_sql", "utils"}
)
"""The folders and files of dbt's macros whose effect is in compiled SQL or in the name of a relation, or that ask how fresh a
source is. All others may build something."""


@dataclass(frozen=True, slots=True)
class Macro:
    """A macro of the manifest."""

    name: str
    package: str
    file: str


@dataclass(frozen=True, slots=True)
class ReplacedMacros:
    """The macros of dbt that the project or a package replaces, without the prefix of an adapter."""

    names: frozenset[str] = frozenset()
    of_builds: frozenset[str] = frozenset()
    """The replaced macros that may have a part in building a relation."""

    @property
    def why_dbt_answers(self) -> str:
        """Why dbt must run every data test itself, in one sentence; empty where it need not."""
        found = next(iter(sorted(self.names & {*_MAKE_ANSWERS, _TEST})), "")
        return f"The project replaces dbt's macro {found}, which turns a test's query into its answer." if found else ""

    @property
    def why_rows_may_differ(self) -> str:
        """Why a relation may hold other rows than its query gives, as the end of a sentence; empty where it does not."""
        found = next(iter(sorted(self.of_builds)), "")
        return f"the project replaces dbt's macro {found}" if found else ""


def replaced_macros(macros: Iterable[Macro], internal: Collection[str]) -> ReplacedMacros:
    """Return what is replaced among all macros of a manifest. `internal` are the packages of dbt and of the adapter.

    >>> of_dbt = Macro("default__create_table_as", "dbt", "macros/relations/table/create.sql")
    >>> replaced_macros([of_dbt, Macro("create_table_as", "shop", "macros/own.sql")], {"dbt"}).why_rows_may_differ
    "the project replaces dbt's macro create_table_as"
    """
    known = list(macros)
    own = {_plain_name(macro.name) for macro in known if macro.package not in internal}
    of_dbt = [macro for macro in known if macro.package in internal and _plain_name(macro.name) in own]
    builds = {_plain_name(macro.name) for macro in of_dbt if _BUILD_NOTHING.isdisjoint(PurePath(macro.file).parts)}
    packages: dict[str, set[str]] = {}
    for macro in known:
        packages.setdefault(_plain_name(macro.name), set()).add(macro.package)
    # A generic test of one package may be replaced in another.
    tests = {name for name, homes in packages.items() if name.startswith("test_") and len(homes) > 1}
    return ReplacedMacros(
        frozenset(_plain_name(macro.name) for macro in of_dbt) | tests, frozenset(builds - tests - {_TEST})
    )


def _plain_name(name: str) -> str:
    if found := _MATERIALIZATION.fullmatch(name):  # its name ends with that of an adapter
        return f"materialization_{found[1]}"
    prefix, separator, rest = name.partition("__")
    return rest if separator and prefix else name
