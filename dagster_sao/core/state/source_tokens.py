"""The token of a source that its probe does not track, or not all of it: what the probe said, and when it counted as updated."""

from __future__ import annotations

_UNTRACKED = "untracked "
_JOINT = " | "


def untracked_token(told: str | None, when: str) -> str:
    """Return the token of a source that counts as updated at `when`, beside what its probe said, if anything.

    >>> untracked_token(None, "17"), untracked_token("2026-01-01", "17")
    ('untracked 17', '2026-01-01 | untracked 17')
    """
    return f"{told}{_JOINT}{_UNTRACKED}{when}" if told else f"{_UNTRACKED}{when}"


def told_by_probe(token: str) -> str | None:
    """Return what the probe said in a recorded token, None when it said nothing.

    >>> told_by_probe("2026-01-01 | untracked 17"), told_by_probe("2026-01-01"), told_by_probe("untracked 17")
    ('2026-01-01', '2026-01-01', None)
    """
    told, joint, _ = token.rpartition(_JOINT + _UNTRACKED)
    if joint:
        return told
    return None if token.startswith(_UNTRACKED) else token
