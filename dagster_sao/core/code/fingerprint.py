"""The fingerprint of a node: its code in named parts, so that a change can be named.

It holds two bases: the parts read from the templates, which are always there, and the compiled SQL, if the manifest has it.
Two fingerprints are compared by their compiled SQL if both have it, so that a macro edit without effect passes; else by their
parts. So neither a `dbt parse` after a `dbt compile` nor the reverse looks like a change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from dagster_sao.core.code.versions import digest
from dagster_sao.sql.jinja_reads import ANY

SEED_FILE = "file"
"""The part of a seed's fingerprint that stands for the content of its file."""
SEED_COLUMNS = "columns"
"""The part that stands for the columns that dbt gives a seed's table."""
RELATION_NAME = "config: relation_name"
"""The part that stands for the place of the relation."""
FUNCTION = "function: "
"""The prefix of the parts that stand for functions which the node calls."""
_TEMPLATE_PARTS = (
    "sql", "macro:", "var:", "env_var:", "ephemeral:", "source:", "parents", "meta:", "model:", "target:", "flags:",
    "graph:", "dispatch", "relation:", "dbt_version:", "ref:",
    "macros of a package",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The code and build-relevant config of a node, as named parts with a short hash each."""

    parts: Mapping[str, str]
    compiled: str | None = None
    digest: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        """Derive the digest of the parts."""
        if not self.digest:
            object.__setattr__(self, "digest", digest(self.parts))

    @property
    def functions(self) -> frozenset[str]:
        """The names of the functions that it calls."""
        return frozenset(name.removeprefix(FUNCTION) for name in self.parts if name.startswith(FUNCTION))

    def changes_since(self, before: Fingerprint) -> tuple[str, ...]:
        """Return the names of the parts that differ from `before`, the SQL first; empty when it is the same code."""
        if before.digest == self.digest:
            return ()
        changed = {name for name in (*before.parts, *self.parts) if before.parts.get(name) != self.parts.get(name)}
        if self.compiles_like(before):
            changed = {name for name in changed if not name.startswith(_TEMPLATE_PARTS)}
        return tuple(sorted(changed, key=lambda name: (name != "sql", name)))

    def unlike(self, other: Fingerprint, mark: str) -> Fingerprint:
        """Return the code of a build that was made from this one or from `other`: it equals neither, by a unique `mark`.

        Itself where the two are the same.
        """
        if self.digest == other.digest:
            return self
        differing = {name for name in (*self.parts, *other.parts) if self.parts.get(name) != other.parts.get(name)}
        return Fingerprint({**self.parts, **dict.fromkeys(differing, mark)})

    def compiles_like(self, before: Fingerprint) -> bool:
        """Return whether both are known to compile to the same SQL."""
        return self.compiled is not None and self.compiled == before.compiled


def is_wide(part: str) -> bool:
    """Return whether a part of a fingerprint holds all values of a kind, because the code does not spell out their names."""
    return part.endswith(ANY)


def kind_of(part: str) -> str:
    """Return the kind of reads that a part of a fingerprint is about."""
    return part.partition(":")[0]


class Part(NamedTuple):
    """A part of a fingerprint. Two of one node may have the same name, such as those of macros of two packages."""

    name: str
    value: str
    of: str = ""
    """The unique id of the thing of this name: two that trade their values are a change."""


def by_name(found: Iterable[Part]) -> dict[str, str]:
    """Return the values of parts by name. Where those of one name differ, all of them count, and which thing has which."""
    of_name: dict[str, dict[Part, None]] = {}
    for part in found:
        of_name.setdefault(part.name, {})[part] = None
    return {name: _joined(parts) for name, parts in of_name.items()}


def _joined(parts: Iterable[Part]) -> str:
    values = {part.value for part in parts}
    return values.pop() if len(values) == 1 else short(sorted((part.of, part.value) for part in parts))


def short(value: object) -> str:
    """Return the hash of one part. The order of keys counts."""
    return digest(value, keeps_order=True)[:12]
