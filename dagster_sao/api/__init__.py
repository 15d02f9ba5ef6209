"""Drive a state-aware dbt project from Python: plan, build, explain, reset.

Above the Dagster layer, and below the command line, which uses nothing else.
"""

from dagster_sao.api.data_tests.values import DataTestReport, DataTestReports
from dagster_sao.api.doctor.findings import Finding, Findings, Severity
from dagster_sao.api.dry_run import DryRun
from dagster_sao.api.errors import ConflictingOptionsError, DbtBuildFailed, NoInstanceError
from dagster_sao.api.explain.explanation import Explanation
from dagster_sao.api.explain.explanation_of_tests import TestExplanation
from dagster_sao.api.explain.node_state import NodeState
from dagster_sao.api.explain.verdicts import TestState
from dagster_sao.api.project import StateAwareProject
from dagster_sao.api.results.values import BuildResults, NodeResult, NodeStatus, TestResult, TestStatus
from dagster_sao.api.sources import SourceNotices, SourceReport, SourceReports
from dagster_sao.orchestration.sources.notices import Notice, NoticeStatus

__all__ = [
    "BuildResults",
    "ConflictingOptionsError",
    "DataTestReport",
    "DataTestReports",
    "DbtBuildFailed",
    "DryRun",
    "Explanation",
    "Finding",
    "Findings",
    "NoInstanceError",
    "NodeResult",
    "NodeState",
    "NodeStatus",
    "Notice",
    "NoticeStatus",
    "Severity",
    "SourceNotices",
    "SourceReport",
    "SourceReports",
    "StateAwareProject",
    "TestExplanation",
    "TestResult",
    "TestState",
    "TestStatus",
]
