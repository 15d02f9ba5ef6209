"""State-aware orchestration for dbt on Dagster: rebuild only what would come out different, and say why."""

from dagster_sao.api import DbtBuildFailed, StateAwareProject
from dagster_sao.orchestration.automation.condition import StateAwareCondition, state_aware
from dagster_sao.orchestration.definitions.build import build_state_aware_definitions
from dagster_sao.orchestration.definitions.component import StateAwareDbtProjectComponent
from dagster_sao.orchestration.definitions.jobs import StateAwareJob, build_state_aware_job
from dagster_sao.orchestration.definitions.settings import StateAwareSettings
from dagster_sao.orchestration.definitions.translator import StateAwareDbtTranslator
from dagster_sao.orchestration.runs.config import StateAwareRunConfig, TestStrategy

__all__ = [
    "DbtBuildFailed",
    "StateAwareCondition",
    "StateAwareDbtProjectComponent",
    "StateAwareDbtTranslator",
    "StateAwareJob",
    "StateAwareProject",
    "StateAwareRunConfig",
    "StateAwareSettings",
    "TestStrategy",
    "build_state_aware_definitions",
    "build_state_aware_job",
    "state_aware",
]
