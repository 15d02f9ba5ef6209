"""When the answer of a probe is new data of a source, and the token and history to record then.

A token is opaque and compared for equality only. The token of a source that its probe does not track, or not completely,
also names when the source counted as updated.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from dagster_sao.core.durations import is_waiting
from dagster_sao.core.state.state import SourceState

REMEMBERED_TOKENS = 20
_UNTRACKED = "untracked "
_JOINT = " | "


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """The part of a probe's answer that decides whether there is new data."""

    token: str | None
    is_untracked: bool = False
    """Whether the data may change while the token stays, or there is no token."""
    has_failed: bool = False


def next_state(
    answer: ProbeAnswer,
    last: SourceState | None,
    now: datetime,
    *,
    untracked_interval: timedelta,
    untracked_at: str | None = None,
) -> SourceState | None:
    """Return the state to record for a source, None when there is no new data.

    A source that is not tracked counts as updated at `untracked_at`, or without it every `untracked_interval`.
    """
    token = _next_token(answer, last, now, untracked_interval, untracked_at)
    return state_with(last, token, now) if token is not None else None


def state_with(last: SourceState | None, token: str, now: datetime) -> SourceState:
    """Return the state of a source after a new token, with the history of the latest tokens."""
    if last is None:
        return SourceState(token, now, ((token, now),))
    history = last.history or ((last.token, last.recorded_at),)
    return SourceState(token, now, (*history, (token, now))[-REMEMBERED_TOKENS:], last.columns)


def _next_token(
    answer: ProbeAnswer,
    last: SourceState | None,
    now: datetime,
    untracked_interval: timedelta,
    untracked_at: str | None,
) -> str | None:
    if answer.has_failed:
        return None
    if not answer.is_untracked:
        return None if last is not None and last.token == answer.token else answer.token
    if untracked_at is not None:
        return _untracked_token(answer.token, untracked_at)
    is_due = last is None or not is_waiting(now, last.recorded_at, untracked_interval)
    has_moved = answer.token is not None and last is not None and told_by_probe(last.token) != answer.token
    # Count in intervals, so that a sensor and a run that probe at the same moment record the same token.
    interval = f"{now.timestamp() // untracked_interval.total_seconds():.0f}"
    return _untracked_token(answer.token, interval) if is_due or has_moved else None


def _untracked_token(told: str | None, when: str) -> str:
    """Return the token of a source that counts as updated at `when`, beside the token of its probe, if there is one.

    >>> _untracked_token(None, "17"), _untracked_token("2026-01-01", "17")
    ('untracked 17', '2026-01-01 | untracked 17')
    """
    return f"{told}{_JOINT}{_UNTRACKED}{when}" if told else f"{_UNTRACKED}{when}"


def is_untracked_token(token: str) -> bool:
    """Return whether the data may change while a recorded token stays.

    >>> [is_untracked_token(token) for token in ("2026-01-01", "untracked 17", "2026-01-01 | untracked 17")]
    [False, True, True]
    """
    return told_by_probe(token) != token


def told_by_probe(token: str) -> str | None:
    """Return the part of a recorded token that the probe found, None when it found none.

    >>> told_by_probe("2026-01-01 | untracked 17"), told_by_probe("2026-01-01"), told_by_probe("untracked 17")
    ('2026-01-01', '2026-01-01', None)
    """
    told, joint, _ = token.rpartition(_JOINT + _UNTRACKED)
    if joint:
        return told
    return None if token.startswith(_UNTRACKED) else token
