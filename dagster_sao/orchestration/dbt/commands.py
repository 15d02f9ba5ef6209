"""The dbt commands of a run: which nodes each builds, which tests it runs, and with which arguments."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from dagster_sao.core.decision.decide import Decision
from dagster_sao.core.decision.materializations import heeds_full_refresh
from dagster_sao.core.decision.view_rules import is_dropped, is_materialized_view
from dagster_sao.core.manifest.build_settings import in_utc
from dagster_sao.core.manifest.functions import needed
from dagster_sao.core.manifest.graph import ProjectGraph
from dagster_sao.orchestration import clock
from dagster_sao.orchestration.project.dbt_arguments import for_tests
from dagster_sao.orchestration.project.loaded import LoadedProject
from dagster_sao.orchestration.selection.words import LONGEST_SELECTION, SelectionWords

_EVERYTHING = "fqn:*"
_BUILD, _TEST = "build", "test"
_OF_ONE_TYPE = {"run": "model", "seed": "seed", "snapshot": "snapshot"}
"""The type of resource that a command builds, where it leaves out all others. `build` alone creates functions."""


@dataclass
class Invocation:
    """One dbt command of a run, with its nodes and tests in dbt's order."""

    nodes: list[str] = field(default_factory=list)
    tests: list[str] = field(default_factory=list)
    full_refresh: bool | None = None
    """Whether the command has `--full-refresh`; None where it makes no difference."""
    batches: str | None = None
    """From which event time on microbatch models are built, empty for dbt's own choice; None where there are none."""
    uncalled: list[str] = field(default_factory=list)
    """Functions that are created with it, beside those that its nodes and tests call."""


class Invocations:
    """The dbt commands that carry out decisions."""

    def __init__(self, loaded: LoadedProject, words: SelectionWords) -> None:
        """Choose nothing yet."""
        self._words = words
        self._loaded = loaded
        self._graph: ProjectGraph = loaded.project.graph

    def choose(
        self, order: Sequence[str], decisions: Mapping[str, Decision], uncalled: Sequence[str] = ()
    ) -> list[Invocation]:
        """Return the commands that build and test what is in `order`, as `Plan.in_order` returns it.

        One is enough unless some nodes need a full refresh or earlier batches, or the selection is too long for a command line. Each holds a
        piece of the order, so a reader of a node, or a node that a test gates, comes in the same command or a later one. `uncalled` are
        functions to create that nothing in `order` calls.
        """
        builds = {uid for uid in order if uid in self._graph.nodes}
        # `dbt build` runs a unit test with its model only.
        alone = [uid for uid in order if uid not in builds and self._model(uid) and self._model(uid) not in builds]
        first = [Invocation(tests=alone)] if alone else []
        # A seed reads nothing, and many of them are refreshed where a model is not.
        seeds = [uid for uid in order if self._is_seed(uid)]
        others = [uid for uid in order if uid not in {*alone, *seeds}]
        chosen = [*first, *self._pieces([*seeds, *others], decisions)]
        if uncalled:
            # In the last command: they may read what is built before.
            chosen = chosen or [Invocation()]
            chosen[-1].uncalled = list(uncalled)
        return chosen

    def functions(self, nodes: Iterable[str], tests: Iterable[str], but: Iterable[str] = ()) -> list[str]:
        """Return the functions that `nodes` and `tests` call, in the order of their creation, without the functions in `but`."""
        graph = self._graph
        callers = [*(graph.nodes[uid].functions for uid in nodes), *(graph.tests[uid].functions for uid in tests)]
        return list(needed(graph.functions, callers, but))

    def arguments(
        self,
        invocation: Invocation,
        nodes: Sequence[str],
        tests: Sequence[str],
        args: Sequence[str],
        functions: Sequence[str] = (),
    ) -> list[str]:
        """Return the dbt arguments that build `nodes` and run `tests`: the part of an invocation that can still be built and run.

        dbt's own order creates `functions` before their callers. Raises InvalidSelectionError where no arguments make dbt do
        exactly this.
        """
        arguments = list(args)
        only = _OF_ONE_TYPE.get(arguments[0])
        if only and (functions or any(self._graph.nodes[uid].resource_type != only for uid in nodes)):
            arguments[0] = _BUILD
        elif not nodes and not functions and arguments[:1] == [_BUILD]:
            # `dbt build` leaves out the tests of what is below one that fails, and the unit tests of what it does not build.
            arguments = [_TEST, *for_tests(arguments)]
        if nodes and invocation.full_refresh and "--full-refresh" not in arguments:
            arguments.append("--full-refresh")
        if nodes and invocation.batches:
            # dbt wants both, and rounds up to the end of the batch.
            arguments += ["--event-time-start", invocation.batches, "--event-time-end", _moment(clock.now())]
        if self._is_everything(nodes, tests, functions):
            selected = _EVERYTHING
        else:
            selected = " ".join(map(self._words.word, (*functions, *nodes, *tests)))
        arguments += ["--select", selected]
        exclude = self._words.excluded({*functions, *nodes, *tests}, selected)
        return [*arguments, "--exclude", " ".join(exclude)] if exclude else arguments

    def _pieces(self, order: Iterable[str], decisions: Mapping[str, Decision]) -> Iterator[Invocation]:
        current, size = Invocation(), 0
        created: set[str] = set()  # the functions that this piece or one before it creates
        unit_tests: list[str] = []
        for uid in order:
            if self._model(uid):
                unit_tests.append(uid)  # comes with its model, which is next
                continue
            node = self._graph.nodes.get(uid)
            of_node = [test for test in unit_tests if self._model(test) == uid]
            words = [*map(self._words.word, of_node), self._words.word(uid)]
            called = self.functions([uid] if node else (), of_node if node else [uid], created)
            length = sum(len(word) + 1 for word in (*words, *map(self._words.word, called)))
            refresh, batches = self._steps(uid, decisions)
            is_other_kind = _differ(refresh, current.full_refresh) or _differ(batches, current.batches)
            if is_other_kind or self._is_dropped_unseen(uid, current) or size + length > LONGEST_SELECTION:
                yield current
                current, size = Invocation(), 0
            current.tests += of_node
            (current.tests if node is None else current.nodes).append(uid)
            unit_tests = [test for test in unit_tests if test not in of_node]
            current.full_refresh = refresh if current.full_refresh is None else current.full_refresh
            current.batches = batches if current.batches is None else current.batches
            created.update(called)
            size += length
        if current.nodes or current.tests:
            yield current

    def _steps(self, uid: str, decisions: Mapping[str, Decision]) -> tuple[bool | None, str | None]:
        """Return whether a node needs a full refresh, and the start of its batches; None each where it makes no difference."""
        node = self._graph.nodes.get(uid)
        if node is None:
            return None, None
        decision = decisions[uid]
        start = decision.batches_from
        return (
            decision.full_refresh if heeds_full_refresh(node.materialized) else None,
            None if node.settings.batches is None else _moment(start) if start is not None else "",
        )

    def _is_dropped_unseen(self, uid: str, current: Invocation) -> bool:
        """Return whether an invocation drops a node's relation, and dbt would assume that it is still there.

        dbt notes the views that are dropped with a table, and not those that are dropped with a materialized view.
        """
        drops_views = self._loaded.project.traits.drops_dependent_views
        if not (drops_views and current.full_refresh and uid in self._graph.nodes):
            return False
        replaced = {one for one in current.nodes if is_materialized_view(self._graph.nodes[one])}
        return bool(replaced) and is_dropped(uid, self._graph) and not replaced.isdisjoint(self._graph.ancestors([uid]))

    def _is_seed(self, uid: str) -> bool:
        node = self._graph.nodes.get(uid)
        return node is not None and node.resource_type == "seed"

    def _model(self, uid: str) -> str:
        """Return the model of a unit test, empty for anything else."""
        test = self._graph.tests.get(uid)
        return test.model if test is not None else ""

    def _is_everything(self, nodes: Sequence[str], tests: Sequence[str], functions: Collection[str]) -> bool:
        graph = self._graph
        wanted, there = (
            (len(nodes), len(tests), len(functions)),
            (len(graph.nodes), len(graph.tests), len(graph.functions)),
        )
        return wanted == there and self._is_whole

    @cached_property
    def _is_whole(self) -> bool:
        """Whether the graph has all of the dbt project, so that dbt's own word for everything means the same."""
        nodes = self._loaded.manifest["nodes"].values()
        buildable = sum(1 for node in nodes if node["resource_type"] in {"model", "seed", "snapshot"})
        tests = sum(1 for node in nodes if node["resource_type"] == "test")
        unit_tests = len(self._loaded.manifest.get("unit_tests") or {})
        ephemerals = {uid for node in self._graph.nodes.values() for uid in node.ephemerals}
        functions = len(self._loaded.manifest.get("functions") or {})
        is_all_built = len(self._graph.nodes) == buildable - len(ephemerals) and len(self._graph.functions) == functions
        return is_all_built and len(self._graph.tests) == tests + unit_tests


def _differ(one: object, other: object) -> bool:
    return None not in {one, other} and one != other


def _moment(moment: datetime) -> str:
    """Return a moment as dbt reads it: in UTC, without a time zone."""
    return f"{in_utc(moment):%Y-%m-%dT%H:%M:%S}"
