"""State-aware orchestration for dbt on Dagster: rebuild only what would come out different, and say why."""

from dagster_sao.api import DbtBuildFailed, StateAwareProject
from dagster_sao.orchestration.component import StateAwareDbtProjectComponent
from dagster_sao.orchestration.conditions import StateAwareCondition, state_aware
from dagster_sao.orchestration.definitions import build_state_aware_definitions
from dagster_sao.orchestration.jobs import StateAwareJob, build_state_aware_job
from dagster_sao.orchestration.run_config import StateAwareRunConfig, TestStrategy
from dagster_sao.orchestration.settings import StateAwareSettings
from dagster_sao.orchestration.translator import StateAwareDbtTranslator

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
