"""How a database treats relations that exist: the traits that decisions depend on. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RelationTraits:
    """What happens to relations on a database. The defaults are for an unknown database."""

    binds_views: bool = True
    """Whether the columns of a view stay as they were when it was created, whatever happens to what it reads."""
    drops_dependent_views: bool = False
    """Whether replacing a table drops or strands the views that read it."""
    gets_new_sql: frozenset[str] = frozenset()
    """The materializations whose existing relation gets new SQL from dbt without a full refresh, where most databases only
    refresh its rows with the old SQL."""
