"""The trace of one node, recorded while dbt built it, and its form in a file of traces."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_LAYOUT = 1
"""Changes when a reader of older lines would misunderstand newer ones."""
MAX_TEXT = 100_000
"""A longer statement is left out: the empty text stands for it. A longer query is known by its digest alone."""
SHARED = "shared"
"""The kind of reads of what a template of another node, or a hook, may have written: it may come from anywhere."""
SQL = "sql"
LEFT_OUT = "left out"
"""Stands for the method if a node asked too many questions to record: the argument is the number left out."""
OF = " of "
"""Stands in a read's name before the node, or macro, whose variables or attributes were read."""


@dataclass(frozen=True, slots=True)
class Query:
    """One question that a node's own code asked the warehouse while it was compiled or built."""

    method: str
    """`sql` for a query, else the adapter's method."""
    arguments: tuple[Any, ...]
    """The text of a query, or the arguments of the method: a relation is `[database, schema, identifier]`."""
    answer: str
    """The digest of the answer (`digests.answer_digest`)."""
    is_shortened: bool = False
    """An argument was too long or not plain: its digest stands in its place, and the question cannot be asked again."""


@dataclass(frozen=True, slots=True)
class Trace:
    r"""What one node read while dbt built it: its own reads, and the reads of every ephemeral model inlined in it.

    A file of traces has one JSON object per line, written before dbt logs that the node finished.
    Empty parts are left out.

    | key | holds |
    |---|---|
    | `layout` | `_LAYOUT` |
    | `node` | the node's unique id |
    | `kinds` | the kinds of reads that were watched, separated by blanks: a kind that is not there may have been read unseen |
    | `reads` | by name of what was read: a digest (12 hex digits), `-` for absent, `?` for a value that cannot be compared |
    | `macros` | unique ids of the macros called, without macros of dbt and of its adapter |
    | `state` | answers of the warehouse about what exists |
    | `queries` | `[method, [arguments], answer]`, with a fourth element `true` where an argument was shortened |
    | `statements` | the SQL that was run for the node, hooks and own queries included, in order |
    | `existed` | whether the node's relation existed before; left out where dbt did not know |
    | `full_refresh` | true when the node was built by a full refresh |

    Names of reads, and the function of `digests` that computes the digest again:

    | name | is read by | digest |
    |---|---|---|
    | `var: NAME` | `var(NAME)` | `mapping_digest` of the variables as given, before their own Jinja is rendered |
    | `has_var: NAME` | `var.has_var(NAME)`, where `var: NAME` was not read | `digest` of a boolean |
    | `env_var: NAME` | `env_var(NAME)` | `env_digest`; never recorded for `DBT_ENV_SECRET…` |
    | `config: KEY` | `config.get`, `config.require`, `config.persist_…` | `config_digest` |
    | `meta: KEY` | `config.meta_get`, `config.meta_require` | `meta_digest` |
    | `model: KEY`, `model: config.KEY`, `model: *` | `model.KEY`, `model.config.KEY`, the whole object | `model_digest` |
    | `graph: *` | any part of `graph` | `graph_digest` |
    | `shared: graph.KEY` | a key of `graph` that dbt does not put there | `?`, or `-` where no other template had written it |
    | `target: KEY`, `target: *` | `target.KEY` (or `env.KEY`), the whole object | `mapping_digest` |
    | `flags: KEY`, `flags: *` | `flags.KEY` | `mapping_digest` |
    | `invocation_args_dict: KEY`, … `*` | the same | `mapping_digest` |
    | `this: *` | a template or macro that names `this` | `digest` of the relation's rendered name, a text |
    | `dbt_version: *` | `dbt_version` | `digest` |
    | `… of UNIQUE_ID` | an inlined ephemeral model, of itself or of its package's variables; a macro that an adapter executes | the same, for that node |
    | `dbt_metadata_envs: *`, `selected_resources: *`, `context: *`, `clock` | `context` iterated over; `clock`: `run_started_at`, `invocation_id`, `thread_id` | `?` |

    A read counts when own code is on Jinja's stack: the node's template, a hook, or a macro of the project or of a
    package. Reads by dbt's built-in materializations do not, except reads of `var()` and `env_var()`.
    Words of `state`: `is_incremental() = true`, `get_relation(database.schema.identifier) = table` (`-`: there is none),
    `check_schema_exists(database, schema) = true`. Of a hook at the start of the run, answers about schemas that are no longer the same when
    all of these hooks have ended.
    """

    node: str
    kinds: frozenset[str]
    reads: Mapping[str, str] = field(default_factory=dict)
    macros: tuple[str, ...] = ()
    state: tuple[str, ...] = ()
    queries: tuple[Query, ...] = ()
    statements: tuple[str, ...] = ()
    existed: bool | None = None
    full_refresh: bool = False

    def to_json(self) -> str:
        """Return one line for a file of traces."""
        parts = {
            "reads": dict(sorted(self.reads.items())),
            "macros": list(self.macros),
            "state": list(self.state),
            "queries": [_to_list(query) for query in self.queries],
            "statements": list(self.statements),
        }
        document: dict[str, Any] = {"layout": _LAYOUT, "node": self.node, "kinds": " ".join(sorted(self.kinds))}
        document.update((key, part) for key, part in parts.items() if part)
        if self.existed is not None:
            document["existed"] = self.existed
        if self.full_refresh:
            document["full_refresh"] = True
        return json.dumps(document, separators=(",", ":"))

    @classmethod
    def from_json(cls, line: str) -> Trace | None:
        """Return the trace of a line, None where the line is of another layout. Raises ValueError for anything else."""
        try:
            document = json.loads(line)
            if document["layout"] != _LAYOUT:
                return None
            return cls(
                node=document["node"],
                kinds=frozenset(document["kinds"].split()),
                reads=document.get("reads", {}),
                macros=tuple(document.get("macros", ())),
                state=tuple(document.get("state", ())),
                queries=tuple(_from_list(each) for each in document.get("queries", ())),
                statements=tuple(document.get("statements", ())),
                existed=document.get("existed"),
                full_refresh=document.get("full_refresh", False),
            )
        except (LookupError, TypeError, AttributeError) as error:
            msg = f"not a trace of layout {_LAYOUT}: {line[:80]!r}"
            raise ValueError(msg) from error


def split_read(name: str) -> tuple[str, str, str | None]:
    """Return the kind of a read, its key, and the unique id where it is of another node than the trace's.

    >>> split_read("config: meta of model.shop.eph")
    ('config', 'meta', 'model.shop.eph')
    """
    kind, _, rest = name.partition(": ")
    key, of, node = rest.rpartition(OF)
    return (kind, key, node) if of and "." in node else (kind, rest, None)


def _to_list(query: Query) -> list[Any]:
    found = [query.method, list(query.arguments), query.answer]
    return [*found, True] if query.is_shortened else found


def _from_list(found: list[Any]) -> Query:
    method, arguments, answer, *shortened = found
    plain = (tuple(each) if isinstance(each, list) else each for each in arguments)
    return Query(method, tuple(plain), answer, bool(shortened))
