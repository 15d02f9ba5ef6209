"""The evidence of a build or a test: the reads that dbt made, the inputs that dbt does not know, and the proven facts.

Code is unchanged if every value that dbt read of it is unchanged. If dbt may take another path through the templates the next
time, its last reads do not predict the next ones: then everything that the templates may read counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from dagster_sao.core.code.context_values import VARIABLES
from dagster_sao.core.code.fingerprint import Fingerprint, is_wide, kind_of
from dagster_sao.core.code.versions import digest
from dagster_sao.core.manifest.graph import NodeKind

_UNNAMED_ENVIRONMENT = "env_var: *"
"""The part of a fingerprint that stands for environment variables under computed names."""


@dataclass(frozen=True, slots=True)
class StartReads:
    """The reads of the hooks at the start of a run, where they tell what another run of the same hooks reads."""

    parts: frozenset[str] = frozenset()
    """The wide parts of fingerprints that these reads stand for."""
    values: Mapping[str, str] = field(default_factory=dict)
    """The hash of each value then, as in `TracedReads`."""
    path: Mapping[str, str] = field(default_factory=dict)
    """The same of what changes no rows, but chooses what else is read, such as the nodes of the project."""

    def told_parts(self, value: Callable[[str], str]) -> frozenset[str]:
        """Return the wide parts that another run would not read in full either. `value` as in `code_changes`."""
        return self.parts if all(value(name) == was for name, was in self.path.items()) else frozenset()


@dataclass(frozen=True, slots=True)
class TracedReads:
    """The reads from a node's context while dbt built the node."""

    values: Mapping[str, str]
    """The hash of each value then, by the name of the read (`var: x`, `macro: macro.shop.cents`)."""
    unseen: frozenset[str] = frozenset()
    """The kinds of reads that were not traced."""
    start: StartReads = StartReads()
    """What the code at the start of the run read."""
    follows_state: bool = False
    """Whether the templates asked which relations exist, and would get another answer the next time, as after a first build."""
    asks_rows: bool = False
    """Whether the templates asked for rows of what the node reads, or for more than its columns."""
    asks_columns: bool = False
    """Whether the templates asked for columns of what the node reads, or whether it exists."""
    asks_others: bool = False
    """Whether the templates asked about inputs that dbt does not know."""

    @property
    def asks_parents(self) -> bool:
        """Whether the templates asked about what the node reads."""
        return self.asks_rows or self.asks_columns

    def tell_of(self, *, parents_changed: bool) -> bool:
        """Return whether the next build takes the same path through the templates, as long as the reads are the same."""
        return not self.follows_state and not (self.asks_parents and parents_changed)


@dataclass(frozen=True, slots=True)
class Evidence:
    """The evidence of one build, or of one test."""

    reads: TracedReads | None = None
    """None where nothing was traced: then everything that the templates may read counts."""
    untracked: tuple[str, ...] = ()
    """Inputs that dbt does not know: relations, files, answers of the catalog."""
    is_deterministic: bool = False
    """Whether the SQL that was run is proven to give the same rows over the same data."""
    definition: str = ""
    """The digest of a view's SQL, by its normal form; empty for others, and where dbt did not write it."""

    @property
    def asks_others(self) -> bool:
        """Whether dbt was seen to ask about inputs that dbt does not know."""
        return self.reads is not None and self.reads.asks_others


UNSEEN = Evidence()


def code_changes(
    current: Fingerprint,
    before: Fingerprint,
    evidence: Evidence,
    *,
    value: Callable[[str], str],
    parents_changed: bool,
) -> tuple[str, ...]:
    """Return the parts of a node's or test's code that differ from its last build; empty when none does.

    `value` returns the current hash of something that was read.
    """
    changes = current.changes_since(before)
    reads = evidence.reads
    if reads is None or current.compiles_like(before):
        return changes
    if not reads.start.parts.isdisjoint(changes):
        told = reads.start.told_parts(value)
        changes = tuple(name for name in changes if name not in told)
    if reads.tell_of(parents_changed=parents_changed):
        changes = tuple(name for name in changes if not is_wide(name) or kind_of(name) in reads.unseen)
    values = {**reads.values, **reads.start.values}
    moved = [name for name, was in values.items() if name not in changes and value(name) != was]
    return (*changes, *map(_shown, moved))


def _shown(name: str) -> str:
    return "a variable that on-run-start reads" if kind_of(name) == VARIABLES else name


def code_digest(fingerprint: Fingerprint, evidence: Evidence) -> str:
    """Return the digest of the code that a build really ran, as far as its rows depend on it."""
    reads = evidence.reads
    if reads is None or reads.follows_state:
        return fingerprint.digest
    parts = {
        name: part
        for name, part in fingerprint.parts.items()
        if name not in reads.start.parts and (not is_wide(name) or kind_of(name) in reads.unseen)
    }
    values = {**reads.values, **reads.start.values}
    return digest([parts, values]) if values or parts != fingerprint.parts else fingerprint.digest


def untracked_inputs(fingerprint: Fingerprint, evidence: Evidence) -> tuple[str, ...]:
    """Return the inputs of a node whose changes cannot be detected, for messages."""
    is_watched = (
        evidence.reads is not None and not evidence.reads.follows_state and "env_var" not in evidence.reads.unseen
    )
    if _UNNAMED_ENVIRONMENT in fingerprint.parts and not is_watched:
        return (*evidence.untracked, "environment variables under computed names")
    return evidence.untracked


def proven_kind(kind: NodeKind, evidence: Evidence) -> NodeKind:
    """Return what the builds of a node do to its rows: a table is a function of its inputs only where that is proven.

    So is a seed of its file: its hooks may make other rows each time.
    """
    is_unproven = kind in {NodeKind.DETERMINISTIC, NodeKind.SEED} and not evidence.is_deterministic
    return NodeKind.HISTORY_DEPENDENT if is_unproven else kind
