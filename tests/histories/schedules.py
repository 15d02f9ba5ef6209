"""The schedules of the jobs of a history: what their ticks answer, and what the runs after them must then do."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from types import SimpleNamespace

import dagster as dg

from dagster_sao.core.decision.plan import Plan
from dagster_sao.core.decision.plan_tests import tests_of_selection
from dagster_sao.orchestration.automation.schedule import JobSchedule, ScheduledJob
from dagster_sao.orchestration.project.orchestrated import OrchestratedProject
from dagster_sao.orchestration.runs.config import StateAwareRunConfig

Answer = dg.RunRequest | dg.SkipReason


class Schedules:
    """The schedules of one code server, one for each selection of models."""

    def __init__(
        self, project: OrchestratedProject, repository: dg.RepositoryDefinition, instance: dg.DagsterInstance
    ) -> None:
        self._project, self._repository, self._instance = project, repository, instance
        self._known: dict[frozenset[str], JobSchedule] = {}

    def tick(self, names: frozenset[str]) -> Answer:
        """Return what the schedule of a job of these models answers."""
        if names not in self._known:
            self._known[names] = JobSchedule(self._project, self._job(names))
        context = SimpleNamespace(
            instance_ref=None, instance=self._instance, log=dg.get_dagster_logger(), _repository_def=self._repository
        )
        return self._known[names].tick(context)  # type: ignore[arg-type]

    def _job(self, names: frozenset[str]) -> ScheduledJob:
        loaded = self._project.load()
        assets = {uid: loaded.keys.by_unique_id[uid] for uid in loaded.keys.nodes if uid.rsplit(".", 1)[-1] in names}
        tests = set(tests_of_selection(loaded.project.graph, assets.keys()))
        checks = {key for uid, key in loaded.check_keys.items() if uid in tests}
        return ScheduledJob(
            "job",
            "job_schedule",
            StateAwareRunConfig(state_aware=True),
            {},
            frozenset(assets.values()),
            frozenset(checks & self._repository.asset_graph.asset_check_keys),
            is_stateful=False,
            timezone=None,
            tick_seconds=40.0,
        )


def assert_requested(tick: Answer, plan: Plan, names: AbstractSet[str]) -> None:
    """See that a schedule skips a tick only where the run of the job does nothing, and else requests all that it does."""
    if isinstance(tick, dg.SkipReason):
        does = [*plan.builds, *plan.test_runs, *plan.uncalled]
        assert not does, f"wrongly skipped, as {tick.skip_message!r}: {does}"
    elif tick.asset_selection is not None:
        requested = {key.path[-1] for key in tick.asset_selection}
        missing = names.intersection(uid.rsplit(".", 1)[-1] for uid in plan.builds) - requested
        assert not missing, f"not requested by the schedule: {missing}"
