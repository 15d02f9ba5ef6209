"""Sources with `loaded_at_query` or `loaded_at_field`: the token is that timestamp, to its last digit."""

# ruff: noqa: S608  # the project's own SQL, checked by `single_query` before it is sent

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone

from dagster_sao.core.manifest.graph import Source
from dagster_sao.sql.dialects import sqlglot_dialect
from dagster_sao.warehouse.errors import StatementError, StatementTimeoutError, says_missing
from dagster_sao.warehouse.probes.base import Observation, ProbeKind
from dagster_sao.warehouse.probes.settings import (
    SourceSettings,
    does_not_exist,
    matches_no_file,
    place,
    relation_sql,
    settings_of,
)
from dagster_sao.warehouse.queries.timestamps import parse_timestamp
from dagster_sao.warehouse.queries.union import ARMS_PER_STATEMENT, Arm, UnionRunner
from dagster_sao.warehouse.read_only import NotAQueryError, single_query
from dagster_sao.warehouse.session import WarehouseSession

# The token of an empty table, of which `max()` is null. As good as a timestamp, unless the table has rows.
EMPTY = "empty"
_FUTURE = timedelta(days=1)

_NS = 1_000_000_000
# Why the data may change while the newest value stays, and what helps.
_WHOLE_DAY = (
    "that is a date or a midnight: changes within a day do not move it",
    "Use a timestamp with the time of day",
)
_NO_VALUE = (
    "that is NULL although the table has rows: changes do not move it",
    "Let the loader fill it, or use a loaded_at_query that returns when the rows changed",
)
_IN_THE_FUTURE = (
    "that is more than a day in the future: changes do not move it before that day",
    "Correct the value, or leave it out with a filter",
)

# A template that uses only these gives the same text at every tick of one session.
_CONSTANTS = frozenset({"this", "var", "env_var", "target"})
_NUMBER = re.compile(r"[+-]?[\d.]+(e[+-]?\d+)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Question:
    source: Source
    kind: str
    query: str
    """The whole query, which is checked to read only."""
    arm: Arm


class LoadedAtProbe:
    """Query the timestamps of all sources, a hundred in one statement. Renders each query only once where possible."""

    kind = "loaded_at"

    def __init__(self, session: WarehouseSession, now_ns: Callable[[], int]) -> None:
        self._session = session
        self._now_ns = now_ns
        self._runner = UnionRunner(session)
        self._dialect = sqlglot_dialect(session.adapter_type)
        self._from_nothing = session.traits.from_nothing
        self._questions: dict[tuple[str, SourceSettings], _Question] = {}

    def claims(self, source: Source) -> bool:
        """Return whether the source has a `loaded_at_query` or `loaded_at_field`. The query wins over the field."""
        settings = settings_of(source)
        return bool(settings.loaded_at_query or settings.loaded_at_field)

    def observe(self, sources: Sequence[Source], expired: Callable[[], bool]) -> Iterator[tuple[str, Observation]]:
        """Yield the timestamp of each source, or its error. Raises WarehouseError and WarehouseBusyError."""
        ready = [self._questions[key] for key in map(_key, sources) if key in self._questions]
        yield from self._answer(ready, expired)
        # Rendering takes 10 ms each. In slices, each tick gets further even with a short deadline.
        waiting = [source for source in sources if _key(source) not in self._questions]
        size = ARMS_PER_STATEMENT * self._session.connections
        for start in range(0, len(waiting), size):
            if expired():
                return
            questions = []
            for source, asked in self._ask(waiting[start : start + size], expired):
                if isinstance(asked, Observation):
                    yield source.unique_id, asked
                else:
                    questions.append(asked)
            yield from self._answer(questions, expired)

    def _answer(self, asked: Sequence[_Question], expired: Callable[[], bool]) -> Iterator[tuple[str, Observation]]:
        questions = {question.source.unique_id: question for question in asked}
        nulls = []
        for arm, answer in self._runner.run([question.arm for question in asked], expired):
            question = questions[arm.unique_id]
            if answer is None:
                nulls.append(question)
            elif isinstance(answer, StatementError):
                yield arm.unique_id, self._explain(question, answer)
            else:
                yield arm.unique_id, self._read(question, answer)
        queries = [question for question in nulls if question.kind is ProbeKind.QUERY]
        yield from self._without_value(queries, expired)
        yield from self._empty_or_not([question for question in nulls if question.kind is ProbeKind.FIELD], expired)

    def _without_value(
        self, questions: Sequence[_Question], expired: Callable[[], bool]
    ) -> Iterator[tuple[str, Observation]]:
        """Tell a query that returned null (the table is empty) from one that returned no row (a mistake)."""
        by_id = {question.source.unique_id: question for question in questions}
        nulls = []
        count = "(select count(*) from (\n{}\n) answers)"
        arms = [Arm(uid, q.arm.database, count.format(q.query), self._from_nothing) for uid, q in by_id.items()]
        for arm, rows in self._runner.run(arms, expired):
            question = by_id[arm.unique_id]
            if isinstance(rows, StatementError):
                yield arm.unique_id, self._explain(question, rows)
            elif rows == "0":
                yield arm.unique_id, _failed(question, "that returned no row. Return one row with one timestamp")
            else:
                nulls.append(question)
        yield from self._empty_or_not(nulls, expired)

    def _empty_or_not(
        self, questions: Sequence[_Question], expired: Callable[[], bool]
    ) -> Iterator[tuple[str, Observation]]:
        """Tell an empty table from one whose rows have no value, whatever the filter hides."""
        by_id = {question.source.unique_id: question for question in questions}
        has_rows = "case when exists (select 1 from {}) then 'some' else 'none' end"
        arms = [
            Arm(uid, q.arm.database, has_rows.format(relation_sql(q.source)), self._from_nothing)
            for uid, q in by_id.items()
        ]
        for arm, rows in self._runner.run(arms, expired):
            question = by_id[arm.unique_id]
            if rows == "none":
                yield arm.unique_id, Observation(EMPTY, question.kind)
            else:
                yield arm.unique_id, _too_coarse(question, Observation(EMPTY, question.kind), *_NO_VALUE)

    def _read(self, question: _Question, answer: str) -> Observation:
        timestamp = parse_timestamp(answer)
        if timestamp is None:
            return _failed(question, f"that returned {_shape(answer)}, not a timestamp. Return a date or timestamp")
        found = Observation(timestamp.text, question.kind, loaded_at=timestamp.utc)
        if timestamp.is_whole_day:
            return _too_coarse(question, found, *_WHOLE_DAY)
        if timestamp.utc > datetime.fromtimestamp(self._now_ns() / _NS, timezone.utc) + _FUTURE:
            return _too_coarse(question, found, *_IN_THE_FUTURE)
        return found

    def _ask(
        self, sources: Sequence[Source], expired: Callable[[], bool]
    ) -> list[tuple[Source, _Question | Observation]]:
        return [(source, self._question(source)) for source in sources if not expired()]

    def _question(self, source: Source) -> _Question | Observation:
        settings = settings_of(source)
        kind = ProbeKind.QUERY if settings.loaded_at_query else ProbeKind.FIELD
        try:
            if settings.loaded_at_query:
                query = single_query(self._render(source, settings.loaded_at_query), self._dialect)
                value, rest = f"(\n{query}\n)", self._from_nothing
            else:
                where = f" where {settings.filter}\n" if settings.filter else ""
                largest, rest = f"max({settings.loaded_at_field}\n)", f"from {relation_sql(source)}{where}"
                query = single_query(f"select {largest} {rest}", self._dialect)
                value = largest
        except NotAQueryError as error:
            return Observation(None, kind, error=f"{place(source)} has a {kind} that {error}")
        except StatementError as error:
            sentence = f"{place(source)} has a {kind} that dbt cannot render: {error}. Correct its Jinja"
            return Observation(None, kind, error=sentence)
        text = self._session.traits.as_text.format(value=value, type=self._session.text_type)
        arm = Arm(source.unique_id, source.database or "", text, rest)
        question = _Question(source, kind, query, arm)
        if _is_constant(settings.loaded_at_query or ""):
            self._questions[_key(source)] = question
        return question

    def _render(self, source: Source, template: str) -> str:
        return self._session.render(source.unique_id, template) if "{" in template else template

    def _explain(self, question: _Question, error: StatementError) -> Observation:
        """Return the error of a statement about this source alone, in the user's words."""
        said = str(error)
        if isinstance(error, StatementTimeoutError):
            what = f"that could not be read: {said}. It is probed again at the next tick; if it keeps failing, query less data"
            return _failed(question, what)
        if question.kind is ProbeKind.QUERY:
            try:
                with self._session.connection():
                    rows = self._session.execute(f"select * from (\n{question.query}\n) answer", limit=2)
            except StatementError as own:
                said = str(own)
            else:
                shape = _wrong_shape(rows)
                if shape:
                    return _failed(question, shape)
        if self._is_missing(question):
            return Observation(None, question.kind, error=does_not_exist(question.source))
        if "No files found" in said:
            return Observation(None, question.kind, error=matches_no_file(question.source))
        setting = "the query" if question.kind is ProbeKind.QUERY else "the field, or the filter of its freshness"
        stop = "" if said.endswith(("?", "!")) else "."
        return _failed(question, f"that failed: {said}{stop} Correct {setting}")

    def _is_missing(self, question: _Question) -> bool:
        source = question.source
        if (source.identifier or source.name).lower() not in question.query.lower():
            return False
        try:
            with self._session.connection():
                self._session.execute(f"select 1 from {relation_sql(source)} where 1 = 0")
        except StatementError as error:
            return says_missing(error)
        return False


def _key(source: Source) -> tuple[str, SourceSettings]:
    return source.unique_id, settings_of(source)


def _is_constant(template: str) -> bool:
    """Return whether a template renders to the same text at every tick. Macros, dates and queries may not."""
    import jinja2
    import jinja2.meta

    if "{" not in template:
        return True
    try:
        parsed = jinja2.Environment(autoescape=False).parse(template)  # noqa: S701  # parsed for its names only
    except (jinja2.TemplateSyntaxError, RecursionError):
        return False
    return jinja2.meta.find_undeclared_variables(parsed) <= _CONSTANTS


def _shape(answer: str) -> str:
    """Return the form of an answer, never the answer itself: it may be anything that the query can read."""
    return "a number" if _NUMBER.fullmatch(answer.strip()) else "a text"


def _too_coarse(question: _Question, found: Observation, what: str, remedy: str) -> Observation:
    """Return the answer with the reason why the data may change while it stays."""
    warning = f"{place(question.source)} has a {question.kind} {what}, so the source also counts as updated every `untracked_interval`. {remedy}"
    return replace(found, warning=warning, misses_changes=True)


def _wrong_shape(rows: Sequence[tuple[object, ...]]) -> str | None:
    if rows and len(rows[0]) > 1:
        return f"that returned {len(rows[0])} columns. Return one row with one timestamp"
    if len(rows) > 1:
        return "that returned more than one row. Return one row with one timestamp, such as max(loaded_at)"
    return None


def _failed(question: _Question, what: str) -> Observation:
    return Observation(None, question.kind, error=f"{place(question.source)} has a {question.kind} {what}")
