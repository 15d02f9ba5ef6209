"""Makes the evidence of a build from what dbt recorded of the node and from the SQL that it compiled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

from dagster_sao.core.code.context_values import VARIABLES, code_of_names
from dagster_sao.core.code.evidence import Evidence, StartReads, TracedReads
from dagster_sao.core.code.fingerprint import Fingerprint, is_wide, kind_of
from dagster_sao.core.code.fingerprinter import Fingerprinter
from dagster_sao.core.code.known_relations import KnownRelations, is_among
from dagster_sao.core.code.reached_code import KEPT_BY_START_HOOKS, StartHook
from dagster_sao.core.code.versions import digest
from dagster_sao.core.manifest.graph import Node, ProjectTest
from dagster_sao.sql.compiled_sql import SqlReads, read_compiled, read_statements, start_of
from dagster_sao.sql.normal_form import normal_form
from dbt_dagster_sao.digests import ABSENT, UNKNOWN
from dbt_dagster_sao.trace import OF, SHARED, SQL, Query, Trace

_SHORTEST = 3
_MOST_NAMED = 5
_LONGEST_NAME = 100
# A trace has other names for these kinds of reads.
_KINDS = {"has_var": "var", "macros": "macro"}
_WATCHED = frozenset({"config", "dbt_version", "env_var", "flags", "graph", "macro", "meta", "model", "target", "var"})
_ABSENT = "absent"
"""The kind of look-ups of names that the context does not have."""
# A read of one of these may include reads of other kinds.
_STANDS_FOR: Mapping[str, frozenset[str]] = {
    "invocation_args_dict": frozenset({"var", "flags"}),
    "dbt_metadata_envs": frozenset({"env_var"}),
    "context": _WATCHED,
}
_OF_STATE = frozenset({"queries", "state"})
# dbt builds these by the same steps whatever was there before, as far as the project's own code is concerned.
_STEADY = frozenset({"table", "view", "seed", "test"})
_ABOUT_COLUMNS = frozenset({"get_columns_in_relation", "get_missing_columns"})
"""The adapters' methods that tell of a relation's columns only."""
# These differ in every invocation, so their value says nothing.
_EACH_TIME = frozenset({"clock", "invocation_args_dict", "selected_resources", "context"})


_NOTHING = SqlReads(is_deterministic=True)


class _Question(NamedTuple):
    """What a template asked the warehouse about."""

    relation: str
    """Empty where it is not about a relation."""
    label: str
    is_about_columns: bool = False
    """Whether the answer depends on what the relation is, and not on its rows."""
    is_certain: bool = True
    """Whether the same data gives the same answer."""


class EvidenceReader:
    """Reads the evidence of the builds and tests of one dbt invocation, which read one manifest."""

    def __init__(self, code: Fingerprinter, start: Mapping[str, Trace | None] | None = None) -> None:
        """Read nothing yet.

        `code` is from the manifest that dbt itself read. `start` has the traces of the hooks at the start of the run, by unique id.
        """
        self._code = code
        self._start_traces = start or {}
        self._relations = KnownRelations(code.graph)
        self._dialect = code.graph.adapter_type

    def of_node(self, node: Node, fingerprint: Fingerprint, trace: Trace | None, compiled: str | None) -> Evidence:
        """Return the evidence of a build. `compiled` is the SQL that dbt compiled, None where it is not known."""
        own = self._relations.key(node.relation_name)
        known = self._relations.keys_of(node.parents)
        is_steady = node.materialized in _STEADY and not self._code.has_own_steps(node)
        evidence = self._evidence(
            node.unique_id,
            fingerprint,
            trace,
            self._read_own(node, trace, compiled),
            own=own,
            known=known,
            is_steady=is_steady,
            beside=self._read_beside(node, trace),
        )
        if not node.is_view or not compiled:
            return evidence
        return replace(evidence, definition=digest(normal_form(compiled, self._dialect, is_template=False)))

    def _read_own(self, node: Node, trace: Trace | None, compiled: str | None) -> SqlReads | None:
        """Return what the SQL of a node reads; None where dbt did not write it."""
        if node.resource_type == "seed":
            return _NOTHING
        if node.language != "sql" or _has_seen_snapshot(node, trace):
            return SqlReads()
        return self._read_sql(compiled)

    def _read_sql(self, compiled: str | None) -> SqlReads | None:
        if not compiled:
            return None if compiled is None else SqlReads()
        return read_compiled(compiled, self._dialect)

    def _read_beside(self, node: Node, trace: Trace | None) -> SqlReads:
        """Return what is read beside a node's own SQL: by hooks, statements of the project's macros, a Python model, a snapshot."""
        if node.language == "python":
            return SqlReads(frozenset(self._code.relations_spelled_out(node)))
        if not self._code.runs_own_statements(node) and not _has_seen_snapshot(node, trace):
            return _NOTHING
        if trace is None or not trace.kinds >= _OF_STATE:
            return SqlReads(frozenset(self._code.relations_spelled_out(node)))
        return read_statements(trace.statements, self._dialect)

    def of_test(
        self, test: ProjectTest, fingerprint: Fingerprint, trace: Trace | None, compiled: str | None
    ) -> Evidence:
        """Return the evidence of a test."""
        known = self._relations.keys_of(test.about)
        sql = self._read_sql(compiled)
        return self._evidence(test.unique_id, fingerprint, trace, sql, own="", known=known, is_steady=True)

    def _evidence(  # noqa: PLR0913 (what is known of one build)
        self,
        unique_id: str,
        fingerprint: Fingerprint,
        trace: Trace | None,
        own_sql: SqlReads | None,
        *,
        own: str,
        known: frozenset[str],
        is_steady: bool,
        beside: SqlReads = _NOTHING,
    ) -> Evidence:
        sql = own_sql or SqlReads()
        unknown = [name for name in sorted(sql.relations | beside.relations) if not is_among(name, known | {own})]
        is_deterministic = sql.is_deterministic and beside.is_deterministic and own not in sql.relations
        if trace is None:
            return Evidence(None, _named(unknown), is_deterministic and not unknown)
        if own_sql is None:
            unknown.append("SQL that dbt did not write")
        questions = [*self._questions(trace)]
        asked = {question.relation for question in questions}
        explained = known | {own} | beside.made
        others = [question.label for question in questions if not is_among(question.relation, explained)]
        others += [f"{name}, which templates share" for name in _shared(trace)]
        unknown += others
        unknown += [f"{name}, which has another value in dbt" for name in self._contradicted(unique_id, trace)]
        kinds = {_kind_of(name) for name in trace.reads}
        was_there = trace.existed is True and not trace.full_refresh
        follows_state = not trace.kinds >= _OF_STATE or (
            not was_there and (not is_steady or own in asked or _asks_what_is_there(trace))
        )
        reads = TracedReads(
            values={
                name: self._code.value_now(unique_id, name) for name in _names_read(trace, fingerprint.parts.keys())
            },
            unseen=self._unseen(trace, kinds),
            start=self._start,
            follows_state=follows_state,
            asks_rows=any(is_among(asking.relation, known) for asking in questions if not asking.is_about_columns),
            asks_columns=any(is_among(asking.relation, known) for asking in questions if asking.is_about_columns),
            asks_others=bool(others),
        )
        is_deterministic = is_deterministic and all(question.is_certain for question in questions)
        return Evidence(reads, _named(unknown), is_deterministic and not unknown and kinds.isdisjoint(_EACH_TIME))

    @cached_property
    def _start(self) -> StartReads:
        """The reads of the hooks at the start of the run that tell what these hooks read in the next run."""
        hooks = self._code.start_hooks
        told = {hook.unique_id: trace for hook in hooks if (trace := self._told(hook)) is not None}
        may_share = any(hook.may_share for hook in hooks if hook.unique_id not in told)
        parts: set[str] = set()
        values: dict[str, str] = {}
        for hook in hooks:
            trace = told.get(hook.unique_id)
            if trace is not None and not (may_share and _shared(trace)):
                parts.update(part.name for part in hook.wide)
                values.update(
                    (name, self._code.value_now(hook.unique_id, name)) for name in _names_of_start(hook, trace)
                )
        path = {name: value for name, value in values.items() if kind_of(name) in KEPT_BY_START_HOOKS}
        changing = {name: value for name, value in values.items() if name not in path}
        return StartReads(frozenset(parts), changing, path)

    def _told(self, hook: StartHook) -> Trace | None:
        """Return the trace of a hook, None where the next run may take another path: the hook asked what may have another answer then."""
        trace = self._start_traces.get(hook.unique_id)
        if trace is None or trace.queries or trace.state or not trace.kinds >= _OF_STATE:
            return None
        kinds = {_kind_of(name) for name in trace.reads}
        if self._unseen(trace, kinds) or not kinds.isdisjoint(_EACH_TIME):
            return None
        is_of_others = any(kind_of(name) == SHARED and value != ABSENT for name, value in trace.reads.items())
        return None if is_of_others or any(self._contradicted(hook.unique_id, trace)) else trace

    def _contradicted(self, unique_id: str, trace: Trace) -> Iterator[str]:
        """Yield the variables whose value in dbt differs from the one known here, so that no change of them would be seen."""
        for name, seen in sorted(trace.reads.items()):
            known = self._code.value_for_dbt(unique_id, name)
            if known is not None and seen not in {UNKNOWN, known}:
                yield name

    @staticmethod
    def _unseen(trace: Trace, kinds: Iterable[str]) -> frozenset[str]:
        watched = {_kind_of(kind) for kind in trace.kinds}
        stand_ins = [_STANDS_FOR[kind] for kind in kinds if kind in _STANDS_FOR]
        return (_WATCHED - watched).union(*stand_ins)

    def _questions(self, trace: Trace) -> Iterator[_Question]:
        """Yield what the templates asked the warehouse."""
        for query in trace.queries:
            yield from self._asked_by(query)
        for word in trace.state:
            question, _, answer = word.partition(" = ")
            method, _, argument = question.rstrip(")").partition("(")
            if method == "is_incremental" or (method == "check_schema_exists" and answer == "true"):
                continue
            yield _Question(argument.lower(), question, is_about_columns=True)

    def _asked_by(self, query: Query) -> Iterator[_Question]:
        label = f"{query.method}({query.arguments[0] if query.arguments else ''})" if query.method != SQL else "a query"
        if query.is_shortened or not query.arguments:
            yield _Question("", label)
        elif query.method == SQL:
            sql = read_compiled(str(query.arguments[0]), self._dialect)
            yield from (_Question(name, name, is_certain=sql.is_deterministic) for name in sql.relations)
            if not sql.relations and not sql.is_deterministic:
                yield _Question("", f"a query: {start_of(str(query.arguments[0]))}")
        else:
            for argument in query.arguments:
                if isinstance(argument, tuple) and len(argument) >= _SHORTEST:
                    name = ".".join(str(part) for part in argument[:_SHORTEST] if part).lower()
                    yield _Question(name, label, query.method in _ABOUT_COLUMNS)
                    return
            yield _Question("", label)


def _has_seen_snapshot(node: Node, trace: Trace | None) -> bool:
    """Return whether the statements of a snapshot were seen: dbt writes its compiled SQL nowhere else."""
    return (
        node.resource_type == "snapshot" and trace is not None and trace.kinds >= _OF_STATE and bool(trace.statements)
    )


def _kind_of(read: str) -> str:
    """Return the kind of a read in a trace (or a kind itself) under its name here."""
    kind = kind_of(read)
    return _KINDS.get(kind, kind)


def _names_read(trace: Trace, spelled_out: AbstractSet[str]) -> Iterator[str]:
    """Yield the names of what was read, except those that the parts of a fingerprint spell out anyway."""
    for read in {*trace.reads, *(f"macro: {macro}" for macro in trace.macros)}:
        kind, name = _kind_of(read), read.partition(": ")[2]
        part = f"{kind}: {name.rsplit('.', 1)[-1] if kind == 'macro' else name}"
        if kind in {*_WATCHED, _ABSENT} and (part not in spelled_out or is_wide(part)):
            yield f"{kind}: {name}"


def _names_of_start(hook: StartHook, trace: Trace) -> Iterator[str]:
    """Yield the names of what a hook read. Its variables are one name: they may be many, and each record has them."""
    variables = []
    for name in _names_read(trace, {part.name for part in hook.parts}):
        kind, _, rest = name.partition(": ")
        if kind in {"macro", _ABSENT} or OF in name:
            yield name
        elif kind == "var":
            variables.append(rest)
        else:
            yield f"{name}{OF}{hook.unique_id}"
    if variables:
        yield f"{VARIABLES}: {code_of_names(variables)}{OF}{hook.unique_id}"


def _shared(trace: Trace) -> list[str]:
    """Return the names under which the templates read what other templates may have written."""
    return sorted(read.removeprefix(f"{SHARED}: ") for read in trace.reads if kind_of(read) == SHARED)


def _asks_what_is_there(trace: Trace) -> bool:
    return any(word.startswith("is_incremental") for word in trace.state)


def _named(labels: Iterable[str]) -> tuple[str, ...]:
    found = [label[:_LONGEST_NAME] for label in dict.fromkeys(labels)]
    return tuple(found[:_MOST_NAMED])
