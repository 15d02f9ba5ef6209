"""Proofs of data tests within one invocation of dbt: what passed, and what follows from it. Knows nothing of dbt's classes."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from dbt_dagster_sao.data_tests.handover import DataTestRequest
from dbt_dagster_sao.data_tests.replaced_macros import ReplacedMacros

if TYPE_CHECKING:
    from dagster_sao.sql.proofs import Known, Proof, Property, QueryProofs, Relation

Entry = Mapping[str, Any]
"""A node, source or test as in `manifest.json`."""
_PASSED_NOW = "passed in this run"
_NO_MACROS = ReplacedMacros()


def depends_on(entry: Entry | None) -> list[str]:
    """Return the unique ids of what a node or test reads, none where there is no entry.

    >>> depends_on({"depends_on": {"nodes": ["model.shop.orders"]}}), depends_on(None)
    (['model.shop.orders'], [])
    """
    return list(((entry or {}).get("depends_on") or {}).get("nodes") or ())


class Warehouse(Protocol):
    """What proofs ask dbt and the warehouse, in the thread that runs a test."""

    def compiled(self, unique_id: str) -> str | None:
        """Return the compiled SQL of a test or model, None where it cannot be compiled now."""

    def columns(self, unique_id: str) -> Mapping[str, str] | None:
        """Return the columns of a relation in order, each with its type, as the catalog spells both; None if not known.

        It is another one, or an empty text, if a collation may hide behind its name.
        """

    def comparable(self, columns: Mapping[str, str]) -> Mapping[str, str] | None:
        """Return columns in the same way, where these and their types are known; None if it cannot be found out."""


class TestProofs:
    """What the tests of an invocation have shown, and which others follow from it."""

    __test__ = False  # pytest takes it for a test otherwise

    def __init__(
        self,
        request: DataTestRequest,
        adapter: str,
        entry: Callable[[str], Entry | None],
        replaced: ReplacedMacros = _NO_MACROS,
    ) -> None:
        """Begin with the tests that passed before. `entry` returns the manifest's entry of a unique id.

        `replaced` are the macros of dbt that the project replaces.
        """
        self._request, self._adapter, self._entry = request, adapter, entry
        self._replaced = replaced
        self._lock = threading.Lock()
        self._known: dict[str, dict[str, Known]] = {}
        self._columns: dict[str, Mapping[str, str] | None] = {}
        self._queries: dict[str, tuple[int, QueryProofs]] = {}
        self._above: dict[str, frozenset[str]] = {}
        for test, label in request.passed.items():
            self._learn(test, label)

    def passed(self, test: str, label: str = _PASSED_NOW) -> None:
        """Note that a test found no failures in this invocation."""
        if test in self._request.premises:
            self._learn(test, label)

    def prove(self, test: str, warehouse: Warehouse) -> Proof | str:
        """Return the proof that a test finds no failures, or in one sentence why there is none."""
        from dagster_sao.sql.built_rows import why_rows_may_differ
        from dagster_sao.sql.proofs import NotProvable, wanted_property

        entry = self._entry(test)
        model_id = (entry or {}).get("attached_node") or ""
        model = self._entry(model_id)
        if entry is None or model is None:
            return "The test is not about one model."
        if replaced := self._replaced_macro(entry):
            return f"The project replaces dbt's macro {replaced}."
        if model_id not in self._request.builds | self._request.views:
            return f"{model['name']} is not built in this run."
        wanted = wanted_property(entry, self._relation_key)
        where = str((entry.get("config") or {}).get("where") or "")
        if not isinstance(wanted, NotProvable) and (enforced := self._by_constraints(model_id, model, wanted, where)):
            return enforced
        if why := why_rows_may_differ(model) or self._replaced.why_rows_may_differ:
            return f"The rows of {model['name']} may differ from its query's: {why}."
        if isinstance(wanted, NotProvable):
            return wanted.reason
        query = self._query(model_id, model, warehouse)
        found = query.prove(wanted, where) if query is not None else NotProvable(f"{model['name']} cannot be compiled.")
        return found.reason if isinstance(found, NotProvable) else found

    def _enforced(self, unique_id: str, model: Entry) -> tuple[Known, ...]:
        """Return the properties that constraints ensure, for a table that is built in this invocation."""
        from dagster_sao.sql.proofs import enforced_properties

        is_built_by_dbt = unique_id in self._request.builds and not self._replaced.why_rows_may_differ
        return enforced_properties(model, self._adapter) if is_built_by_dbt else ()

    def _by_constraints(self, model_id: str, model: Entry, wanted: Property, where: str) -> Proof | None:
        """Return the proof that a property of a table follows from its constraints alone."""
        from dagster_sao.sql.proofs import Proof, QueryProofs, Relation, contract_types

        known = self._enforced(model_id, model)
        if not known:
            return None
        types = contract_types(model, self._adapter)
        relations = {"built": Relation(str(model["name"]), tuple(types), known, types)}
        found = QueryProofs("select * from built", self._adapter, relations).prove(wanted, where)
        return found if isinstance(found, Proof) else None

    def _learn(self, test: str, label: str) -> None:
        from dagster_sao.sql.proofs import Known, NotProvable, known_property

        entry = self._entry(test)
        about = (entry or {}).get("attached_node") or ""
        if entry is None or not about or self._replaced_macro(entry):
            return
        found = known_property(entry, self._relation_key)
        if not isinstance(found, NotProvable):
            with self._lock:
                self._known.setdefault(about, {})[test] = Known(found, test, label)

    def _query(self, model_id: str, model: Entry, warehouse: Warehouse) -> QueryProofs | None:
        """Return the analysis of a model's query, made anew when more is known about its inputs."""
        from dagster_sao.sql.proofs import QueryProofs

        with self._lock:
            mark = sum(len(self._known.get(uid, ())) for uid in self._relied_on(model_id))
        cached = self._queries.get(model_id)
        if cached is not None and cached[0] == mark:
            return cached[1]
        is_built = model_id in self._request.builds
        sql = model.get("compiled_code") if is_built else warehouse.compiled(model_id)
        if not sql:
            return None
        parents = list(self._parents(model))
        keys = Counter(map(self._relation_key, parents))
        relations = {
            key: self._relation(parent, warehouse)
            for parent in parents
            # Two names that differ only in case may be two relations.
            if (key := self._relation_key(parent)) and keys[key] == 1
        }
        query = QueryProofs(sql, self._adapter, relations)
        self._queries[model_id] = mark, query
        return query

    def _relation(self, unique_id: str, warehouse: Warehouse) -> Relation:
        from dagster_sao.sql.proofs import Relation

        entry = self._entry(unique_id) or {}
        query = self._query(unique_id, entry, warehouse) if self._has_rows_of_query(unique_id) else None
        if unique_id not in self._columns:
            self._columns[unique_id] = self._columns_of(unique_id, query, warehouse)
        columns = self._columns[unique_id]
        with self._lock:
            known = tuple(self._known.get(unique_id, {}).values())
        if not self._continues_on_error(entry):
            known += self._enforced(unique_id, entry)
        rows = query.rows if query is not None else None
        name = str(entry.get("name"))
        if columns is None:
            return Relation(name, known=known, rows=rows)
        types = {column: kind for column, kind in columns.items() if kind}
        return Relation(name, tuple(columns), known, types, rows)

    def _columns_of(self, unique_id: str, query: QueryProofs | None, warehouse: Warehouse) -> Mapping[str, str] | None:
        """Return the columns of a relation, from the query that made it in this invocation if that leaves no doubt."""
        # The query of a view that is not built now may have had parents with other columns.
        made_by = query.columns if query is not None and unique_id in self._request.builds else None
        return warehouse.columns(unique_id) if made_by is None else warehouse.comparable(made_by)

    def _has_rows_of_query(self, unique_id: str) -> bool:
        """Return whether a relation certainly holds what its query gives in this invocation."""
        from dagster_sao.sql.built_rows import why_rows_may_differ

        entry = self._entry(unique_id)
        if entry is None or unique_id not in self._request.builds | self._request.views:
            return False
        return not (self._continues_on_error(entry) or why_rows_may_differ(entry) or self._replaced.why_rows_may_differ)

    @staticmethod
    def _continues_on_error(model: Entry) -> bool:
        """Return whether dbt builds the children of a model even if it could not build the model."""
        return (model.get("config") or {}).get("on_error") == "continue"

    def _relied_on(self, model_id: str) -> frozenset[str]:
        """Return the relations whose tests say something about a model's rows: its parents, and their inputs."""
        if model_id not in self._above:
            parents = list(self._parents(self._entry(model_id) or {}))
            further = (self._relied_on(parent) for parent in parents if self._has_rows_of_query(parent))
            self._above[model_id] = frozenset(parents).union(*further)
        return self._above[model_id]

    def _parents(self, model: Entry) -> Iterator[str]:
        """Yield the relations that a model reads, ephemeral models replaced by what they read."""
        stack, seen = depends_on(model), set()
        while stack:
            parent = stack.pop()
            entry = self._entry(parent)
            if parent in seen or entry is None or entry.get("resource_type") == "function":
                continue
            seen.add(parent)
            if (entry.get("config") or {}).get("materialized") == "ephemeral":
                stack.extend(depends_on(entry))
            else:
                yield parent

    def _relation_key(self, unique_id: str) -> str | None:
        from dagster_sao.sql.compiled_sql import relation_key

        entry = self._entry(unique_id)
        name = (entry or {}).get("relation_name")
        return relation_key(str(name), self._adapter) if name else None

    def _replaced_macro(self, test: Entry) -> str:
        name = str((test.get("test_metadata") or {}).get("name") or "")
        used = {f"test_{name}", "get_where_subquery", "get_test_sql", "should_store_failures"}
        return next((macro for macro in sorted(self._replaced.names) if macro in used), "")
