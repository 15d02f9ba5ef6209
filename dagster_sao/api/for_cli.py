"""What the command line uses beside the project and its results. It imports nothing from below this layer."""

from dagster_sao.orchestration.dbt.executable import find_dbt
from dagster_sao.orchestration.messages import sentence
from dagster_sao.orchestration.project.dbt_arguments import read_variables
from dagster_sao.orchestration.project.parsing import changed_since_parse
from dagster_sao.orchestration.runs.config import RUN_OPTIONS, RunOption
from dagster_sao.orchestration.selection.resolve import StateMode
from dagster_sao.warehouse.redaction import MaskedStream, masked, masked_values

__all__ = [
    "RUN_OPTIONS",
    "MaskedStream",
    "RunOption",
    "StateMode",
    "changed_since_parse",
    "find_dbt",
    "masked",
    "masked_values",
    "read_variables",
    "sentence",
]
