"""Everything that this package sends to Dagster passes here, without secrets: events, logs, errors and dbt's messages.

Dagster stores all of it for good, and shows it to everybody who may open the UI.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any

import dagster as dg
from dagster_dbt import DbtProject

from dagster_sao.core.errors import DagsterSaoError
from dagster_sao.orchestration.events.event_schema import (
    BUILD_KEY,
    ELSEWHERE_KEY,
    FAILURE_KEY,
    HISTORY_KEY,
    REUSED_KEY,
    TESTS_KEY,
)
from dagster_sao.orchestration.messages import sentence
from dagster_sao.warehouse.dbt_private.environment import environment_of_dbt
from dagster_sao.warehouse.errors import without_quoted_lines
from dagster_sao.warehouse.profiles import learn_profiles
from dagster_sao.warehouse.redaction import MaskedStream, learn, masked, masked_values, secrets_in

# State that is read back: digests and ids, without foreign text.
_RECORDS = frozenset(
    {BUILD_KEY, ELSEWHERE_KEY, FAILURE_KEY, HISTORY_KEY, REUSED_KEY, TESTS_KEY, "unique_id", "invocation_id"}
)
# The parts of dbt's events that the run reads: names and values that dbt itself makes.
_UNTOUCHED = frozenset({"node_info", "status", "invocation_id", "name", "ts", "level", "code"})
_WITH_METADATA = (dg.AssetMaterialization, dg.AssetObservation, dg.AssetCheckEvaluation, dg.AssetCheckResult)


def learn_secrets(dbt_project: DbtProject, variables: Mapping[str, Any]) -> None:
    """Learn the secrets of a project's profiles, environment and variables. Never fails."""
    learn_profiles(dbt_project.project_dir, dbt_project.profiles_dir)
    learn(secrets_in(dict(variables), environment_of_dbt(dbt_project.project_dir)))


class SecretError(Exception):
    """Stands in for an error with a secret in its message or in the message of a cause."""


@contextmanager
def errors_masked() -> Iterator[None]:
    """Mask the secrets in the message of an error and in the messages of its causes: Dagster stores them all."""
    try:
        yield
    except Exception as error:
        told = "".join(traceback.format_exception(error))
        if masked(told) == told:
            raise
        if isinstance(error, dg.Failure):
            raise _masked_failure(error) from None
        msg = sentence(error) if isinstance(error, DagsterSaoError) else f"{type(error).__name__}: {sentence(error)}"
        raise SecretError(msg).with_traceback(error.__traceback__) from None


def _masked_failure(error: dg.Failure) -> dg.Failure:
    return dg.Failure(
        masked(error.description or ""), metadata=masked_metadata(error.metadata), allow_retries=error.allow_retries
    )


class _Mask(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        """Mask the message. Drops no record."""
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            told = "".join(traceback.format_exception(record.exc_info[1]))
            if masked(told) != told:
                text, record.exc_info = f"{text}\n{told}", None
        if (safe := masked(text)) != text or record.exc_info is None:
            record.msg, record.args = safe, None
        return True


_MASK = _Mask()


def mask_log(log: Any) -> None:  # noqa: ANN401 (a logger, Dagster's or Python's)
    """Mask the messages of a logger, and of the one that dagster-dbt uses."""
    log.addFilter(_MASK)
    dg.get_dagster_logger().addFilter(_MASK)


def masked_event(event: Any) -> Any:  # noqa: ANN401 (any of Dagster's events)
    """Return an event with its description and metadata masked: itself where there is nothing to mask."""
    metadata = masked_metadata(getattr(event, "metadata", None) or {})
    if isinstance(event, dg.Output):
        if metadata == dict(event.metadata):
            return event
        return dg.Output(
            event.value, event.output_name, metadata=metadata, data_version=event.data_version, tags=event.tags
        )
    if not isinstance(event, _WITH_METADATA):
        return event
    description = masked(event.description) if event.description else event.description
    if description == event.description and metadata == dict(event.metadata):
        return event
    if isinstance(event, dg.AssetCheckEvaluation):  # the one that is not a named tuple
        return dg.AssetCheckEvaluation(
            asset_key=event.asset_key,
            check_name=event.check_name,
            passed=event.passed,
            metadata=metadata,
            target_materialization_data=event.target_materialization_data,
            severity=event.severity,
            description=description,
            blocking=event.blocking,
        )
    return event._replace(description=description, metadata=metadata)


@contextmanager
def dbt_messages_masked() -> Iterator[None]:
    """Keep secrets, and quoted lines of YAML files, out of the messages of dbt that dagster-dbt copies to stdout.

    dagster-dbt logs the traceback of an adapter that it cannot open, without masking. It is left out: dbt itself says what is wrong.
    """
    stream: Any = MaskedStream(sys.stdout, without_quoted_lines)
    log = dg.get_dagster_logger()
    log.addFilter(_has_no_traceback)
    try:
        with redirect_stdout(stream):
            yield
    finally:
        log.removeFilter(_has_no_traceback)


def _has_no_traceback(record: logging.LogRecord) -> bool:
    return record.exc_info is None


def masked_lines(lines: Callable[[], Iterator[Any]]) -> Callable[[], Iterator[Any]]:
    """Return the lines of dbt, each a text or an event, with masked messages. Names and results stay."""
    return lambda: (masked(line) if isinstance(line, str) else _masked_dbt_event(line) for line in lines())


def _masked_dbt_event(event: Any) -> Any:  # noqa: ANN401 (JSON)
    if not isinstance(event, dict):
        return event
    return {
        part: {name: value if name in _UNTOUCHED else masked_values(value) for name, value in content.items()}
        if isinstance(content, dict)
        else content
        for part, content in event.items()
    }


def masked_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of an event with its texts masked. Records, which are read again, stay."""
    return {name: value if name in _RECORDS else _value(value) for name, value in metadata.items()}


def _value(value: Any) -> Any:  # noqa: ANN401 (any of Dagster's metadata values)
    if isinstance(value, dg.TextMetadataValue):
        return dg.MetadataValue.text(masked(value.text or ""))
    if isinstance(value, dg.MarkdownMetadataValue):
        return dg.MetadataValue.md(masked(value.md_str or ""))
    if isinstance(value, dg.JsonMetadataValue):
        return dg.MetadataValue.json(masked_values(value.data))
    return value
