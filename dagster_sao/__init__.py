"""State-aware orchestration for dbt on Dagster: rebuild only what would come out different, and say why.

The names are imported when they are used: `dagster_sao.sql`, which dbt loads too, must not bring Dagster with it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from dagster_sao.collector import paused_collector

if TYPE_CHECKING:
    from dagster_sao.api import (
        BuildResults,
        ConflictingOptionsError,
        DataTestReport,
        DataTestReports,
        DbtBuildFailed,
        DryRun,
        Explanation,
        Finding,
        Findings,
        NodeResult,
        NodeState,
        NodeStatus,
        NoInstanceError,
        Notice,
        NoticeStatus,
        Severity,
        SourceNotices,
        SourceReport,
        SourceReports,
        StateAwareProject,
        TestExplanation,
        TestResult,
        TestState,
        TestStatus,
    )
    from dagster_sao.core.manifest.policy import EfficientTesting
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
    "DataTestReport",
    "DataTestReports",
    "DbtBuildFailed",
    "DryRun",
    "EfficientTesting",
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

_HOMES = {
    "EfficientTesting": "dagster_sao.core.manifest.policy",
    "StateAwareCondition": "dagster_sao.orchestration.automation.condition",
    "StateAwareDbtProjectComponent": "dagster_sao.orchestration.definitions.component",
    "StateAwareDbtTranslator": "dagster_sao.orchestration.definitions.translator",
    "StateAwareJob": "dagster_sao.orchestration.definitions.jobs",
    "StateAwareRunConfig": "dagster_sao.orchestration.runs.config",
    "StateAwareSettings": "dagster_sao.orchestration.definitions.settings",
    "TestStrategy": "dagster_sao.orchestration.runs.config",
    "build_state_aware_definitions": "dagster_sao.orchestration.definitions.build",
    "build_state_aware_job": "dagster_sao.orchestration.definitions.jobs",
    "state_aware": "dagster_sao.orchestration.automation.condition",
}
"""Where a name is defined, unless in `dagster_sao.api`."""


def __getattr__(name: str) -> object:
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    with paused_collector():
        found = getattr(import_module(_HOMES.get(name, "dagster_sao.api")), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
