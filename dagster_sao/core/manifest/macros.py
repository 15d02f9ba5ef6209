"""Which macros a template, a node or a test may call: those that dbt lists, and those that it does not.

dbt lists the macros that a template calls by name. It lists neither a macro that is handed on as a value, nor one that takes
the place of a macro of dbt's own (an override, a strategy, a materialization), which dbt's code calls by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from functools import cached_property
from typing import Any

from dagster_sao.sql.dialects import ADAPTERS, PARENTS
from dagster_sao.sql.jinja_reads import JinjaReads

_NAMES_OF_RELATIONS = frozenset({"generate_alias_name", "generate_database_name", "generate_schema_name"})
"""What these return is part of a node's relation name."""
_CALLED_FOR_TESTS = frozenset({"get_test_sql", "get_unit_test_sql", "get_where_subquery", "should_store_failures"})
"""dbt calls these for each data test, and lists them among the macros of none."""
_CREATES_FUNCTIONS = "materializations/functions"
_UTILITIES = "macros/utils/"
"""Where dbt has its macros for expressions, such as `length`: whoever calls one names it, so all callers are listed."""
_FIXED_MATERIALIZATIONS = frozenset({"table", "view", "seed"})
"""dbt calls the macros of these by name, so what they reach is known; the others choose some while they run."""


class Macros:
    """The macros of one manifest."""

    def __init__(
        self,
        manifest: Mapping[str, Any],
        reads: Callable[[str], JinjaReads],
        dispatching: AbstractSet[str] = frozenset(),
    ) -> None:
        """Take the macros of a manifest.

        `reads` reads a template. `dispatching` are the packages in which dbt looks for its own macros by the project's `dispatch` setting.
        """
        self._macros: Mapping[str, Mapping[str, Any]] = manifest.get("macros") or {}
        self._adapter = str(manifest["metadata"].get("adapter_type") or "")
        self._root = str(manifest["metadata"].get("project_name") or "")
        self._dispatching = dispatching
        self._reads = reads
        self._prefixes = {*ADAPTERS, "default", self._adapter}
        self._called: dict[str, list[str]] = {}

    def __contains__(self, unique_id: object) -> bool:
        return unique_id in self._macros

    def text(self, unique_id: str) -> str:
        """Return a macro's definition."""
        return str(self._macros[unique_id]["macro_sql"])

    def reached_from(self, start: Iterable[str], names: Iterable[str] = ()) -> list[str]:
        """Return the macros that count and are called, directly or not, from `start` or by one of `names`, in a stable order.

        dbt's own do not count, except for generic tests: they change only with dbt, and dbt lists more of them while it builds
        a node than after a parse.
        """
        return sorted(uid for uid in self._reach([*start, *self._mentioned(names)]) if self._counts(uid))

    def called_in_building(self, props: Mapping[str, Any]) -> list[str]:
        """Return the macros of the project and its packages that dbt's own code may call when it builds a node."""
        config = props.get("config") or {}
        materialized = str(config.get("materialized") or props.get("resource_type"))
        own = self.own_materialization(materialized)
        strategies = [
            f"get_incremental_{str(config.get('incremental_strategy') or 'default').replace('+', '_')}_sql",
            f"snapshot_{config.get('strategy')}_strategy",
        ]
        overrides = [uid for uid in self._overrides if self._is_called(uid, materialized, props, is_own=bool(own))]
        return [*own, *self._named(strategies), *overrides]

    def called_in_testing(self) -> list[str]:
        """Return the macros of the project and its packages that dbt's own code calls for each data test."""
        return [*self._named(sorted(_CALLED_FOR_TESTS)), *self.own_materialization("test")]

    def own_materialization(self, materialized: str) -> list[str]:
        """Return the project's or a package's own materialization of this name. dbt lists it among no node's macros."""
        adapters = (self._adapter, PARENTS.get(self._adapter, self._adapter), "default")
        names = {f"materialization_{materialized}_{suffix}" for suffix in adapters}
        return [uid for uid in self.own if str(self._macros[uid]["name"]) in names]

    @cached_property
    def own(self) -> Mapping[str, str]:
        """The macros of the project and its packages with their names, without the prefix of an adapter."""
        return {
            uid: self._base_name(str(macro["name"]))
            for uid, macro in self._macros.items()
            if not is_dbts_own(str(macro["package_name"]))
        }

    def rivals(self, unique_id: str) -> list[str]:
        """Return the macros that dbt may call by the name of this one, itself among them."""
        name = self._base_name(str(self._macros[unique_id]["name"]))
        return sorted({*self._own_by_name.get(name, ()), unique_id})

    def _reach(self, start: Iterable[str]) -> set[str]:
        reached: set[str] = set()
        stack = list(start)
        while stack:
            unique_id = stack.pop()
            if unique_id in self._macros and unique_id not in reached:
                reached.add(unique_id)
                stack.extend(self._calls(unique_id))
        return reached

    def _calls(self, unique_id: str) -> list[str]:
        if unique_id not in self._called:
            self._called[unique_id] = self._called_by(unique_id)
        return self._called[unique_id]

    def _counts(self, unique_id: str) -> bool:
        return unique_id in self.own or str(self._macros[unique_id]["name"]).startswith("test_")

    def _mentioned(self, names: Iterable[str]) -> Iterator[str]:
        for name in names:
            yield from self._by_name.get(self._base_name(name), ())

    def _named(self, names: Iterable[str]) -> Iterator[str]:
        for name in names:
            yield from self._own_by_name.get(self._base_name(name), ())

    def _called_by(self, unique_id: str) -> list[str]:
        macro = self._macros[unique_id]
        listed = list((macro.get("depends_on") or {}).get("macros") or [])
        if unique_id not in self.own:
            return [*listed, *self._own_by_name.get(self._base_name(str(macro["name"])), ())]
        return [*listed, *self._mentioned(self._reads(self.text(unique_id)).names)]

    @cached_property
    def _own_by_name(self) -> Mapping[str, list[str]]:
        own = {name: [uid for uid in macros if uid in self.own] for name, macros in self._by_name.items()}
        return {name: macros for name, macros in own.items() if macros}

    @cached_property
    def _by_name(self) -> Mapping[str, list[str]]:
        found: dict[str, list[str]] = {}
        for unique_id, macro in self._macros.items():
            found.setdefault(self._base_name(str(macro["name"])), []).append(unique_id)
        return found

    @cached_property
    def _overrides(self) -> list[str]:
        """The own macros that have the name of one of dbt's own, and that dbt may call when it builds something."""
        dbts = {self._base_name(str(macro["name"])) for uid, macro in self._macros.items() if uid not in self.own}
        ignored = _NAMES_OF_RELATIONS | _CALLED_FOR_TESTS
        return [
            uid
            for uid, name in self.own.items()
            if name in dbts and name not in ignored and not name.startswith(("test_", "materialization_"))
        ]

    def _is_called(self, unique_id: str, materialized: str, props: Mapping[str, Any], *, is_own: bool) -> bool:
        package, name = str(self._macros[unique_id]["package_name"]), self.own[unique_id]
        # A package's macro hides dbt's own from that package's nodes, the root project's from all.
        if package not in {self._root, props.get("package_name"), *self._dispatching}:
            return False
        if name in self._names_for_functions:
            return props.get("resource_type") == "function"
        if name in self._utilities:
            return name in self._reach_of(materialized)
        if is_own or materialized not in _FIXED_MATERIALIZATIONS:
            return True
        return name in self._reach_of(materialized) or name not in self._reach_of("")

    @cached_property
    def _names_for_functions(self) -> frozenset[str]:
        """The names of dbt's own macros that create functions, which dbt calls by names that it puts together."""
        return frozenset(
            self._base_name(str(macro["name"]))
            for uid, macro in self._macros.items()
            if uid not in self.own and _CREATES_FUNCTIONS in str(macro.get("original_file_path") or "")
        )

    @cached_property
    def _utilities(self) -> frozenset[str]:
        return frozenset(
            self._base_name(str(macro["name"]))
            for macro in self._macros.values()
            if macro["package_name"] == "dbt" and str(macro.get("original_file_path") or "").startswith(_UTILITIES)
        )

    def _reach_of(self, materialized: str) -> frozenset[str]:
        """Return the names of dbt's own macros that a materialization of dbt reaches; all of them do, for no name."""
        if materialized not in self._reaches:
            prefix = f"materialization_{materialized}_" if materialized else "materialization_"
            start = [
                uid
                for uid, macro in self._macros.items()
                if uid not in self.own and str(macro["name"]).startswith(prefix)
            ]
            reached = {self._base_name(str(self._macros[uid]["name"])) for uid in self._reach(start)}
            self._reaches[materialized] = frozenset(reached)
        return self._reaches[materialized]

    def _base_name(self, name: str) -> str:
        """Return a macro's name without the prefix that `adapter.dispatch` adds."""
        prefix, separator, rest = name.partition("__")
        return rest if separator and prefix in self._prefixes else name

    @cached_property
    def _reaches(self) -> dict[str, frozenset[str]]:
        return {}


def is_dbts_own(package: str) -> bool:
    """Return whether a package of macros is dbt's or an adapter's."""
    return package == "dbt" or (package.startswith("dbt_") and package.removeprefix("dbt_") in ADAPTERS)
