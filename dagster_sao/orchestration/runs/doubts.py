"""Reasons why a success of dbt is not what the plan asked for: it is then recorded as a failure.

dbt reads the project anew in each command, so it may not be the project that the plan was made from.
"""

from __future__ import annotations

from dagster_sao.core.code.fingerprint import Fingerprint
from dagster_sao.core.decision.view_rules import is_materialized_view
from dagster_sao.orchestration.dbt.build_results import not_refreshed
from dagster_sao.orchestration.dbt.process import DbtEvent
from dagster_sao.orchestration.dbt.sightings import Sightings
from dagster_sao.orchestration.runs.outcomes import Outcomes
from dagster_sao.orchestration.runs.recorder import Recorder
from dagster_sao.orchestration.runs.setup import RunSetup
from dagster_sao.orchestration.state.functions import RunFunctions


def started_badly(hook: str) -> str:
    """Return why nothing counts that dbt did after a hook of `on-run-start` failed: it may have lacked what hooks prepare.

    >>> started_badly("operation.shop.shop-on-run-start-0")
    'on-run-start failed (shop-on-run-start-0), so nothing that dbt built or tested after it counts.'
    """
    return f"on-run-start failed ({hook.rsplit('.', maxsplit=1)[-1]}), so nothing that dbt built or tested after it counts."


class Doubts:
    """The doubts about the results of one run's dbt commands."""

    def __init__(self, setup: RunSetup, outcomes: Outcomes, recorder: Recorder, functions: RunFunctions) -> None:
        """Doubt nothing yet."""
        self._graph, self._project = setup.graph, setup.loaded.project
        self._outcomes, self._recorder, self._functions = outcomes, recorder, functions

    def of_build(self, uid: str, event: DbtEvent, seen: Sightings) -> str:
        """Return why a node does not have what a build of the plan gives it; empty where it has."""
        if uid not in self._graph.nodes:
            return ""
        name = self._graph.label(uid)
        if missing := self._not_created_for(uid, seen.code(uid)):
            return (
                f"dbt built {name} without creating {', '.join(missing)} first, so with other code than the project's."
            )
        if why := self._not_refreshed(uid, event):
            return f"{name}: {why}."
        return self.of_command(uid, seen)

    def of_command(self, uid: str, seen: Sightings) -> str:
        """Return why a node, test or function did not find what the plan has for it: relations, and what hooks prepare."""
        if seen.failed_start:
            return started_badly(seen.failed_start)
        if not (moved := seen.moved(uid)):
            return ""
        names = ", ".join(self._graph.label(one) for one in moved)
        return (
            f"For {self._graph.label(uid)}, dbt used other relations of {names} than this run's manifest has: the project has"
            " changed since the manifest was parsed. Parse the project again, and reload the code location."
        )

    def _not_refreshed(self, uid: str, event: DbtEvent) -> str:
        """Return why dbt did not refresh a materialized view that it calls a success; empty for any other node."""
        if not is_materialized_view(self._graph.nodes[uid]):
            return ""
        state = self._recorder.state
        was_there = uid in state.builds and uid not in state.missing_relations
        # dbt creates its indexes after it, so of what it created, it reports the same as of what it altered.
        is_created = self._outcomes.decision(uid).full_refresh or self._outcomes.was_dropped(uid)
        return not_refreshed(str(event.raw["data"].get("status") or ""), was_there=was_there and not is_created)

    def _not_created_for(self, uid: str, read: Fingerprint | None) -> list[str]:
        """Return the names of the functions that a node calls and that dbt has not created before it.

        `read` is the code that dbt read, which may call others than the plan's.
        """
        missing = self._functions.missing_among(self._graph.nodes[uid].functions)
        planned = self._project.fingerprints[uid].functions
        return [self._graph.label(function) for function in missing] + sorted(
            (read.functions if read else planned) - planned
        )
