"""State-aware orchestration for dbt on Dagster: rebuild only what would come out different, and say why."""

from dagster_sao.api import (
    BuildResults,
    ConflictingOptionsError,
    DbtBuildFailed,
    DryRun,
    Explanation,
    Finding,
    Findings,
    NodeResult,
    NodeState,
    NodeStatus,
    NoInstanceError,
    Severity,
    SourceReport,
    SourceReports,
    StateAwareProject,
    TestExplanation,
    TestResult,
    TestState,
    TestStatus,
)
from dagster_sao.orchestration.automation.condition import StateAwareCondition, state_aware
from dagster_sao.orchestration.definitions.build import build_state_aware_definitions
from dagster_sao.orchestration.definitions.component import StateAwareDbtProjectComponent
from dagster_sao.orchestration.definitions.jobs import StateAwareJob, build_state_aware_job
from dagster_sao.orchestration.definitions.settings import StateAwareSettings
from dagster_sao.orchestration.definitions.translator import StateAwareDbtTranslator
from dagster_sao.orchestration.runs.config import StateAwareRunConfig, TestStrategy

__all__ = [
    "BuildResults",
    "ConflictingOptionsError",
    "DbtBuildFailed",
    "DryRun",
    "Explanation",
    "Finding",
    "Findings",
    "NoInstanceError",
    "NodeResult",
    "NodeState",
    "NodeStatus",
    "Severity",
    "SourceReport",
    "SourceReports",
    "StateAwareCondition",
    "StateAwareDbtProjectComponent",
    "StateAwareDbtTranslator",
    "StateAwareJob",
    "StateAwareProject",
    "StateAwareRunConfig",
    "StateAwareSettings",
    "TestExplanation",
    "TestResult",
    "TestState",
    "TestStatus",
    "TestStrategy",
    "build_state_aware_definitions",
    "build_state_aware_job",
    "state_aware",
]
