"""Sources whose changes nothing can detect: the warning gives the reason and the remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from dagster_sao.core.manifest.graph import Source
from dagster_sao.warehouse.probes.base import Observation, ProbeKind
from dagster_sao.warehouse.probes.settings import SourceSettings, place, settings_of


class UntrackedProbe:
    """Answer for every source that no other probe claims. Costs nothing."""

    kind = ProbeKind.UNTRACKED

    def __init__(self, adapter_type: str) -> None:
        self._adapter_type = adapter_type

    def claims(self, source: Source) -> bool:  # noqa: ARG002  # whatever is left
        """Return True: this is the last probe in the order."""
        return True

    def observe(self, sources: Sequence[Source], expired: Callable[[], bool]) -> Iterator[tuple[str, Observation]]:
        """Yield a warning for each source."""
        for source in sources:
            if expired():
                return
            yield source.unique_id, untracked(source, self._why(settings_of(source)))

    def _why(self, settings: SourceSettings) -> str:
        if settings.plugin:
            return f"is loaded by the dbt-duckdb plugin '{settings.plugin}' and has no 'loaded_at_field' or 'loaded_at_query'"
        return f"has no 'loaded_at_field' or 'loaded_at_query', and {self._adapter_type} reports nothing else about it"


class OptedOutProbe:
    """Answer for sources with `freshness: null` and no `loaded_at_*`: their owner wants them left alone."""

    kind = ProbeKind.UNTRACKED

    def claims(self, source: Source) -> bool:
        """Return whether `freshness: null` is written on the source."""
        return settings_of(source).opted_out

    def observe(self, sources: Sequence[Source], expired: Callable[[], bool]) -> Iterator[tuple[str, Observation]]:
        """Yield a warning for each source."""
        for source in sources:
            if expired():
                return
            yield (
                source.unique_id,
                untracked(source, "has 'freshness: null' and no 'loaded_at_field' or 'loaded_at_query'"),
            )


def untracked(source: Source, why: str, remedy: str = "Give it one of them to have it tracked") -> Observation:
    """Return the answer for a source that counts as updated now and then, with the reason and the remedy."""
    warning = f"{place(source)} {why}, so it is always considered fresh. {remedy}"
    return Observation(None, ProbeKind.UNTRACKED, warning=warning)


def untracked_view(source: Source) -> Observation:
    """Return the result for a view whose changes nothing can detect."""
    warning = (
        f"{source.label} is a view with no 'loaded_at_field' or 'loaded_at_query', so it is always considered fresh"
    )
    return Observation(None, ProbeKind.UNTRACKED, warning=warning)
