"""What the ticks of sensors and schedules have in common: the instance of the process, and a log that opens late."""

from __future__ import annotations

from typing import Protocol

import dagster as dg

from dagster_sao.warehouse.redaction import masked

TickContext = dg.SensorEvaluationContext | dg.ScheduleEvaluationContext

_open_instance: dg.DagsterInstance | None = None


def tick_instance(context: TickContext) -> dg.DagsterInstance:
    """Return the instance of a tick, in a code server one for the life of the process.

    Dagster opens an instance for every tick. This takes longer than the rest of a quiet tick, and discards the state that
    was read from the last one. The daemon, too, keeps one instance open.
    """
    global _open_instance  # noqa: PLW0603 (a code server works for one instance)
    ref = context.instance_ref
    if ref is None:  # somebody else opened it and closes it
        return context.instance
    if _open_instance is None or _open_instance.get_ref() != ref:
        _open_instance = dg.DagsterInstance.from_ref(ref)
    return _open_instance


class TickLog:
    """A tick's log, opened by its first message: with it Dagster opens the instance anew, see `tick_instance`."""

    def __init__(self, context: TickContext) -> None:
        """Open nothing yet."""
        self._context = context

    def info(self, message: str) -> None:
        """Log a message, without secrets."""
        self._context.log.info(masked(message))

    def warning(self, message: str) -> None:
        """Log a warning, without secrets."""
        self._context.log.warning(masked(message))


class _Log(Protocol):
    def warning(self, message: str) -> None: ...


class FirstWarnings:
    """Logs each warning the first time only, however many ticks give it."""

    def __init__(self) -> None:
        """Nothing was logged yet."""
        self._logged: set[str] = set()

    def warn(self, log: _Log, message: str) -> None:
        """Log a warning that was not logged before."""
        if message not in self._logged:
            self._logged.add(message)
            log.warning(message)
