"""What a run can be told: in the launchpad, in a job's config, and by the command line."""

# No `from __future__ import annotations` here: Dagster reads the annotations of a config at run time.
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

MOST_RETRIES = 100
MOST_THREADS = 1000
LONGEST_RETRY_DELAY = 86_400.0


class TestStrategy(str, Enum):
    """When the tests of what is built are run."""

    __test__ = False  # pytest takes it for a test otherwise

    IMMEDIATE = "immediate"
    """In dbt's order: a failed test of error severity stops what is below the model."""
    DEFERRED = "deferred"
    """After all models are built, so that none waits for a test."""
    SKIP = "skip"
    """Not at all."""


class StateAwareRunConfig(dg.Config):
    """The config of a run of a project's models."""

    state_aware: bool | None = Field(
        default=None,
        description=(
            "Whether to build only what needs it and report the rest as reused. By default yes in a run of a sensor or a"
            " state-aware job, no in one that you start by hand."
        ),
    )
    select: str = Field(
        default="", description="What to build of the run's assets, in dbt's selection syntax. Empty: all."
    )
    exclude: str = Field(default="", description="What of it not to build, in dbt's selection syntax.")
    selector: str = Field(default="", description="A yaml selector in place of select and exclude.")
    full_refresh: bool = Field(default=False, description="Build everything selected anew, incremental models too.")
    force: list[str] = Field(
        default_factory=list,
        description="What to build also when nothing changed, each in dbt's selection syntax.",
    )
    refresh_sources: bool = Field(
        default=True, description="Whether to look first for new data in the sources above the selection."
    )
    test_strategy: TestStrategy = Field(default=TestStrategy.IMMEDIATE, description="When tests are run.")
    retries: int = Field(
        default=0, ge=0, le=MOST_RETRIES, description="How often to try again what failed, within the run."
    )
    retry_delay_seconds: float = Field(
        default=30.0,
        ge=0,
        le=LONGEST_RETRY_DELAY,
        description="Seconds before the first retry. Each later one waits twice as long.",
    )
    fail_fast: bool = Field(default=False, description="Start no further model after the first failure.")
    vars: dict[str, Any] = Field(default_factory=dict, description="Values of `var()`, over those of the project.")
    target: str | None = Field(default=None, description="The target of the dbt profile to build in.")
    threads: int | None = Field(default=None, gt=0, le=MOST_THREADS, description="How many models dbt builds at once.")
    state: str | None = Field(
        default=None,
        description="A folder with the manifest of another environment, for `state:` selection and `defer`.",
    )
    defer: bool = Field(default=False, description="Read what is not built here from the environment of `state`.")
    favor_state: bool = Field(default=False, description="With defer: read it from there also where it exists here.")

    @property
    def state_path(self) -> Path | None:
        """The folder of another environment's manifest."""
        return Path(self.state) if self.state else None


def read_run_config(context: dg.AssetExecutionContext) -> StateAwareRunConfig:
    """Return the config of a run, the defaults where its assets take another one."""
    given = context.op_execution_context.op_config
    return StateAwareRunConfig(**given) if isinstance(given, dict) and "state_aware" in given else StateAwareRunConfig()


def with_job_config(context: dg.AssetExecutionContext, config: StateAwareRunConfig) -> StateAwareRunConfig:
    """Return the config of a run with its job's values for what the run was not told.

    Dagster takes the job's config only where a run is told nothing at all: else the rest would be the op's defaults,
    and a state-aware job that is started with no more than a `full_refresh` would not be state-aware.
    """
    op = context.op_execution_context
    job = dg.validate_run_config(context.job_def, {}) if context.job_def.run_config else {}
    default = _op_config(job, op.op_def.name)
    given = _op_config(context.run.run_config, op.op_handle.name)
    missing = {
        name: default[name] for name in StateAwareRunConfig.model_fields if name in default and name not in given
    }
    return StateAwareRunConfig(**{**config.model_dump(), **missing})


def _op_config(run_config: Mapping[str, Any], op: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = run_config.get("ops", {}).get(op, {}).get("config") or {}
    return found
