"""The settings that Python and `defs.yaml` have in common."""

# No `from __future__ import annotations` here: Dagster reads the annotations of a component at run time.
from dataclasses import dataclass, field
from typing import Annotated

import dagster as dg
from dagster.components.resolved.model import Resolver

from dagster_sao.core.durations import shown
from dagster_sao.core.errors import InvalidPolicyError
from dagster_sao.core.manifest.policy import EfficientTesting
from dagster_sao.orchestration.dbt.efficient_testing import DEFAULT_VERIFIED_SHARE, TestSettings
from dagster_sao.orchestration.dbt.invocation_folders import DEFAULT_KEPT, MOST_KEPT
from dagster_sao.orchestration.definitions.jobs import StateAwareJob

_DEFAULT_INTERVAL_SECONDS = 30
_LONGEST_SECONDS = 604_800


@dataclass
class StateAwareSettings(dg.Resolvable):
    """How often a project's sensors run, which sources they do not probe, and the project's jobs."""

    freshness_interval_seconds: Annotated[
        int, Resolver.default(description="Seconds between two looks at the sources.", examples=[30, 300])
    ] = _DEFAULT_INTERVAL_SECONDS
    automation_interval_seconds: Annotated[
        int, Resolver.default(description="Seconds between two decisions about the models.", examples=[30, 300])
    ] = _DEFAULT_INTERVAL_SECONDS
    tick_seconds: Annotated[
        float,
        Resolver.default(description="Seconds a look at the sources may take; the next one goes on from there."),
    ] = 40.0
    sensors_enabled: Annotated[
        bool,
        Resolver.default(description="Whether the sensors run from the start, without being switched on in the UI."),
    ] = False
    loaded_by_dagster: Annotated[
        list[str],
        Resolver.default(
            description=(
                "Sources that a Dagster asset loads, as `source.table` or `source.*`. They are not probed: that asset's own"
                " materialization is their state."
            ),
            examples=[["stripe.payments", "dlt.*"]],
        ),
    ] = field(default_factory=list)

    probe_target: Annotated[
        str | None,
        Resolver.default(
            description=(
                "The target of the dbt profile that sources are probed with, such as one with a small virtual warehouse."
                " By default the one that dbt builds with."
            ),
            examples=["probes"],
        ),
    ] = None

    kept_dbt_folders: Annotated[
        int,
        Resolver.default(
            description=(
                "How many of the folders are kept that dbt writes below `target/` each time that a run starts it, and as many"
                f" of runs that failed: 0 to {MOST_KEPT}."
            ),
            examples=[DEFAULT_KEPT],
        ),
    ] = DEFAULT_KEPT

    efficient_testing: Annotated[
        EfficientTesting,
        Resolver.default(
            description=(
                "How to save queries of data tests: `off`, `reuse` (proofs), `aggregate` (several tests of a relation in one"
                " query) or `all`."
            )
        ),
    ] = EfficientTesting.AGGREGATE

    verify_proofs: Annotated[
        float,
        Resolver.default(
            description="The share of proven tests that are run all the same, to check the proofs: 0 to 1.",
            examples=[DEFAULT_VERIFIED_SHARE],
        ),
    ] = DEFAULT_VERIFIED_SHARE

    warm_runs: Annotated[
        bool,
        Resolver.default(
            description=(
                "Whether the code server forks the processes of runs, of all that it launches, from one that has imported Dagster and"
                " dbt, instead of starting a new Python for each. On Linux."
            )
        ),
    ] = True

    jobs: Annotated[
        list[StateAwareJob],
        Resolver.default(
            description="Jobs over parts of the project, each with a schedule if it has one.",
            examples=[[{"name": "nightly", "select": "tag:nightly", "schedule": "0 2 * * *"}]],
        ),
    ] = field(default_factory=list)

    def check(self) -> None:
        """Raise InvalidPolicyError for a number that has no meaning."""
        for name, least in (
            ("freshness_interval_seconds", 1),
            ("automation_interval_seconds", 1),
            ("tick_seconds", 0.1),
        ):
            value = getattr(self, name)
            whole = "whole " if isinstance(least, int) else ""
            # NaN is in no range.
            if (
                not _is_number(value)
                or (whole and not isinstance(value, int))
                or not least <= value <= _LONGEST_SECONDS
            ):
                msg = f"`{name}` is {shown(value)}: use a {whole}number of seconds from {least} to {_LONGEST_SECONDS}."
                raise InvalidPolicyError(msg)
        kept: object = self.kept_dbt_folders
        if not isinstance(kept, int) or isinstance(kept, bool) or not 0 <= kept <= MOST_KEPT:
            msg = f"`kept_dbt_folders` is {shown(kept)}: use a number from 0 to {MOST_KEPT}."
            raise InvalidPolicyError(msg)
        try:
            EfficientTesting(self.efficient_testing)
        except ValueError:
            modes = ", ".join(mode.value for mode in EfficientTesting)
            msg = f"`efficient_testing` is {shown(self.efficient_testing)}: use one of {modes}."
            raise InvalidPolicyError(msg) from None
        share = self.verify_proofs
        if not _is_number(share) or not 0 <= share <= 1:
            msg = f"`verify_proofs` is {shown(share)}: use a share from 0 to 1."
            raise InvalidPolicyError(msg)

    @property
    def test_settings(self) -> TestSettings:
        """How the runs of the project answer data tests, unless a run or a test says otherwise."""
        return TestSettings(EfficientTesting(self.efficient_testing), self.verify_proofs)

    @property
    def default_sensor_status(self) -> dg.DefaultSensorStatus:
        """The status that the sensors have until somebody switches them."""
        return dg.DefaultSensorStatus.RUNNING if self.sensors_enabled else dg.DefaultSensorStatus.STOPPED


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
