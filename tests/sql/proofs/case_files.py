"""Reads the case files: relations with what is known of them, a query, and properties that follow or do not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from dagster_sao.sql.proofs import AcceptedValues, Known, NotNull, Relation, Relationship, Unique

_RELATION = re.compile(r"(?P<name>\w+)(?: (?P<open>unknown))?(?:\((?P<columns>(?:[^()]|\(\d+\))*)\))?")
_ANSWER = re.compile(r"(?P<label>yes|no|proven|missed|open) (?=(unique|strict|not_null|parent|values|numbers)\()")
_COLUMN = re.compile(r'(?P<name>\w+)(?: (?P<type>"[^"]*"|\?|text|varchar|char\(3\)|date|timestamp|json))?(?P<rest>.*)')


@dataclass
class Case:
    title: str
    adapter: str | None
    relations: dict[str, Relation]
    sql: str
    answers: list[tuple[str, object]]
    """Properties, each after its label."""


def read_cases(file: str) -> list[Case]:
    text = (Path(__file__).parent / "cases" / file).read_text(encoding="utf-8")
    return [_case(part) for part in text.split("\n== ")[1:]]


def _case(text: str) -> Case:
    title, relations, *lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    title, adapter = re.fullmatch(r"(.*?)(?: \[(\w+)\])?", title).groups()
    answers = [(found["label"], parse_property(line)) for line in lines if (found := _ANSWER.match(line))]
    sql = "\n".join(line for line in lines if not _ANSWER.match(line))
    return Case(title, adapter, parse_relations(relations), sql, answers)


def parse_relations(text: str) -> dict[str, Relation]:
    text, *keys = re.split(r" with (?=lax |\w+\()", text)
    found = {match["name"]: _relation(match) for match in _RELATION.finditer(text)}
    for key in keys:
        is_lax, name, columns = re.fullmatch(r"(lax )?(\w+)\((.*)\)", key).groups()
        known = Known(Unique(tuple(columns.split()), nulls_equal=not is_lax), f"{name}.key", "passed 12:09")
        before = found[name]
        found[name] = Relation(before.name, before.columns, (*before.known, known), before.types)
    return found


def _relation(match) -> Relation:
    name, known, columns, types = match["name"], [], [], {}
    for number, part in enumerate((match["columns"] or "").split(",") if match["columns"] else []):
        column = _COLUMN.fullmatch(part.strip())
        columns.append(column["name"])
        if column["type"] != "?":
            types[column["name"]] = (column["type"] or "integer").strip('"')
        for holds in _known(column["name"], column["rest"]):
            label = f"passed 12:0{number}"
            known.append(Known(holds, f"{name}.{column['name']}.{type(holds).__name__}", label))
    is_closed = match["columns"] is not None and not match["open"]
    return Relation(name, tuple(columns) if is_closed else None, tuple(known), types or None)


def _known(column: str, rest: str):
    if " unique" in rest:
        yield Unique((column,))
    if " not_null" in rest:
        yield NotNull(column)
    if found := re.search(r" in (\S+)", rest):
        yield AcceptedValues(column, frozenset(found[1].split("/")), quoted=True)
    if found := re.search(r" parent (\w+)\.(\w+)", rest):
        yield Relationship(column, found[1], found[2])


def parse_property(line: str):
    kind, arguments = re.match(r"\w+ (\w+)\((.*?)\)", line).groups()
    names = arguments.split()
    if kind in {"unique", "strict"}:
        return Unique(tuple(names), nulls_equal=kind == "strict")
    if kind == "not_null":
        return NotNull(names[0])
    if kind == "parent":
        return Relationship(names[0], *names[2].split("."))
    return AcceptedValues(names[0], frozenset(names[1].split("/")), quoted=kind == "values")
