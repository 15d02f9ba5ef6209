"""The protocol of a probe, and its result for one source. Plain values, safe to keep."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from dagster_sao.core.manifest.graph import Source


class ProbeKind:
    """The names of this package's probes, as people read them. Other packages add theirs."""

    QUERY: Final = "loaded_at_query"
    FIELD: Final = "loaded_at_field"
    DUCKDB: Final = "duckdb content"
    DUCKLAKE: Final = "ducklake snapshots"
    FILE: Final = "file"
    METADATA: Final = "last-modified metadata"
    POSTGRES: Final = "postgres counters"
    UNTRACKED: Final = "untracked"


@dataclass(frozen=True, slots=True)
class Observation:
    """The result of probing a source at one moment."""

    token: str | None
    """Opaque: equals an earlier token only if the data is the same. None when nothing proves that."""
    kind: str
    """The name of the probe. `ProbeKind.UNTRACKED`: the source counts as updated now and then."""
    loaded_at: datetime | None = None
    """When the data was last loaded, in UTC, where that is known. Never compared."""
    error: str | None = None
    """One sentence with the source, its file and the remedy. The token is None then."""
    warning: str | None = None
    misses_changes: bool = False
    """Whether the data may change while `token` stays: the source also counts as updated now and then. `warning` says why."""

    @property
    def counts_as_untracked(self) -> bool:
        """Whether the source counts as updated now and then, whatever its token."""
        return self.misses_changes or self.kind == ProbeKind.UNTRACKED


class Probe(Protocol):
    """One way to detect that a source's data changed."""

    @property
    def kind(self) -> str:
        """The name of the probe, as people read it."""
        ...

    def claims(self, source: Source) -> bool:
        """Return whether this probe answers for `source`, from the manifest and the target alone. Sends no statement."""
        ...

    def observe(self, sources: Sequence[Source], expired: Callable[[], bool]) -> Iterator[tuple[str, Observation]]:
        """Yield `(unique id, Observation)` of each source, with nothing open while yielding.

        Ends early, between two questions, once `expired()`: sources not yielded have not been probed.
        """
        ...
