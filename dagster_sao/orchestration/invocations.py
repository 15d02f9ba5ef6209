"""Which dbt invocations a run makes: what each builds, what it tests, and how dbt is told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from dagster_sao.core.decide import Decision, Reason
from dagster_sao.core.graph import ProjectGraph
from dagster_sao.orchestration.project import LoadedProject

# One argument of a command may hold 128 KiB on Linux.
_LONGEST_SELECTION = 100_000
_REFRESHABLE = frozenset({"incremental", "seed"})
_FOR_CODE = frozenset({Reason.REQUESTED, Reason.NEVER_BUILT, Reason.CODE_CHANGED, Reason.RELATION_MISSING})


@dataclass
class Invocation:
    """One dbt command of a run."""

    nodes: list[str] = field(default_factory=list)
    tests: list[str] | None = None
    """The tests to run; None for all that read a node which is built, as dbt chooses by itself."""
    full_refresh: bool | None = None
    unit_tests_of: list[str] = field(default_factory=list)
    """With `tests`: the nodes whose unit tests are run too, where their code is new."""


class Invocations:
    """The dbt commands that carry out decisions."""

    def __init__(self, loaded: LoadedProject, decisions: Mapping[str, Decision]) -> None:
        """Choose nothing yet."""
        self._loaded = loaded
        self._graph: ProjectGraph = loaded.project.graph
        self._decisions = decisions

    def choose(
        self, builds: Sequence[str], tests: Iterable[str] | None, *, unit_tests_of: Iterable[str] = ()
    ) -> list[Invocation]:
        """Return the commands that build `builds`, parents first: all that a node reads comes in its own or an earlier one.

        One is enough unless some nodes need a full refresh or the selection is too long for a command line. With None
        for `tests` dbt chooses the tests by itself; else just these are run, each with the last of what it reads, and
        the unit tests of `unit_tests_of`.
        """
        chosen = list(self._of_nodes(builds))
        if tests is None:
            return chosen
        home = {uid: invocation for invocation in chosen for uid in invocation.nodes}
        order = {id(invocation): index for index, invocation in enumerate(chosen)}
        alone = Invocation(tests=[])
        for invocation in chosen:
            invocation.tests = []
        for uid in unit_tests_of:
            home.get(uid, alone).unit_tests_of.append(uid)
        for uid in sorted(tests):
            read = [home[parent] for parent in self._graph.tests[uid].parents if parent in home]
            last = max(read, key=lambda invocation: order[id(invocation)], default=alone)
            (last.tests if last.tests is not None else []).append(uid)
        return [part for invocation in (*chosen, alone) for part in self._split_tests(invocation)]

    def arguments(self, invocation: Invocation, nodes: Sequence[str], args: Sequence[str]) -> list[str]:
        """Return the dbt arguments that build `nodes`, those of the invocation that can still be built."""
        arguments = list(args)
        if not nodes and arguments[:1] == ["build"]:
            # `dbt build` leaves out the tests of what is below one that fails, and these models are all built.
            arguments = ["test", *(argument for argument in arguments[1:] if argument != "--full-refresh")]
        if invocation.full_refresh and "--full-refresh" not in arguments:
            arguments.append("--full-refresh")
        tests_code = any(self._decisions[uid].reason in _FOR_CODE for uid in nodes)
        if invocation.tests is None:
            if arguments[:1] == ["build"] and not tests_code:
                # Unit tests run on data of their own, so only code can change their result.
                arguments += ["--exclude-resource-type", "unit_test"]
            selection = [] if self._is_everything(nodes) else [self._selector(uid) for uid in nodes]
        else:
            selection = [self._selector(uid) for uid in nodes] + [self._test_selector(uid) for uid in invocation.tests]
            selection += self._unit_tests(invocation.unit_tests_of)
        return [*arguments, "--select", " ".join(selection)] if selection else arguments

    def _of_nodes(self, builds: Sequence[str]) -> Iterator[Invocation]:
        current, size = Invocation(), 0
        for uid in builds:
            node = self._graph.nodes[uid]
            refresh = self._decisions[uid].full_refresh if node.materialized in _REFRESHABLE else None
            is_other_kind = None not in {refresh, current.full_refresh} and refresh is not current.full_refresh
            length = len(self._selector(uid)) + 1
            if is_other_kind or (size + length > _LONGEST_SELECTION and not self._is_everything(builds)):
                yield current
                current, size = Invocation(), 0
            current.nodes.append(uid)
            current.full_refresh = refresh if current.full_refresh is None else current.full_refresh
            size += length
        if current.nodes:
            yield current

    def _split_tests(self, invocation: Invocation) -> Iterator[Invocation]:
        """Yield the invocation with as many tests as fit on a command line, then the others on their own."""
        size = sum(len(self._selector(uid)) + 1 for uid in invocation.nodes)
        part = Invocation(invocation.nodes, [], invocation.full_refresh, invocation.unit_tests_of)
        for uid in invocation.tests or []:
            length = len(self._test_selector(uid)) + 1
            if size + length > _LONGEST_SELECTION:
                yield part
                part, size = Invocation(tests=[]), 0
            if part.tests is not None:
                part.tests.append(uid)
            size += length
        if part.nodes or part.tests or list(self._unit_tests(part.unit_tests_of)):
            yield part

    def _is_everything(self, nodes: Sequence[str]) -> bool:
        manifest_nodes = self._loaded.manifest["nodes"].values()
        buildable = sum(1 for n in manifest_nodes if n["resource_type"] in {"model", "seed", "snapshot"})
        ephemerals = {uid for node in self._graph.nodes.values() for uid in node.ephemerals}
        return len(nodes) == len(self._graph.nodes) == buildable - len(ephemerals)

    def _selector(self, uid: str) -> str:
        """Return how dbt selects exactly this node."""
        node = self._graph.nodes[uid]
        # An fqn also selects whatever lies in a folder of that name.
        return f"path:{node.file}" if node.fqn in self._folders else ".".join(node.fqn)

    def _test_selector(self, uid: str) -> str:
        return ".".join(self._graph.tests[uid].fqn)

    @cached_property
    def _folders(self) -> set[tuple[str, ...]]:
        nodes = self._graph.nodes.values()
        return {node.fqn[:length] for node in nodes for length in range(1, len(node.fqn))}

    def _unit_tests(self, nodes: Iterable[str]) -> list[str]:
        tested = {uid for uid in nodes if self._decisions[uid].reason in _FOR_CODE}
        unit_tests: Mapping[str, Mapping[str, object]] = self._loaded.manifest.get("unit_tests") or {}
        return [
            f"unit_test:{test['name']}"
            for test in unit_tests.values()
            if tested & set((test.get("depends_on") or {}).get("nodes") or [])  # type: ignore[attr-defined]
        ]
