"""dbt's runner of data tests, which answers some tests without a query of their own."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

from dbt_dagster_sao.data_tests.columns import comparable_types
from dbt_dagster_sao.data_tests.efficient import EfficientTests
from dbt_dagster_sao.data_tests.handover import AnsweredTest, DataTestRequest, How
from dbt_dagster_sao.data_tests.proofs import TestProofs
from dbt_dagster_sao.data_tests.replaced_macros import Macro, replaced_macros
from dbt_dagster_sao.private_points.nodes import internal_packages
from dbt_dagster_sao.private_points.point import Wrapper
from dbt_dagster_sao.recorder import Session, current, stack


def execute_data_test(original: Wrapper) -> Wrapper:
    """Answer a data test by a proof or with others, where that is requested and possible; else let dbt run it."""

    @wraps(original)
    def execute(self: Any, data_test: Any, manifest: Any) -> Any:
        session = current.session
        tests = None if session is None else _tests_of(session, self, manifest)
        if session is None or tests is None:
            return original(self, data_test, manifest)
        test = data_test.unique_id
        at_zero = tests.at_zero(test)
        answered = _answered(tests, test, _Warehouse(self, data_test, manifest)) if at_zero is not None else None
        if answered is not None and answered.how is not How.RUN and at_zero is not None:
            session.write(answered.to_json())
            _note(tests, test, 0)
            return _result(at_zero, answered)
        result = original(self, data_test, manifest)
        _note(tests, test, result.failures)
        if answered is not None:
            verified = replace(answered, failures=int(result.failures))
            if verified.is_contradicted:
                tests.contradicted()
            session.write(verified.to_json())
        return result

    return execute


def _answered(tests: EfficientTests, test: str, warehouse: _Warehouse) -> AnsweredTest | None:
    # A trace has the reads of this test alone.
    frame, stack.frame = stack.frame, None
    try:
        return tests.answer(test, warehouse)
    except Exception:  # noqa: BLE001 (dbt then runs the test, as ever)
        return None
    finally:
        stack.frame = frame


def _note(tests: EfficientTests, test: str, failures: Any) -> None:
    # An answer that is not noted proves nothing.
    with suppress(Exception):
        tests.found(test, int(failures))


def _result(at_zero: tuple[bool, bool], answered: AnsweredTest) -> Any:
    from dbt.task.test import TestResultData

    message = answered.proof if answered.how is How.PROVEN else f"one query for {answered.merged} tests"
    return TestResultData(0, *at_zero, {"_message": f"{answered.how.value}: {message}"})


def _tests_of(session: Session, runner: Any, manifest: Any) -> EfficientTests | None:
    with session.data_tests_lock:
        path, session.test_request = session.test_request, None
        if path is not None:
            try:
                session.data_tests = _read_request(path, runner, manifest)
            except Exception:  # noqa: BLE001 (dbt then runs each test, as ever)
                session.data_tests = None
    found: EfficientTests | None = session.data_tests
    return found


def _read_request(path: Path, runner: Any, manifest: Any) -> EfficientTests | None:
    from dbt.flags import get_flags

    request = DataTestRequest.from_json(path.read_text(encoding="utf-8"))
    macros = (Macro(macro.name, macro.package_name, macro.original_file_path) for macro in manifest.macros.values())
    replaced = replaced_macros(macros, internal_packages(runner.config.credentials.type))
    if replaced.why_dbt_answers:
        return None

    known: dict[str, Mapping[str, Any]] = {}

    # Older releases of dbt have no functions.
    functions = getattr(manifest, "functions", {})

    def entry(unique_id: str) -> Mapping[str, Any] | None:
        node = manifest.nodes.get(unique_id) or manifest.sources.get(unique_id) or functions.get(unique_id)
        if node is None or unique_id in known:
            return known.get(unique_id)
        found: Mapping[str, Any] = node.to_dict(omit_none=True)
        # The entry of a test stays; a model gets its compiled SQL when dbt comes to it.
        if unique_id.startswith("test."):
            known[unique_id] = found
        return found

    adapter = runner.adapter.type()
    proofs = TestProofs(request, adapter, entry, replaced)
    return EfficientTests(request, adapter, entry, proofs, stores_failures=bool(get_flags().STORE_FAILURES))


class _Warehouse:
    """The connection of the thread that runs a test."""

    def __init__(self, runner: Any, test: Any, manifest: Any) -> None:
        self._runner, self._test, self._manifest = runner, test, manifest

    def compiled(self, unique_id: str) -> str | None:
        """Return the compiled SQL of a test or model, None where it cannot be compiled now."""
        if unique_id == self._test.unique_id:
            return str(self._test.compiled_code)
        # A copy: dbt compiles the test itself when it comes to it. A view that is not built stays as it is.
        node = copy.deepcopy(self._manifest.nodes[unique_id])
        try:
            compiled = self._runner.compiler.compile_node(node, self._manifest, {}, write=False)
        except Exception:  # noqa: BLE001 (dbt reports it when it comes to this test)
            return None
        return str(compiled.compiled_code)

    def columns(self, unique_id: str) -> Mapping[str, str] | None:
        """Return the columns of a relation in order, each with its type, as far as no collation may hide behind it."""
        node = self._manifest.nodes.get(unique_id) or self._manifest.sources[unique_id]
        adapter = self._runner.adapter
        try:
            relation = adapter.Relation.create_from(self._runner.config, node)
            found = {column.column: column.data_type for column in adapter.get_columns_in_relation(relation)}
        except Exception:  # noqa: BLE001 (what is not known proves nothing)
            return None
        return self.comparable(found)

    def comparable(self, columns: Mapping[str, str]) -> Mapping[str, str] | None:
        """Return columns with their types, as far as no collation may hide behind these; None if that is not known."""
        try:
            return comparable_types(columns, self._runner.adapter.type(), self.ask)
        except Exception:  # noqa: BLE001 (what is not known proves nothing)
            return None

    def failures(self, sql: str, tests: int) -> Sequence[Any]:
        """Return the one row of a merged query: the failures of so many tests. Raises whatever the adapter raises."""
        del tests
        return self.ask(sql)

    def ask(self, sql: str) -> Sequence[Any]:
        """Return the one row that a query gives. Raises whatever the adapter raises."""
        adapter = self._runner.adapter
        hook = adapter.pre_model_hook(self._test.config)
        try:
            _, table = adapter.execute(sql, auto_begin=True, fetch=True)
        finally:
            adapter.post_model_hook(self._test.config, hook)
        (row,) = table.rows
        return tuple(row.values())
