"""The questions that own code asks the warehouse through an adapter, and the answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any

from dbt_dagster_sao.digests import ABSENT, UNKNOWN, answer_digest, digest, text_digest
from dbt_dagster_sao.recorder import Frame, stack
from dbt_dagster_sao.trace import MAX_TEXT, SQL, Query

ASK_NOTHING = frozenset(
    {
        "Column",
        "Relation",
        "assert_valid_snapshot_target_given_strategy",
        "batch_id_for_model",
        "behavior",
        "build_catalog_relation",
        "cache_added",
        "cache_dropped",
        "cache_renamed",
        "commit",
        "config",
        "convert_datetimes_to_strs",
        "convert_type",
        "create_schema",
        "disable_transactions",
        "dispatch",
        "drop_relation",
        "drop_schema",
        "ensure_transaction",
        "escape_sql_string",
        "expand_target_column_types",
        "external_read_location",
        "external_root",
        "external_write_options",
        "get_binding_char",
        "get_catalog_integration",
        "get_hard_deletes_behavior",
        "get_incremental_strategy_macro",
        "get_seed_file_path",
        "get_temp_relation_path",
        "is_motherduck",
        "parse_index",
        "quote",
        "quote_as_configured",
        "quote_seed_column",
        "rename_relation",
        "render_raw_columns_constraints",
        "render_raw_model_constraints",
        "standardize_grants_dict",
        "store_relation",
        "submit_python_job",
        "truncate_relation",
        "type",
        "valid_incremental_strategies",
        "verify_database",
        "warn_once",
    }
)
"""Members of adapters that send the warehouse nothing. Any other member counts as a question."""

_ABOUT_EXISTENCE = frozenset({"already_exists", "check_schema_exists", "get_relation"})
_ABOUT_SCHEMA = re.compile(r"check_schema_exists\(([^,()]+), ([^,()]+)\) = (\w+)")
_OF_THE_BUILD = ("__dbt_tmp", "__dbt_backup")
_EXECUTE = ("sql", "auto_begin", "fetch", "limit")
"""The parameters of an adapter's `execute`."""


def asking(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """Return an adapter's method that notes what own code asks with it."""

    @wraps(method)
    def ask(*arguments: Any, **options: Any) -> Any:
        frame = stack.frame
        if frame is None or not frame.is_own:
            named = {**dict(zip(_EXECUTE, arguments, strict=False)), **options}
            if frame is not None and name == "execute" and not named.get("fetch"):
                _note_statement(frame, named)
            return method(*arguments, **options)
        # The adapter's own work on the answer is not own code.
        stack.frame = Frame(frame.recording, is_own=False)
        try:
            answer = method(*arguments, **options)
        finally:
            stack.frame = frame
        note_question(frame, name, arguments, options, answer)
        return answer

    return ask


def asking_nothing(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return an adapter's method that asks nothing for own code, whatever the adapter asks for itself."""

    @wraps(method)
    def work(*arguments: Any, **options: Any) -> Any:
        frame = stack.frame
        if frame is not None:
            stack.frame = Frame(frame.recording, is_own=False)
        try:
            return method(*arguments, **options)
        finally:
            stack.frame = frame

    return work


def note_question(frame: Frame, name: str, arguments: tuple[Any, ...], options: Mapping[str, Any], answer: Any) -> None:
    """Note a question, when own code is on the stack."""
    if not frame.is_own:
        return
    recording = frame.recording
    if any(_is_of_the_build(each) for each in (*arguments, *options.values())):
        return
    try:
        if name in _ABOUT_EXISTENCE:
            recording.add_state(_sentence(name, [*arguments, *options.values()], answer))
        elif name in {"execute", "add_query"}:
            named = {**dict(zip(_EXECUTE, arguments, strict=False)), **options}
            _note_statement(frame, named)
            if name == "add_query":
                recording.ask(_query(SQL, [named["sql"]], UNKNOWN))
            elif named.get("fetch"):
                recording.ask(_query(SQL, [named["sql"]], answer_digest(answer[1])))
        else:
            recording.ask(_query(name, [*arguments, *options.values()], answer_digest(answer)))
    except Exception:  # noqa: BLE001 (a build must not end because of its trace)
        recording.is_void = True


def _note_statement(frame: Frame, options: Mapping[str, Any]) -> None:
    """Note a statement: one that is run without asking for an answer, whoever runs it (hooks, materializations), or an own query."""
    statement = options.get("sql")
    if isinstance(statement, str):
        frame.recording.run(statement.strip())


def word(answer: Any) -> str:
    """Return an answer about existence as a word: the type of a relation, or `-` where there is none."""
    if answer is None:
        return ABSENT
    if hasattr(answer, "identifier"):
        return str(answer.type) if answer.type else "unknown"
    return str(answer).lower()


def _is_of_the_build(argument: Any) -> bool:
    """Return whether an argument is a relation that this build itself made for a moment: it holds nothing that is read."""
    return hasattr(argument, "render") and any(mark in str(argument.identifier) for mark in _OF_THE_BUILD)


def _sentence(name: str, arguments: Iterable[Any], answer: Any) -> str:
    separator = "." if name == "get_relation" else ", "
    return f"{name}({separator.join(str(each) for each in arguments)}) = {word(answer)}"


def schema_answer(sentence: str) -> tuple[str, str, str] | None:
    """Return the database, the schema and the answer in the sentence about a schema; None for any other sentence."""
    found = _ABOUT_SCHEMA.fullmatch(sentence)
    return (found[1], found[2], found[3]) if found is not None else None


def _query(method: str, arguments: Iterable[Any], answer: str) -> Query:
    kept = [_argument(each) for each in arguments]
    is_shortened = any(shortens for _, shortens in kept)
    return Query(method, tuple(value for value, _ in kept), answer, is_shortened)


def _argument(value: Any) -> tuple[Any, bool]:
    if value is None or isinstance(value, (bool, int, float)):
        return value, False
    if isinstance(value, str):
        text = str(value).strip()
        return (text_digest(text), True) if len(text) > MAX_TEXT else (text, False)
    if hasattr(value, "identifier") and hasattr(value, "render"):
        return (value.database, value.schema, value.identifier), False
    return digest(value), True
