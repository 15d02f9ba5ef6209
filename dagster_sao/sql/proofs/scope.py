"""Names: which column of which source a name in a query stands for.

sqlglot's own resolution does not serve: the columns of a source may be unknown, and a name that could stand for two things must
stand for none. Every query here was run by the database, so no name in it was ambiguous to the database.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from string import ascii_lowercase, ascii_uppercase
from typing import Any

from sqlglot import exp

from dagster_sao.sql.dialects import Semantics
from dagster_sao.sql.proofs.column_types import family_of, is_null_without_value, is_scalar_type
from dagster_sao.sql.proofs.facts import NOTHING, Column, Id, Key, Member, Reason, Rows, Step, Values, with_keys
from dagster_sao.sql.proofs.properties import AcceptedValues, Known, NotNull, Relation, Unique

NODE: type[exp.Expr] = getattr(exp, "Expr", exp.Expression)
"""The class of all nodes; older releases of sqlglot have another name for it."""
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_QUOTED = re.compile(r'"([^"]+)"|`([^`]+)`|\[([^\]]+)\]')
_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)
_UPPER = str.maketrans(ascii_lowercase, ascii_uppercase)
_TABLE_ARGUMENTS = {"this", "db", "catalog", "alias"}


def argument(node: exp.Expr, name: str) -> Any:  # noqa: ANN401 (whatever sqlglot's tree holds)
    """Return an argument of a node; newer releases of sqlglot end the names that are Python keywords in `_`."""
    return node.args.get(f"{name}_") or node.args.get(name)


def classes(*names: str) -> tuple[type[exp.Expr], ...]:
    """Return sqlglot's classes of these names; older releases lack some."""
    return tuple(getattr(exp, name) for name in names if hasattr(exp, name))


def has_only(node: exp.Expr, *names: str) -> bool:
    """Return whether a node has no other arguments than these."""
    return all(not value or name.rstrip("_") in names for name, value in node.args.items())


def fold(name: str, *, quoted: bool, semantics: Semantics) -> str:
    """Return the one spelling of a name. Databases fold no other letters than ASCII's.

    >>> from dagster_sao.sql.dialects import semantics_of
    >>> postgres = semantics_of("postgres")
    >>> fold("Id", quoted=False, semantics=postgres), fold("Id", quoted=True, semantics=postgres)
    ('id', 'Id')
    """
    if semantics.folds_names == "all" or (semantics.folds_names == "lower" and not quoted):
        return name.translate(_LOWER)
    return name if quoted else name.translate(_UPPER)


def may_be_one(names: Iterable[str]) -> bool:
    """Return whether two of these names could be one to a database that folds more letters than ASCII's: some do, by their settings.

    >>> may_be_one(["id", "ID", "größe"]), may_be_one(["größe", "GRÖSSE"])
    (False, True)
    """
    spellings: dict[str, set[str]] = {}
    for name in names:
        spellings.setdefault(name.casefold(), set()).add(name.translate(_LOWER))
    return any(len(found) > 1 for found in spellings.values())


def fold_text(text: str, semantics: Semantics) -> str | None:
    """Return the name that a property's column stands for; None where it is an expression."""
    if _PLAIN.fullmatch(text):
        return None if text.lower() in semantics.keywords else fold(text, quoted=False, semantics=semantics)
    found = _QUOTED.fullmatch(text)
    return fold(next(filter(None, found.groups())), quoted=True, semantics=semantics) if found else None


@dataclass(frozen=True, slots=True)
class Environment:
    """The environment of a query: the names that it can use."""

    dialect: str | None
    semantics: Semantics
    relations: Mapping[str, Relation]
    names: frozenset[str]
    """All names in the whole text, for sources whose columns are unknown."""
    derive: Callable[[exp.Expr, Environment], Rows]
    """Derives the rows of a query within this one."""
    queries: Mapping[str, Rows] = field(default_factory=dict)
    """The common table expressions in reach."""
    is_inner: bool = False
    """Whether a name could stand for a column of a query around this one."""
    is_lateral: bool = False
    """Whether this is a query in FROM that could read the sources to its left."""

    def fold(self, identifier: exp.Expr) -> str:
        """Return the one spelling of an identifier."""
        return fold(identifier.name, quoted=bool(identifier.args.get("quoted")), semantics=self.semantics)

    def is_name(self, node: exp.Expr) -> bool:
        """Return whether a node is the name of a column, with or without its source."""
        if not (
            isinstance(node, exp.Column) and isinstance(node.this, exp.Identifier) and has_only(node, "this", "table")
        ):
            return False
        is_plain = not node.args.get("table") and not node.this.args.get("quoted")
        return not (is_plain and node.this.name.lower() in self.semantics.keywords)

    def inner(self) -> Environment:
        """Return the environment of a query inside an expression."""
        return replace(self, is_inner=True)


def _relation_rows(key: str, relation: Relation, environment: Environment) -> Rows:
    """Return what is known of a relation's rows."""
    semantics = environment.semantics
    catalog = [fold(name, quoted=True, semantics=semantics) for name in relation.columns or ()]
    mentioned = {name for known in relation.known for name in _columns_of(known, semantics)}
    own = relation.rows or Rows()
    mentioned |= {str(name) for name in own.columns if not str(name).startswith("#")}
    names = catalog if relation.columns is not None else sorted(mentioned | environment.names)
    types = {fold(name, quoted=True, semantics=semantics): text for name, text in (relation.types or {}).items()}
    columns: dict[Id, Column] = {
        name: Column(
            shown=f"{relation.name}.{name}",
            type=family_of(types[name]) if name in types else None,
            has_scalar_type=name in types and is_scalar_type(types[name]),
            origin=(key, name),
            is_whole=True,
            nullable_because=f"no passed test says that {relation.name}.{name} is not null",
            members=(Member(key, name),) if semantics.groups_as_it_compares else (),
        )
        for name in names
    }
    keys: list[Key] = []
    for known in relation.known:
        _learn(columns, keys, known, relation, semantics)
    for name in columns.keys() & own.columns.keys():
        columns[name] = with_own(columns[name], own.columns[name], relation, semantics)
    keys.extend(own_key(key, relation) for key in own.keys if key.columns <= columns.keys())
    if len(set(catalog)) < len(catalog):
        return NOTHING
    return with_keys(Rows(columns, is_open=relation.columns is None, holds_all_of=key), keys)


def with_own(column: Column, own: Column, relation: Relation, semantics: Semantics) -> Column:
    """Return a relation's column with what is proven of it by the relation's own query."""
    not_null = own_reason(own.not_null, relation) if own.not_null is not None else None
    column = replace(
        column,
        not_null=not_null if column.not_null is None else column.not_null,
    )
    if not semantics.keeps_types:
        return column
    values, known = own.values, column.values
    if values is not None and (known is None or len(values.texts) < len(known.texts)):
        column = replace(column, values=replace(values, reason=own_reason(values.reason, relation)))
    added = (replace(member, reason=own_reason(member.reason, relation)) for member in own.members)
    return replace(column, members=(*column.members, *added))


def own_key(key: Key, relation: Relation) -> Key:
    """Return a key of a relation's own query as one of the relation."""
    return replace(key, reason=own_reason(key.reason, relation))


def own_reason(reason: Reason, relation: Relation) -> Reason:
    """Return a reason of a relation's own query for use in a proof about another. Tests name what they are about themselves."""
    own = (Step(f"the query of {relation.name} says so"),) if not reason else ()
    return (*own, *(step if step.label else replace(step, text=f"{step.text} (in {relation.name})") for step in reason))


def _columns_of(known: Known, semantics: Semantics) -> Iterator[str]:
    holds = known.property
    for text in holds.columns if isinstance(holds, Unique) else (holds.column,):
        name = fold_text(text, semantics)
        if name is not None:
            yield name


def _learn(columns: dict[Id, Column], keys: list[Key], known: Known, relation: Relation, semantics: Semantics) -> None:
    names = list(_columns_of(known, semantics))
    holds = known.property
    if any(name not in columns for name in names):
        return
    if isinstance(holds, Unique):
        # The test leaves out what IS NULL is TRUE of; a constraint is only known of scalar types.
        is_certain = holds.nulls_equal or not known.source
        is_certain = is_certain or all(is_null_without_value(columns[name], semantics) for name in names)
        if len(names) == len(holds.columns) > 0 and is_certain:
            shown = ", ".join(f"{relation.name}.{name}" for name in names)
            verb = "is" if len(names) == 1 else "are together"
            keys.append(Key(frozenset(names), holds.nulls_equal, (_result(f"{shown} {verb} unique", known),)))
        return
    for name in names:
        column = columns[name]
        if isinstance(holds, NotNull):
            columns[name] = replace(column, not_null=(_result(f"{column.shown} is not null", known),))
        elif isinstance(holds, AcceptedValues):
            reason = (_result(f"{column.shown} has accepted values", known),)
            columns[name] = replace(column, values=Values(holds.values, holds.quoted, reason))
        elif (parent := fold_text(holds.parent_column, semantics)) is not None:
            reason = (_result(f"{column.shown} has its values from {parent} of its parent", known),)
            columns[name] = replace(column, members=(*column.members, Member(holds.parent, parent, reason)))


def _result(text: str, known: Known) -> Step:
    return Step(f"{text} ({known.label})", frozenset({known.source} - {""}), known.label)


def table_rows(table: exp.Table, environment: Environment) -> Rows:
    """Return what is known of a table in FROM: a common table expression, a relation, or nothing."""
    if not isinstance(table.this, exp.Identifier) or not has_only(table, *_TABLE_ARGUMENTS):
        return NOTHING
    name = environment.fold(table.this)
    if not table.args.get("db") and name in environment.queries:
        return environment.queries[name]
    parts = list(table.parts)
    # Keys of relations are in lower case, so that two relations could share one.
    if environment.semantics.folds_names != "all" and any(
        environment.fold(part) != fold(part.name, quoted=False, semantics=environment.semantics) for part in parts
    ):
        return NOTHING
    spelled = ".".join(part.name for part in parts)
    key = spelled.lower()
    if key != spelled.translate(_LOWER):
        return NOTHING
    relation = environment.relations.get(key)
    return _relation_rows(key, relation, environment) if relation is not None else NOTHING


def source_name(source: exp.Expr, environment: Environment) -> str | None:
    """Return the name by which a query calls a source in FROM."""
    alias = source.args.get("alias")
    identifier = alias.this if isinstance(alias, exp.TableAlias) and alias.this is not None else source.this
    return environment.fold(identifier) if isinstance(identifier, exp.Identifier) else None


def renamed(rows: Rows, alias: exp.TableAlias | None, environment: Environment) -> Rows:
    """Return rows under the column names of an alias such as `t(a, b)`."""
    names = (
        [environment.fold(name) for name in alias.args.get("columns") or () if isinstance(name, exp.Identifier)]
        if alias
        else []
    )
    if not names:
        return rows
    old = list(rows.columns)
    if rows.is_open or not rows.is_ordered or len(names) > len(old):
        return NOTHING
    new: list[Id] = [*names, *old[len(names) :]]
    if len(set(new)) < len(new):
        return NOTHING
    return replace(
        rows,
        hides_names=rows.hides_names and len(names) < len(old),
        columns={name: rows.columns[before] for name, before in zip(new, old, strict=True)},
        keys=tuple(
            replace(key, columns=frozenset(new[old.index(column)] for column in key.columns)) for key in rows.keys
        ),
    )


def aliases_of(select: exp.Select, environment: Environment) -> dict[str, exp.Expr]:
    """Return the expressions of the select list that have a name of their own."""
    found: dict[str, exp.Expr] = {}
    for item in select.expressions:
        alias = item.args.get("alias") if isinstance(item, exp.Alias) else None
        if isinstance(alias, exp.Identifier):
            name, column = environment.fold(alias), item.this
            is_column = isinstance(column, exp.Column) and isinstance(column.this, exp.Identifier)
            if not (is_column and environment.fold(column.this) == name):
                found[name] = column
    return found


@dataclass(slots=True)
class Scope:
    """The names in one SELECT, and what is known of its rows so far."""

    environment: Environment
    sources: dict[str, Rows] = field(default_factory=dict)
    rows: Rows = field(default_factory=Rows)
    merged: dict[str, Id] = field(default_factory=dict)
    """Columns that USING merged."""
    using: dict[str, set[str]] = field(default_factory=dict)
    """The sources of these columns."""
    aliases: dict[str, exp.Expr] = field(default_factory=dict)
    """The expressions of the select list that have a name of their own."""
    computed: dict[int, Id] = field(default_factory=dict)
    """Windows and aggregates, by the identity of their nodes."""
    groups: dict[str, Id] = field(default_factory=dict)
    """Grouped expressions, by their text."""
    has_totals: bool = False
    """Whether rows of several groupings are together, so that any grouped expression may be NULL instead."""
    rivals: frozenset[str] = frozenset()
    """Aliases that are names of columns too. Databases disagree about these, so they stand for neither."""

    def resolve(self, column: exp.Expr) -> Id | None:
        """Return the column that a name stands for, None where that is not certain."""
        found = self._named(column)
        return found if found in self.rows.columns else None

    def _named(self, column: exp.Expr) -> Id | None:
        """Return the same, even for a column that is no longer among the rows."""
        if not self.environment.is_name(column):
            return None
        name = self.environment.fold(column.this)
        qualifier = column.args.get("table")
        return (self.environment.fold(qualifier), name) if qualifier is not None else self._unqualified(name)

    def _unqualified(self, name: str) -> Id | None:
        if name in self.merged:
            return self.merged[name]
        if name in self.rivals:
            return None
        owners = [alias for alias, rows in self.sources.items() if not rows.is_open and name in rows.columns]
        if owners:
            return (owners[0], name) if len(owners) == 1 else None
        opened = [alias for alias, rows in self.sources.items() if rows.is_open or rows.hides_names]
        may_be_other = self.environment.is_inner or name in self.aliases
        return (opened[0], name) if len(opened) == 1 and not may_be_other else None

    def alias_of(self, column: exp.Expr) -> exp.Expr | None:
        """Return the expression of the select list that a name certainly stands for."""
        if not self.environment.is_name(column) or column.args.get("table"):
            return None
        name = self.environment.fold(column.this)
        may_be_column = name in self.merged or any(
            rows.is_open or rows.hides_names or name in rows.columns for rows in self.sources.values()
        )
        found = None if may_be_column or self.environment.is_inner else self.aliases.get(name)
        # An alias of another alias would lead in circles.
        is_plain = found is not None and not any(
            self.environment.fold(inner.this) in self.aliases for inner in _names(found)
        )
        return found if is_plain else None

    def may_have(self, name: str) -> bool:
        """Return whether a name without quotes could be one of a column."""
        if name in self.environment.semantics.keywords:
            return False
        name = fold(name, quoted=False, semantics=self.environment.semantics)
        return self.environment.is_inner or any(
            rows.is_open or rows.hides_names or name in rows.columns for rows in self.sources.values()
        )

    def identify(self, node: exp.Expr | None) -> Id | None:
        """Return the column of the rows that an expression is, None where it is something else."""
        while isinstance(node, exp.Paren):
            node = node.this
        if node is None:
            return None
        if id(node) in self.computed:
            return self.computed[id(node)]
        found = self.resolve(node)
        if found is None and (alias := self.alias_of(node)) is not None:
            return self.identify(alias)
        if found is None and self.groups and (text := self.text_of(node)) is not None:
            found = self.groups.get(text)
        return found if found in self.rows.columns else None

    def text_of(self, node: exp.Expr) -> str | None:
        """Return a text that equal expressions share, None where the columns in one are not certain."""
        names = [self._named(column) for column in node.find_all(exp.Column)]
        if None in names:
            return None
        copied = node.copy()
        for column, name in zip(list(copied.find_all(exp.Column)), names, strict=True):
            column.set("table", None)
            column.set("this", exp.to_identifier(repr(name), quoted=True))
        for part in copied.walk():
            part.comments = None
        # Unlike SQL, this shows all parts of the tree.
        return repr(copied)


def _names(node: exp.Expr) -> list[exp.Column]:
    return [found for found in node.find_all(exp.Column) if isinstance(found.this, exp.Identifier)]
