"""State-aware orchestration for dbt on Dagster: rebuild only what would come out different, and say why."""

from dagster_sao.api import DbtBuildFailed, StateAwareProject
from dagster_sao.orchestration.component import StateAwareDbtProjectComponent
from dagster_sao.orchestration.conditions import StateAwareCondition, state_aware
from dagster_sao.orchestration.definitions import build_state_aware_definitions
from dagster_sao.orchestration.settings import StateAwareSettings
from dagster_sao.orchestration.translator import StateAwareDbtTranslator

__all__ = [
    "DbtBuildFailed",
    "StateAwareCondition",
    "StateAwareDbtProjectComponent",
    "StateAwareDbtTranslator",
    "StateAwareProject",
    "StateAwareSettings",
    "build_state_aware_definitions",
    "state_aware",
]
