"""The relations that a run may write: claimed before it builds, held with a heartbeat, and released when a build is recorded."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager
from dataclasses import dataclass

from dagster_sao.core.decision.plan import Plan
from dagster_sao.core.manifest.graph import ProjectGraph
from dagster_sao.orchestration.dbt.commands import Invocations
from dagster_sao.orchestration.dbt.process import DbtProcess
from dagster_sao.orchestration.leases.leases import LEASES_LOST, Leases
from dagster_sao.orchestration.leases.writers import RunWriters
from dagster_sao.orchestration.private.dagster_internals import step_key
from dagster_sao.orchestration.runs.outcomes import Outcomes
from dagster_sao.orchestration.runs.run_plan import RunPlan
from dagster_sao.orchestration.runs.setup import RunSetup
from dagster_sao.orchestration.sources.second_look import read_directly

_POLL_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a run builds at one time: all that it may, decided while it holds the leases."""

    decided: RunPlan
    builds: tuple[str, ...]
    waiting: frozenset[str]
    """The nodes that others are building, and all nodes below them."""
    held_by: Mapping[str, str]
    """The nodes and functions that others are writing, and the nodes that call such a function, each with the id of their run."""
    taken: frozenset[str]
    """The relations that others hold."""

    @property
    def plan(self) -> Plan:
        """The decisions of this attempt."""
        return self.decided.plan


class Claims:
    """The leases of one run, and who wrote its relations last."""

    def __init__(self, setup: RunSetup, outcomes: Outcomes) -> None:
        """Claim nothing yet. Raises LeaseError or WriterError when the instance's database cannot hold them."""
        self._setup = setup
        self._graph = setup.graph
        self._relations = setup.relations
        self._outcomes = outcomes
        self._leases = Leases(setup.instance, setup.run_id)
        self.writers = RunWriters(
            setup.instance, setup.loaded, self._leases, setup.relations, setup.project.state_name, setup.run_id
        )
        self._process: DbtProcess | None = None

    def heartbeat(self) -> AbstractContextManager[None]:
        """Renew the leases while the block runs, and release them at its end."""
        return self._leases.heartbeat(self._lose, step_key=step_key(self._setup.context), renewed=self._renewed)

    def note_relation(self, unique_id: str, relation_name: str) -> None:
        """Note the relation that dbt writes for a node, where it is another one than the plan's. Raises WriterError."""
        planned = self._graph.nodes[unique_id].relation_name
        if planned and relation_name and relation_name != planned:
            self.writers.wrote_elsewhere(unique_id, relation_name)

    def written_meanwhile(self, unique_ids: Collection[str]) -> frozenset[str]:
        """Return what nodes and tests read that other runs have written since the decision: dbt may have read their rows.

        Raises WriterError.
        """
        graph = self._graph
        nodes, tests = ([uid for uid in unique_ids if uid in known] for known in (graph.nodes, graph.tests))
        return self.writers.written_by_others(read_directly(graph, nodes, tests))

    def watch(self, process: DbtProcess | None) -> None:
        """Stop this dbt process if the leases are lost; None when it has ended."""
        self._process = process

    def attempt(self, decide: Callable[[], RunPlan], invocations: Invocations) -> Attempt:
        """Decide, claim what is to be built, and decide again until nothing more has to be claimed."""
        while True:
            decided = decide()
            plan = decided.plan
            functions = [uid for uid, decision in plan.functions.items() if decision.creates]
            claim = self._leases.claim(self._relations[uid] for uid in (*plan.builds, *functions))
            held_by = self._held_by(claim.held_by, plan.builds, functions)
            below = self._graph.descendants(held_by) & set(plan.decisions) if held_by else set()
            waiting = frozenset(held_by) | below
            builds = tuple(uid for uid in plan.builds if uid not in waiting)
            # A run holds nothing while it waits for something.
            tests = ready_tests(self._graph, plan.test_runs, waiting)
            kept = (*builds, *invocations.functions(builds, tests), *plan.uncalled)
            self._leases.release(self._leases.held - {self._relations[uid] for uid in kept})
            if not claim.granted & self._leases.held:
                return Attempt(decided, builds, waiting, held_by, frozenset(claim.held_by))

    def _held_by(self, taken: Mapping[str, str], builds: Sequence[str], functions: Sequence[str]) -> dict[str, str]:
        """Return the nodes and functions whose relations others hold: `taken`, with the runs that hold them."""
        found = {uid: taken[self._relations[uid]] for uid in (*builds, *functions) if self._relations[uid] in taken}
        # Two runs may create two versions of one function, and a caller must be built with the version of its own run.
        for uid in builds:
            for function in self._graph.nodes[uid].functions:
                if function in found:
                    found.setdefault(uid, found[function])
        return found

    def waits(self, attempt: Attempt) -> Iterator[tuple[str, str]]:
        """Yield each node that waits, and a sentence with the reason."""
        for uid in (uid for uid in self._graph.nodes if uid in attempt.waiting):
            run_id = attempt.held_by.get(uid)
            what = "it" if self._relations[uid] in attempt.taken else "a function that it calls"
            yield uid, f"Waits for run {run_id[:8]}, which is building {what}" if run_id else "Waits for its upstreams"

    def wait_until_free(self, relations: AbstractSet[str]) -> None:
        """Return when others have released one of `relations`."""
        while len(self._leases.holders(relations)) == len(relations) and not self._outcomes.lost:
            time.sleep(_POLL_SECONDS)

    def hold(self, functions: Iterable[str]) -> None:
        """Return when this run may create functions, and no other run does."""
        relations = {self._relations[uid] for uid in functions}
        while (taken := self._leases.claim(relations).held_by) and not self._outcomes.lost:
            self._leases.release()
            self.wait_until_free(frozenset(taken))

    def still_holds(self, unique_ids: Iterable[str]) -> bool:
        """Return whether this run still holds the leases of nodes and functions; otherwise it stops writing."""
        if not self._outcomes.lost and not self._leases.keep(self._relations[uid] for uid in unique_ids):
            self._lose(LEASES_LOST)
        return not self._outcomes.lost

    def _renewed(self) -> None:
        if (process := self._process) is not None:
            process.leases_renewed()

    def _lose(self, why: str) -> None:
        """Stop writing, in any thread: others may build what this run was building."""
        self._outcomes.lose(why)
        if (process := self._process) is not None:
            # In a thread of its own: dbt may wait for the one that reads its log.
            threading.Thread(target=process.stop, name="dagster_sao-stop", daemon=True).start()


def ready_tests(graph: ProjectGraph, tests: Iterable[str], unsettled: AbstractSet[str]) -> list[str]:
    """Return the tests among `tests` that read and call nothing `unsettled`."""
    return [
        uid
        for uid in tests
        if unsettled.isdisjoint(graph.tests[uid].about) and unsettled.isdisjoint(graph.tests[uid].functions)
    ]
