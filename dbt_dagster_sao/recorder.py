"""Collects what nodes read, in the threads of one dbt process, and writes a line as each ends. Knows nothing of dbt.

Recording must never end a build: an error while a read is noted makes that node's trace void.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dbt_dagster_sao.digests import UNKNOWN
from dbt_dagster_sao.trace import LEFT_OUT, MAX_TEXT, OF, Query, Trace

CLOCK = "clock"
_MAX_QUERIES = 50
_MAX_STATEMENTS = 200
_OF_THE_NODE = ("config: ", "meta: ", "model: ", "this: ")
_OF_THE_PACKAGE = ("var: ", "has_var: ")
_ALWAYS_FALSE = "is_incremental()"
"""A condition that is always false in an ephemeral model."""


@dataclass(slots=True)
class Recording:
    """The reads so far of one node, or of an ephemeral model that others inline."""

    node: str
    existed: bool | None = None
    full_refresh: bool = False
    before: dict[str, Any] | None = None
    """The node as it was before dbt compiled it, where compiling alters what `model` holds."""
    is_void: bool = False
    _reads: dict[str, str] = field(default_factory=dict)
    _macros: set[str] = field(default_factory=set)
    _state: set[str] = field(default_factory=set)
    _queries: dict[Query, None] = field(default_factory=dict)
    _statements: dict[str, None] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def package(self) -> str:
        """The package of the node."""
        return self.node.split(".")[1]

    def read(self, name: str, digest_of: Callable[..., str], *arguments: Any) -> None:
        """Note a read. A value that was not the same each time is unknown."""
        try:
            found = digest_of(*arguments)
            with self._lock:
                if self._reads.setdefault(name, found) != found:
                    self._reads[name] = UNKNOWN
        except Exception:  # noqa: BLE001 (a build must not end because of its trace)
            self.is_void = True

    def call(self, macro: str) -> None:
        """Note the call of a macro."""
        with self._lock:
            self._macros.add(macro)

    def add_state(self, sentence: str) -> None:
        """Note an answer about what exists."""
        with self._lock:
            self._state.add(sentence)

    def confirm(self, still: Callable[[str], bool]) -> None:
        """Leave the answers out that the warehouse would give again."""
        try:
            with self._lock:
                self._state = {sentence for sentence in self._state if not still(sentence)}
        except Exception:  # noqa: BLE001 (as above)
            self.is_void = True

    def ask(self, query: Query) -> None:
        """Note a question. One that is asked again counts once if the answer is the same."""
        with self._lock:
            self._queries[query] = None

    def run(self, statement: str) -> None:
        """Note a statement. What is left out counts as the empty statement."""
        with self._lock:
            is_short = len(statement) <= MAX_TEXT and len(self._statements) < _MAX_STATEMENTS
            self._statements[statement if is_short else ""] = None

    def merge(self, inlined: Recording) -> None:
        """Add what an ephemeral model read. Reads of itself, or of its package, keep its name."""
        with inlined._lock:
            reads, macros = list(inlined._reads.items()), set(inlined._macros)
            state, queries = set(inlined._state), dict(inlined._queries)
        for name, found in reads:
            keeps = name.startswith(_OF_THE_NODE) or (
                name.startswith(_OF_THE_PACKAGE) and inlined.package != self.package
            )
            of = f"{OF}{inlined.node}" if keeps and OF not in name else ""
            self.read(f"{name}{of}", str, found)
        with self._lock:
            self._macros |= macros
            self._state |= {each for each in state if not each.startswith(_ALWAYS_FALSE)}
            self._queries.update(queries)
        self.is_void = self.is_void or inlined.is_void

    def trace(self, kinds: frozenset[str]) -> Trace:
        """Return what was read."""
        with self._lock:
            # Whether a variable is there is part of its digest.
            implied = {f"has_{name}" for name in self._reads if name.startswith("var: ")}
            queries = list(self._queries)
            return Trace(
                node=self.node,
                kinds=kinds,
                reads={name: found for name, found in self._reads.items() if name not in implied},
                macros=tuple(sorted(self._macros)),
                state=tuple(sorted(self._state)),
                statements=tuple(self._statements),
                queries=tuple(queries if len(queries) <= _MAX_QUERIES else _cut(queries)),
                existed=self.existed,
                full_refresh=self.full_refresh,
            )


def _cut(queries: list[Query]) -> list[Query]:
    left_out = len(queries) - _MAX_QUERIES
    return [*queries[:_MAX_QUERIES], Query(LEFT_OUT, (left_out,), UNKNOWN, is_shortened=True)]


@dataclass(frozen=True, slots=True)
class Frame:
    """What a thread executes: for which node, and whether a template, hook or macro that is not dbt's is on its stack."""

    recording: Recording
    is_own: bool


class _Stack(threading.local):
    frame: Frame | None = None


stack = _Stack()
"""The frame of the current thread: None while it does not build a node."""


class Session:
    """The traces of one invocation of dbt."""

    def __init__(  # noqa: PLR0913 (what a run requests of an invocation)
        self,
        path: Path,
        key: bytes,
        environment: Mapping[str, str],
        kinds: frozenset[str],
        test_request: Path | None = None,
        *,
        seconds: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """Append to the file `path`; values of the environment are hashed with `key`.

        `test_request` is the file with the request about data tests, and `seconds` how long each node is predicted to take.
        """
        self.seconds = seconds
        self.threads = 0
        """How many nodes dbt builds at once, 0 before it is known."""
        self.key = key
        self.environment = environment
        self.internal_packages: frozenset[str] = frozenset()
        """The packages of dbt and its adapter: known once a node starts."""
        self.data_tests_lock = threading.Lock()
        self.test_request = test_request
        """None when it was read."""
        self.data_tests: Any = None
        """The `EfficientTests` of the invocation, None where dbt runs each test."""
        self._path = path
        self._kinds = kinds
        self._lock, self._start_lock = threading.Lock(), threading.Lock()
        self._building: dict[str, tuple[Recording, int]] = {}
        self._inlined: dict[str, Recording] = {}
        self._hooks: list[Recording] = []
        self._digests: dict[int, tuple[object, str]] = {}

    def begin(self, node: str) -> Recording:
        """Return the recording of a node that starts. The batches of a microbatch model share the recording of their model."""
        with self._lock:
            recording, depth = self._building.get(node) or (Recording(node), 0)
            self._building[node] = recording, depth + 1
        return recording

    def of(self, node: str) -> Recording:
        """Return the recording of a node that began, else of an ephemeral model, kept for the nodes that inline it."""
        with self._lock:
            found = self._building.get(node)
            return found[0] if found else self._inlined.setdefault(node, Recording(node))

    def end(self, node: str, inlined: Iterable[str]) -> None:
        """Add the reads of the ephemeral models that were inlined, and write the line of a node that has ended."""
        with self._lock:
            recording, depth = self._building.pop(node)
            if depth > 1:
                self._building[node] = recording, depth - 1
            others = [self._inlined[each] for each in inlined if each in self._inlined]
        for other in others:
            recording.merge(other)
        if depth == 1 and not recording.is_void:
            self.write(recording.trace(self._kinds).to_json())

    def end_hook(self, hook: str) -> None:
        """Keep what a hook at the start of the run read, until all of these hooks have ended."""
        with self._lock:
            recording, _ = self._building.pop(hook)
            self._hooks.append(recording)

    def end_start(self, still: Callable[[str], bool]) -> None:
        """Write the lines of the hooks at the start of the run, once. `still` returns whether an answer about a schema still holds."""
        with self._start_lock:
            with self._lock:
                hooks, self._hooks = self._hooks, []
            for recording in hooks:
                recording.confirm(still)
                if not recording.is_void:
                    self.write(recording.trace(self._kinds).to_json())

    def once(self, of: object, digest_of: Callable[[Any], str]) -> str:
        """Return the digest of a large object, computed once."""
        found = self._digests.get(id(of))
        if found is None:
            # The object is kept as well, so that no other gets its id.
            found = self._digests[id(of)] = of, digest_of(of)
        return found[1]

    def write(self, line: str) -> None:
        """Append a line."""
        content = f"{line}\n".encode()
        with self._lock, self._path.open("ab", buffering=0) as file:
            file.write(content)


class _Current:
    session: Session | None = None


current = _Current()
"""The session of this process: one invocation of dbt at a time."""


def note(recording: Recording | None, name: str, digest_of: Callable[..., str], *arguments: Any) -> None:
    """Note a read, when own code is on this thread's stack."""
    frame = stack.frame
    if recording is not None and frame is not None and frame.is_own:
        recording.read(name, digest_of, *arguments)
