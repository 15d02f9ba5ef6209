"""Answers data tests with fewer queries: by a proof, or many by one scan. Knows nothing of dbt's classes.

Other tests are left to dbt: a test with failures, so that counts, messages and stored rows are dbt's own, and a test whose
query is not understood.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol

from dbt_dagster_sao.data_tests import proofs
from dbt_dagster_sao.data_tests.handover import AnsweredTest, DataTestRequest, How
from dbt_dagster_sao.data_tests.proofs import Entry, TestProofs, depends_on

_CONDITION = re.compile(r"\s*(!=|<>|>=|<=|=|>|<)\s*(-?\d+)\s*")
_HOLDS_OF_ZERO: Mapping[str, Callable[[int], bool]] = {
    "!=": lambda number: number != 0,
    "<>": lambda number: number != 0,
    ">": lambda number: number < 0,
    ">=": lambda number: number <= 0,
    "<": lambda number: number > 0,
    "<=": lambda number: number >= 0,
    "=": lambda number: number == 0,
}
_COUNT = "count(*)"
_MATERIALIZED = "test"
_CONDITIONS = ("warn_if", "error_if")
_SETTINGS_OF_TESTS = frozenset(
    {
        "alias", "database", "enabled", "error_if", "fail_calc", "group", "limit", "materialized", "meta", "schema", "severity",
        "store_failures", "store_failures_as", "tags", "warn_if", "where",
    }
)  # fmt: skip
"""dbt's own settings. Any other belongs to the adapter, such as the virtual warehouse that runs the query."""


class Warehouse(proofs.Warehouse, Protocol):
    """The way to the warehouse of the thread that runs a test."""

    def failures(self, sql: str, tests: int) -> Sequence[Any]:
        """Return the one row of a merged query: the failures of so many tests. Raises whatever the adapter raises."""


@dataclass(frozen=True, slots=True)
class _Zero:
    """A test for which a merged query found no failures."""

    sql: str
    """Its own compiled SQL."""
    merged: int
    seconds: float


@dataclass
class _Query:
    """A merged query, which the first of its tests sends."""

    sql: str
    compiled: Mapping[str, str]
    """The compiled SQL of the test of each column."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    zeros: Mapping[str, _Zero] | None = None
    """The tests without failures; None before it was sent."""


@dataclass
class _Group:
    """Tests that are ready at the same time, about one relation."""

    tests: tuple[str, ...]
    lock: threading.Lock = field(default_factory=threading.Lock)
    queries: Mapping[str, _Query] | None = None
    """The merged query of each test that is in one; None before they were written."""


def answer_at_zero(test: Entry, *, stores_failures: bool) -> tuple[bool, bool] | None:
    """Return whether dbt warns and whether it fails if a test finds no rows; None where only its own query can tell.

    `stores_failures` is the default for tests without a setting of their own. A test that stores its failures must run.
    """
    if why_only_its_query(test, stores_failures=stores_failures):
        return None
    config = test.get("config") or {}
    warns, fails = (_holds_of_zero(_condition(config, name)) for name in _CONDITIONS)
    return None if warns is None or fails is None else (warns, fails)


def why_only_its_query(test: Entry, *, stores_failures: bool) -> str:
    """Return in one sentence why only the own query of a test can answer it; empty where another way may.

    `stores_failures` is as for `answer_at_zero`.
    """
    config = test.get("config") or {}
    stores = config.get("store_failures")
    if stores_failures if stores is None else stores:
        return "The test stores its failures."
    if str(config.get("fail_calc", _COUNT)).replace(" ", "").lower() != _COUNT:
        return "The test counts its failures in its own way, by fail_calc."
    if config.get("sql_header"):
        return "The test has an sql_header."
    if config.get("materialized", _MATERIALIZED) != _MATERIALIZED:
        return "The test has a materialization of its own."
    odd = next((name for name in _CONDITIONS if _holds_of_zero(_condition(config, name)) is None), "")
    return f"The {odd} of the test does not compare with a number." if odd else ""


def _condition(config: Mapping[str, Any], name: str) -> str:
    return str(config.get(name, "!= 0"))


def _holds_of_zero(condition: str) -> bool | None:
    """Return whether a condition such as `!= 0` holds of 0, None where it is another kind of condition.

    >>> [_holds_of_zero(condition) for condition in ("!= 0", ">10", "< 10", "between 1 and 2")]
    [False, False, True, None]
    """
    found = _CONDITION.fullmatch(condition)
    return None if found is None else _HOLDS_OF_ZERO[found[1]](int(found[2]))


def groups_of(request: DataTestRequest, entry: Callable[[str], Entry | None]) -> list[tuple[str, ...]]:
    """Return the tests that may be merged, in groups of at least two that dbt can run at the same time.

    The tests of a group are about one relation, wait for the same nodes of the invocation and have the same settings of the
    adapter. `entry` returns the manifest's entry of a unique id.
    """
    found: dict[tuple[str, frozenset[str], str], list[str]] = {}
    # Many tests have the same ancestors, and an entry is not free.
    parents = cache(lambda uid: depends_on(entry(uid)))
    for test in sorted(request.mergeable):
        props = entry(test)
        reads = depends_on(props)
        if props and reads:
            config = props.get("config") or {}
            settings = {name: value for name, value in config.items() if name not in _SETTINGS_OF_TESTS}
            about = str(props.get("attached_node") or reads[0])
            built = _nearest_built(reads, request.builds, parents)
            key = (about, _waits_for(built, parents), repr(sorted(settings.items(), key=str)))
            found.setdefault(key, []).append(test)
    return [tuple(tests) for tests in found.values() if len(tests) > 1]


def _nearest_built(
    reads: Sequence[str], builds: frozenset[str], parents: Callable[[str], Sequence[str]]
) -> frozenset[str]:
    """Return the built nodes that a test's rows come from: dbt lets it wait for them through all that is not built, such as views."""
    seen: set[str] = set()
    stack = list(reads) if builds else []
    while stack:
        uid = stack.pop()
        if uid not in seen:
            seen.add(uid)
            stack += () if uid in builds else parents(uid)
    return builds & seen


def _waits_for(built: frozenset[str], parents: Callable[[str], Sequence[str]]) -> frozenset[str]:
    """Return the built nodes that end last: without nodes that another one of them waits for."""
    if len(built) <= 1:
        return built
    above: set[str] = set()
    stack = [parent for uid in built for parent in parents(uid)]
    while stack:
        uid = stack.pop()
        if uid not in above:
            above.add(uid)
            stack += parents(uid)
    return built - above


class EfficientTests:
    """The data tests of one invocation of dbt."""

    def __init__(  # noqa: PLR0913 (what answers follow from)
        self,
        request: DataTestRequest,
        adapter: str,
        entry: Callable[[str], Entry | None],
        test_proofs: TestProofs,
        *,
        stores_failures: bool = False,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """Ask nothing yet. `entry` returns the manifest's entry of a unique id.

        `stores_failures` is the default for tests without a setting of their own. `draw` returns a number from 0 to 1, which
        decides whether a proven test is run all the same.
        """
        self._request, self._adapter, self._proofs, self._draw = request, adapter, test_proofs, draw
        self._entry, self._stores_failures = entry, stores_failures
        self._proves = True
        groups = [_Group(tests) for tests in groups_of(request, entry)]
        self._groups = {test: group for group in groups for test in group.tests}

    def at_zero(self, test: str) -> tuple[bool, bool] | None:
        """Return whether dbt warns and whether it fails if a test finds no rows; None where only its own query can tell."""
        entry = self._entry(test)
        return None if entry is None else answer_at_zero(entry, stores_failures=self._stores_failures)

    def answer(self, test: str, warehouse: Warehouse) -> AnsweredTest | None:
        """Return how a test was answered without failures, or, if it is to be run, the proof that its run verifies.

        None where dbt runs it, with nothing more to note.
        """
        return self._proven(test, warehouse) or self._merged(test, warehouse)

    def found(self, test: str, failures: int) -> None:
        """Note the number of failures of a test that ended."""
        if failures == 0:
            self._proofs.passed(test)

    def contradicted(self) -> None:
        """Note that a test failed although it was proven: nothing more is proven in this invocation."""
        self._proves = False

    def _proven(self, test: str, warehouse: Warehouse) -> AnsweredTest | None:
        if not self._proves or test not in self._request.provable:
            return None
        proof = self._proofs.prove(test, warehouse)
        if isinstance(proof, str):
            return None
        is_verified = self._draw() < self._request.verified_share
        how = How.RUN if is_verified else How.PROVEN
        return AnsweredTest(test, how, proof=proof.text, premises=tuple(sorted(proof.premises)))

    def _is_proven(self, test: str, warehouse: Warehouse) -> bool:
        is_provable = self._proves and test in self._request.provable
        return is_provable and not isinstance(self._proofs.prove(test, warehouse), str)

    def _merged(self, test: str, warehouse: Warehouse) -> AnsweredTest | None:
        group = self._groups.get(test)
        if group is None:
            return None
        with group.lock:
            if group.queries is None:
                # Only once, as below: after an error, dbt runs test by test.
                group.queries = {}
                group.queries = self._queries(group.tests, warehouse)
        query = group.queries.get(test)
        if query is None:
            return None
        with query.lock:
            if query.zeros is None:
                query.zeros = {}
                query.zeros = _ask(query, warehouse)
        zero = query.zeros.get(test)
        if zero is None or zero.sql != warehouse.compiled(test):
            return None
        return AnsweredTest(test, How.MERGED, merged=zero.merged, seconds=zero.seconds)

    def _queries(self, tests: Sequence[str], warehouse: Warehouse) -> Mapping[str, _Query]:
        from dagster_sao.sql.merged_tests import TestQuery, merge

        # A proven test needs no column. Knowledge only grows, so it stays proven.
        open_tests = [test for test in tests if self.at_zero(test) is not None and not self._is_proven(test, warehouse)]
        compiled = {test: sql for test in open_tests if (sql := warehouse.compiled(test))}
        found: dict[str, _Query] = {}
        for merged in merge([TestQuery(test, sql) for test, sql in compiled.items()], self._adapter):
            query = _Query(merged.sql, {test: compiled[test] for test in merged.keys})
            found.update(dict.fromkeys(merged.keys, query))
        return found


def _ask(query: _Query, warehouse: Warehouse) -> Mapping[str, _Zero]:
    started = time.monotonic()
    size = len(query.compiled)
    row = _row(warehouse, query.sql, size)
    seconds = (time.monotonic() - started) / size
    if len(row) != size:
        return {}
    return {
        test: _Zero(sql, size, seconds)
        for (test, sql), value in zip(query.compiled.items(), row, strict=True)
        if value is not None and value == 0
    }


def _row(warehouse: Warehouse, sql: str, tests: int) -> Sequence[Any]:
    """Return the row that a merged query gives; nothing where it fails: dbt logs that, and runs each of its tests."""
    try:
        return warehouse.failures(sql, tests)
    except Exception:  # noqa: BLE001 (an adapter's)
        return ()
