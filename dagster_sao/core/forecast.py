"""How long a plan will take, from how long its nodes took the last time."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from statistics import median

from dagster_sao.core.decision.decide import Action
from dagster_sao.core.decision.plan import Plan
from dagster_sao.core.state.state import LastBuild, StateSnapshot


@dataclass(frozen=True, slots=True)
class Forecast:
    """The predicted cost of a plan. All times are in seconds."""

    threads: int
    """How many nodes are built at once."""
    node_seconds: Mapping[str, float] = field(default_factory=dict)
    """The expected time of each node to build, in topological order."""
    guessed: frozenset[str] = frozenset()
    """The nodes that were never built. Their expected time is the median of the project, 0 where nothing was built."""
    wall_seconds: float = 0.0
    """The time from the start of the first build to the end of the last."""
    critical_path_seconds: float = 0.0
    """The lower bound for any number of threads: the longest chain of builds that wait for each other."""
    widest_wave: int = 0
    """The number of nodes in the largest wave of the plan."""
    saved_seconds: float = 0.0
    """The time that the reused nodes took when they were last built."""

    @property
    def total_seconds(self) -> float:
        """The time that one thread would need."""
        return sum(self.node_seconds.values())

    @property
    def parallelism(self) -> float:
        """How many threads can be kept busy on average: the total over the critical path; 0 with nothing to wait for."""
        return self.total_seconds / self.critical_path_seconds if self.critical_path_seconds else 0.0


def make_forecast(plan: Plan, state: StateSnapshot, threads: int, *, longest_first: bool = False) -> Forecast:
    """Return what `plan` is predicted to cost when `threads` nodes are built at once, by wave or the longest path first.

    Raises ValueError for fewer threads than one.
    """
    if threads < 1:
        msg = f"A build needs at least one thread, not {threads}"
        raise ValueError(msg)
    known = {uid: _seconds(build) for uid, build in state.builds.items() if uid in plan.graph.nodes}
    guess = median(known.values()) if known else 0.0
    builds = {uid: known.get(uid, guess) for uid in plan.builds}
    return Forecast(
        threads=threads,
        node_seconds=builds,
        guessed=frozenset(builds.keys() - known.keys()),
        wall_seconds=_Simulation(plan, builds, _rest_of_paths(plan, builds) if longest_first else {}).run(threads),
        critical_path_seconds=_critical_path(plan, builds),
        widest_wave=max(map(len, plan.waves), default=0),
        saved_seconds=sum(
            known.get(uid, 0.0) for uid, decision in plan.decisions.items() if decision.action is Action.REUSE
        ),
    )


def _seconds(build: LastBuild) -> float:
    return max(0.0, build.seconds)


def _critical_path(plan: Plan, builds: Mapping[str, float]) -> float:
    ends: dict[str, float] = {}
    # Order also holds through nodes that are not built: dbt keeps it when it leaves them out.
    for uid, node in plan.graph.nodes.items():
        ends[uid] = max((ends[p] for p in node.parents if p in ends), default=0.0) + builds.get(uid, 0.0)
    return max(ends.values(), default=0.0)


def _rest_of_paths(plan: Plan, builds: Mapping[str, float]) -> dict[str, float]:
    """Return, for each node, the seconds from its start to the end of the last of its descendants."""
    rest: dict[str, float] = {}
    for uid in reversed([*plan.graph.nodes]):
        rest[uid] = builds.get(uid, 0.0) + max((rest[child] for child in plan.graph.children[uid]), default=0.0)
    return rest


class _Simulation:
    """A simulated build: each free thread takes the first node that waits for nothing, by the longest rest of a path, then by wave."""

    def __init__(self, plan: Plan, builds: Mapping[str, float], rest: Mapping[str, float]) -> None:
        self._graph = plan.graph
        self._builds = builds
        self._order = {uid: (-rest.get(uid, 0.0), index) for index, wave in enumerate(plan.waves) for uid in wave}
        self._waits_for = {
            uid: sum(parent in plan.graph.nodes for parent in node.parents) for uid, node in plan.graph.nodes.items()
        }

    def run(self, threads: int) -> float:
        """Return when the last build ends, counted from the start of the first."""
        now = 0.0
        ready = [(self._order[uid], uid) for uid in self._freed(self._first())]
        heapq.heapify(ready)
        running: list[tuple[float, str]] = []
        while ready or running:
            while ready and len(running) < threads:
                _, uid = heapq.heappop(ready)
                heapq.heappush(running, (now + self._builds[uid], uid))
            now, ended = heapq.heappop(running)
            for uid in self._freed(self._released_by(ended)):
                heapq.heappush(ready, (self._order[uid], uid))
        return now

    def _first(self) -> list[str]:
        return [uid for uid, count in self._waits_for.items() if count == 0]

    def _released_by(self, unique_id: str) -> list[str]:
        released = []
        for child in self._graph.children[unique_id]:
            self._waits_for[child] -= 1
            if self._waits_for[child] == 0:
                released.append(child)
        return released

    def _freed(self, released: Iterable[str]) -> Iterator[str]:
        """Yield the nodes to build among `released` and below them through nodes that are not built, which end at once."""
        stack = list(released)
        while stack:
            uid = stack.pop()
            if uid in self._builds:
                yield uid
            else:
                stack += self._released_by(uid)
