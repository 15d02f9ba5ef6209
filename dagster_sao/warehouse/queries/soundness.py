"""Whether a last-modified time moves with every change of a table's rows. Pure.

A time that is not known to be sound counts as unsound: one that misses a delete would silently hide it.
"""

from __future__ import annotations

from dagster_sao.core.manifest.graph import Source
from dagster_sao.warehouse.adapters import traits_of


def why_unsound(source: Source, adapter_type: str, *, is_sound_here: bool) -> str | None:
    """Return why the last-modified time of this source's adapter proves nothing, None where it does.

    `is_sound_here` tells whether the target makes the times sound (`TimeTraits.sound_if`).
    """
    times = traits_of(adapter_type).times
    if times.moves_for_wildcards and (source.identifier or "").endswith("*"):
        return "the time of a BigQuery wildcard table is always now"
    if times.are_sound or is_sound_here:
        return None
    return times.flaw or f"the last-modified time of {adapter_type} is not known to move with every change"


def why_unsound_kind(kinds: tuple[str, ...]) -> str | None:
    """Return why the last-modified time of such a relation proves nothing, None for a table.

    >>> why_unsound_kind(("table",))
    >>> why_unsound_kind(("external",))
    'the last-modified time of a relation of type external is not known to move with its rows'
    """
    if kinds == ("table",):
        return None
    if not kinds:
        return "its schema's listing does not show whether it is a table"
    if len(kinds) > 1:
        return "another relation has the same name but for upper and lower case, and dbt mixes up their last-modified times"
    if kinds == ("deltasharing table",):
        return "the last-modified time of a Delta share moves with every synchronization"
    return f"the last-modified time of a relation of type {kinds[0]} is not known to move with its rows"
