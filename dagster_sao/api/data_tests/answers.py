"""How the data tests of a selection would be answered if all of it were rebuilt: by the code that answers them in dbt.

The selection counts as built in one command. A due test counts as passed before the models that read its model, and any other
test has its last verdict, if that stands.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import dagster as dg

from dagster_sao.api.data_tests.compiled import compiled_manifest
from dagster_sao.api.data_tests.values import DataTestReport, DataTestReports
from dagster_sao.api.dry_run import DryRun, make_dry_run
from dagster_sao.api.request import BuildRequest
from dagster_sao.core.dbt_settings import is_off, setting
from dagster_sao.core.decision.decide_tests import TestAction
from dagster_sao.core.decision.plan_tests import tests_of_selection
from dagster_sao.core.decision.run_ledger import Ledger
from dagster_sao.core.manifest.policy import EfficientTesting
from dagster_sao.core.project import Project
from dagster_sao.core.state.state import VerdictStatus
from dagster_sao.orchestration.dbt.efficient_testing import TestSettings, data_test_request, label_in_proofs
from dagster_sao.orchestration.messages import sentence
from dagster_sao.orchestration.project.loaded import LoadedProject
from dagster_sao.orchestration.project.orchestrated import OrchestratedProject
from dagster_sao.orchestration.project.probed_sources import open_session
from dagster_sao.orchestration.state.contradictions import found_contradiction
from dagster_sao.warehouse.dbt_private.adapter import internal_packages
from dagster_sao.warehouse.dbt_private.environment import environment_of_dbt
from dagster_sao.warehouse.errors import WarehouseError
from dagster_sao.warehouse.session import WarehouseSession
from dbt_dagster_sao.data_tests.columns import comparable_types
from dbt_dagster_sao.data_tests.efficient import EfficientTests, why_only_its_query
from dbt_dagster_sao.data_tests.handover import AnsweredTest, DataTestRequest, How
from dbt_dagster_sao.data_tests.proofs import Entry, TestProofs
from dbt_dagster_sao.data_tests.replaced_macros import Macro, replaced_macros

_IF_IT_PASSES = "if it passes"
_STORE_FAILURES = "STORE_FAILURES"
_FIRST_WORDS = frozenset({"a", "an", "it", "its", "no", "nothing", "only", "the", "this"})
"""The first words of reasons. Any other first word is the name of a column or a model, and keeps its case."""


def make_data_test_reports(
    project: OrchestratedProject, instance: dg.DagsterInstance, request: BuildRequest
) -> DataTestReports:
    """Return how the data tests of a selection would be answered.

    Raises InvalidProjectError when dbt cannot compile the selection, else as `make_dry_run` does.
    """
    loaded = project.load()
    graph = loaded.project.graph
    planned = make_dry_run(project, instance, request, loaded)
    read = {*tests_of_selection(graph, planned.decisions.keys())} & planned.tests.keys()
    tests = [uid for uid in graph.tests if uid in read and not graph.tests[uid].is_unit_test]
    reports: Sequence[DataTestReport] = ()
    asked = 0
    if tests:
        manifest = compiled_manifest(project, loaded, {*tests, *_models(planned.decisions, loaded.manifest)})
        with _connected(project, loaded) as session:
            answers = _Answers(
                loaded.project, planned, tests, manifest, session, stores_failures=_stores_failures(project)
            )
            reports = [answers.report(uid) for uid in tests]
        asked = answers.merged_queries + sum(report.how is How.RUN for report in reports)
    contradiction = found_contradiction(instance, project.state_name)
    return DataTestReports(project.name, tuple(reports), asked, contradiction, planned.notes)


class _Answers:
    """The answers to some tests, found from a manifest with the compiled SQL of the tests and of their models."""

    def __init__(  # noqa: PLR0913 (what answers follow from)
        self,
        project: Project,
        planned: DryRun,
        tests: Collection[str],
        manifest: Mapping[str, Any],
        session: WarehouseSession | None,
        *,
        stores_failures: bool,
    ) -> None:
        self._project, self._planned, self._manifest = project, planned, manifest
        self._stores_failures = stores_failures
        adapter = project.graph.adapter_type
        macros = (Macro(m["name"], m["package_name"], m["original_file_path"]) for m in manifest["macros"].values())
        replaced = replaced_macros(macros, internal_packages(adapter))
        self._why_none = replaced.why_dbt_answers
        self._request = self._requested(tests)
        self._proofs = TestProofs(self._request, adapter, self._entry, replaced)
        self._tests = EfficientTests(self._request, adapter, self._entry, self._proofs, stores_failures=stores_failures)
        self._warehouse = _WithoutFailures(manifest, session)
        self._learn(tests)

    @property
    def merged_queries(self) -> int:
        """The number of queries that would each answer several tests."""
        return self._warehouse.asked

    def report(self, uid: str) -> DataTestReport:
        """Return how a test would be answered."""
        answered = self._answered(uid)
        is_proven = answered is not None and answered.how is How.PROVEN
        return DataTestReport(
            unique_id=uid,
            name=self._project.graph.label(uid),
            model=str((self._entry(uid) or {}).get("attached_node") or ""),
            decision=self._planned.tests[uid],
            how=answered.how if answered is not None else How.RUN,
            merged_with=answered.merged - 1 if answered is not None and answered.merged else 0,
            proof=answered.proof if answered is not None else "",
            why_not="" if is_proven else self._why_not_proven(uid),
        )

    def _requested(self, tests: Collection[str]) -> DataTestRequest:
        captured = self._planned.decided.captured
        found = data_test_request(
            TestSettings(EfficientTesting.ALL, verified_share=0),
            self._project,
            captured,
            self._planned.decisions,
            tests,
            {},
            Ledger(self._project, captured).stands,
            self._planned.made_at,
        )
        return found or DataTestRequest()

    def _learn(self, tests: Collection[str]) -> None:
        """Let each due test pass, and each other test whose last answer was a pass."""
        for uid in tests:
            verdict = self._planned.verdicts.get(uid)
            if self._planned.tests[uid].action is not TestAction.REUSE or verdict is None:
                self._proofs.passed(uid, _IF_IT_PASSES)
            elif verdict.status is VerdictStatus.PASS:
                self._proofs.passed(uid, label_in_proofs(verdict, self._planned.made_at))

    def _answered(self, uid: str) -> AnsweredTest | None:
        if self._why_none or self._tests.at_zero(uid) is None:
            return None
        try:
            return self._tests.answer(uid, self._warehouse)
        except Exception:  # noqa: BLE001 (dbt then runs the test, as it does in a run)
            return None

    def _why_not_proven(self, uid: str) -> str:
        entry = self._entry(uid)
        if entry is None:
            return "dbt does not have this test any more: parse the project again."
        if why := self._why_none or why_only_its_query(entry, stores_failures=self._stores_failures):
            return why
        if uid not in self._request.provable:
            return "Its own efficient_testing setting allows no proof."
        try:
            found = self._proofs.prove(uid, self._warehouse)
        except Exception as error:  # noqa: BLE001 (as above)
            return f"Its proof failed: {sentence(error)}"
        return _as_sentence(found) if isinstance(found, str) else ""

    def _entry(self, uid: str) -> Entry | None:
        found: Entry | None = self._manifest["nodes"].get(uid) or self._manifest["sources"].get(uid)
        return found


class _WithoutFailures:
    """A warehouse in which each test passes. It queries the real one only for the columns of relations."""

    def __init__(self, manifest: Mapping[str, Any], session: WarehouseSession | None) -> None:
        self._manifest, self._session = manifest, session
        self.asked = 0

    def columns(self, unique_id: str) -> Mapping[str, str] | None:
        """Return the columns of a relation in order, each with its type; None if the warehouse does not show them."""
        entry = self._manifest["nodes"].get(unique_id) or self._manifest["sources"].get(unique_id)
        session = self._session
        if entry is None or session is None:
            return None
        name = entry.get("identifier") or entry.get("alias") or entry["name"]
        try:
            found = session.columns(entry.get("database"), entry["schema"], name)
        except WarehouseError:
            return None
        # A relation that was never built has none yet.
        return self.comparable(found) or None

    def comparable(self, columns: Mapping[str, str]) -> Mapping[str, str] | None:
        """Return columns with their types, as far as no collation may hide behind these; None if that is not known."""
        session = self._session
        if session is None:
            return None
        try:
            return comparable_types(columns, session.adapter_type, lambda sql: session.execute(sql)[0])
        except WarehouseError:
            return None

    def compiled(self, test: str) -> str | None:
        """Return the compiled SQL of a test, None where dbt compiled none."""
        sql = (self._manifest["nodes"].get(test) or {}).get("compiled_code")
        return str(sql) if sql else None

    def failures(self, sql: str, tests: int) -> Sequence[int]:
        """Return that no test of a merged query has failures."""
        del sql
        self.asked += 1
        return (0,) * tests


@contextmanager
def _connected(project: OrchestratedProject, loaded: LoadedProject) -> Iterator[WarehouseSession | None]:
    """Open a connection to the warehouse, None if that fails: then no column's type is known."""
    with ExitStack() as stack:
        try:
            opened = stack.enter_context(closing(open_session(project, loaded)))
            stack.enter_context(opened.connection())
            session: WarehouseSession | None = opened
        except WarehouseError:
            session = None
        yield session


def _models(selected: Collection[str], manifest: Mapping[str, Any]) -> set[str]:
    return {uid for uid in selected if manifest["nodes"][uid]["resource_type"] == "model"}


def _stores_failures(project: OrchestratedProject) -> bool:
    """Return whether runs of a project store the failures of tests that do not say so themselves."""
    given = setting(_STORE_FAILURES, environment_of_dbt(project.dbt_project.project_dir))
    return "--store-failures" in project.dbt_args or not is_off(given)


def _as_sentence(text: str) -> str:
    is_word = text.split(" ", maxsplit=1)[0] in _FIRST_WORDS
    begin = text[:1].upper() if is_word else text[:1]
    return f"{begin}{text[1:].removesuffix('.')}."
