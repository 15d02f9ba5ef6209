"""The code that is reached from the templates of a node, test or function, as parts of its fingerprint: macros, and values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dagster_sao.core.code.context_values import ContextValues
from dagster_sao.core.code.fingerprint import Part, is_wide, kind_of, short
from dagster_sao.core.code.text_facts import TextFacts
from dagster_sao.core.code.units import HOOKS, Unit, Units
from dagster_sao.core.manifest import inert_settings
from dagster_sao.core.manifest.macros import Macros
from dagster_sao.sql.jinja_reads import ANY, OF_A_PACKAGE, Read

EMPTY: tuple[object, ...] = (None, "", [], {})
"""The values of a config that change nothing, unless some code reads it."""
# A hook at the start of each run may read these without changing the rows of a model: it only keeps what dbt knows of the
# project.
KEPT_BY_START_HOOKS = frozenset({"graph", "model", "config", "meta"})


@dataclass(frozen=True, slots=True)
class StartHook:
    """A hook that dbt runs at the start of each run: its code is part of the code of all nodes."""

    unique_id: str
    form: str
    """The normal form of its SQL."""
    parts: tuple[Part, ...]
    """The macros and values that it may read."""
    wide: tuple[Part, ...]
    """All values of a kind, where its code does not spell out the names. Only a trace of the hook itself stands for them."""
    may_share: bool
    """Whether it may put something into dbt's `graph`, where other templates find it."""


def parts_of_start(hooks: Sequence[StartHook]) -> list[Part]:
    """Return the parts of the code that dbt runs at the start of each run."""
    forms = [[hook.unique_id, hook.form] for hook in hooks]
    of_hooks = [part for hook in hooks for part in (*hook.parts, *hook.wide)]
    return [Part("on-run-start", short(forms)), *of_hooks] if forms else []


class ReachedCode:
    """The macros and values of one manifest, in the form in which they are compared."""

    def __init__(self, macros: Macros, units: Units, facts: TextFacts, values: ContextValues) -> None:
        """Read nothing yet."""
        self._macros, self._units, self._facts, self._values = macros, units, facts, values
        self._forms: dict[str, str] = {}

    def parts(self, units: Iterable[Unit], own: str, seen: AbstractSet[str] = frozenset()) -> Iterator[Part]:
        """Yield the macros that may be called, and the values that they, the templates and these values may read.

        `own` is the unique id of the node, test or function: its config is in its fingerprint anyway.
        """
        for unit in units:
            yield from map(self._macro_part, unit.macros)
            # A macro sees the variables of the model that calls it, whatever package the macro is of.
            reads = self._units.values_read(unit)
            for read in reads:
                if unit.props["unique_id"] != own or not _counts_anyway(read, unit.props):
                    yield from self.value_parts(read, unit.props)
            if texts := sorted(self._values.templates(reads, unit.props) - seen):
                rendered = self._units.unit({**unit.props, "depends_on": {}}, texts)
                yield from self.parts([rendered], own, seen | set(texts))

    def value_parts(self, read: Read, props: Mapping[str, Any]) -> Iterator[Part]:
        """Yield the part for a value that the entry `props` of the manifest reads."""
        kind, name = read
        if kind == "macro":
            yield Part("macro: *", self._any_macro)
        elif read == OF_A_PACKAGE:
            yield Part("macros of a package", self._any_macro)
        elif kind == "graph":  # its sections are compared as a whole
            yield Part(f"graph: {ANY}", self._values.digest((kind, ANY), props), str(props["unique_id"]))
        else:
            yield Part(f"{kind}: {name}", self._values.digest(read, props), str(props["unique_id"]))

    def start_hooks(self, entries: Iterable[Mapping[str, Any]]) -> list[StartHook]:
        """Return the hooks that dbt runs at the start of each run, such as settings of the session."""
        hooks = [
            props
            for props in entries
            if props["resource_type"] == "operation" and "on-run-start" in (props.get("tags") or ())
        ]
        # Not by their `index`: dbt numbers them anew when it runs them.
        return [self._start_hook(props) for props in sorted(hooks, key=lambda props: str(props["unique_id"]))]

    def _start_hook(self, props: Mapping[str, Any]) -> StartHook:
        raw, unique_id = str(props.get("raw_code") or ""), str(props["unique_id"])
        unit = self._units.unit(props, [raw])
        reads = self._units.values_read(unit)
        parts = [part for part in self.parts([unit], own="") if kind_of(part.name) not in KEPT_BY_START_HOOKS]
        own = unique_id.rsplit(".", 1)[-1]
        return StartHook(
            unique_id=unique_id,
            form=self.normal_form(raw),
            parts=tuple(part for part in parts if not is_wide(part.name)),
            wide=tuple(part._replace(name=f"{own} ({part.name})") for part in parts if is_wide(part.name)),
            may_share=not reads.isdisjoint({("graph", ANY), ("macro", ANY), OF_A_PACKAGE}),
        )

    def macro_in_use(self, unique_id: str) -> str:
        """Return a short hash of a macro and of those that dbt may call in its place; empty if it no longer exists."""
        return self._hash_of(self._macros.rivals(unique_id)) if unique_id in self._macros else ""

    def macros_named(self, name: str) -> str:
        """Return a short hash of the project's macros of a name; empty for none."""
        found = [uid for uid, own in sorted(self._macros.own.items()) if own == name or uid.endswith(f".{name}")]
        return self._hash_of(found) if found else ""

    def macro_form(self, unique_id: str) -> str:
        """Return the normal form of a macro."""
        if unique_id not in self._forms:
            self._forms[unique_id] = self._facts.macro_form(self._macros.text(unique_id))
        return self._forms[unique_id]

    def normal_form(self, template: str) -> str:
        """Return the normal form of a SQL template."""
        return self._facts.template_form(template, self._overridden)

    def _macro_part(self, unique_id: str) -> Part:
        return Part(f"macro: {unique_id.rsplit('.', 1)[-1]}", self.macro_form(unique_id), unique_id)

    @cached_property
    def _any_macro(self) -> str:
        return self._hash_of(sorted(self._macros.own))

    def _hash_of(self, macros: Iterable[str]) -> str:
        return short([[uid, self.macro_form(uid)] for uid in macros])

    @cached_property
    def _overridden(self) -> AbstractSet[str]:
        """The names of dbt's own functions that macros of the project or a package replace."""
        return {"ref", "source"}.intersection(self._macros.own.values())


def _counts_anyway(read: Read, props: Mapping[str, Any]) -> bool:
    """Return whether something of a node's own config is part of its fingerprint whether or not some code reads it."""
    kind, name = read
    if kind != "config" or name.endswith(ANY):
        return False
    if name in HOOKS:
        return True
    without = inert_settings.OF_TESTS if props["resource_type"] == "test" else inert_settings.OF_NODES
    return name not in without and (props.get("config") or {}).get(name) not in EMPTY
