"""Pairs of SQL texts by mutation, run on a real database: equal normal forms must give equal rows.

A base is a text of the corpus, perhaps with some damage. It is mutated in places where nothing should change and in others,
and whatever keeps its form is rendered with several values of its variables and run.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

import jinja2

from dagster_sao.sql.normal_form import normal_form
from tests.sql.cases import read_cases

WORLDS = [
    {
        "cond": True, "e": "a + 1", "either": "a = 1 or a = 2", "word": "some  word", "note": "-- why", "comment": "/* c */",
        "text": "'x'", "columns": "a + 1 as c1", "ks": [1, 2],
        "lines": "x",
    },
    {
        "cond": False, "e": "a -- it's\n", "either": "a = 7\nor b = 2 -- or", "word": "line\nor not", "note": "", "comment": "-- c",
        "text": "|| 'y' -- '", "columns": "a as c1 -- first", "ks": [],
        "lines": "x\n",
    },
    {
        "cond": True, "e": "-b", "either": "(not a = 1)", "word": "x, 'y' -- and /* that */", "note": "+ 1 --", "comment": "--\n",
        "text": "\n'z'", "columns": 'a as "C 1",\nb as c2\n--', "ks": [3],
        "lines": "x\n + 2 --",
    },
]  # fmt: skip
# Their names, types and values, which are always compared, say the same; that a database agrees is asked of some.
_SHARE_AS_JSON = 0.1
_TABLES = """
create table t (a int, b int, "A b" int, c varchar);
insert into t values (1, 2, 3, 'x'), (2, 1, null, 'X'), (7, null, 1, 'x y'), (null, 2, 2, null), (1, 7, 0, 'x');
create table u (a int, b int);
insert into u values (1, 1), (2, 7), (null, 2)
"""
_PLACES = re.compile(r"\s+|\w+|[^\w\s]")
_HARMLESS = [
    " ", "  ", "\n", "\t", "\n\n  ", " /* c */ ", "/**/", " -- c\n", "--c\n", "/* ' */", " -- it's\n", "/* -- */", "{# c #}",
    " {#- c -#} ", "{%- set y = 1 -%}", "{% set y = 1 %}", "{{ config(x=1) }}", "\n/* c\n c */\n",
]  # fmt: skip
_HARMFUL = [
    "(", ")", "(1)", "'", "''", "'\n'", '"', ";", "{{ e }}", "{{ text }}", "{{ note }}", "{{ comment }}", "{{ word }}",
    "{% if cond %}", "{% endif %}", "{% else %}", "{% if cond %}-{% endif %}", "{% if cond %}'{% endif %}", "{% raw %}",
    "{% endraw %}", "{% for k in ks %}", "{% endfor %}", "$$", "$x$", "E", "e", "U&", "\\", "/*", "*/", "--", "-", "+", "@", ":",
    "::", ".", "1e", "e5", "/*+ h */", "--+ h\n", "\r\n", "\r", "\u00a0", "\x0c", "as", " as ", "END", "{'", "}", "[", "]", ",",
    "{{ \"'\" }}", "{{ '/*' }}", "{{ '*/' }}", "/", "*", "#", "{% set q %}", "{% endset %}", "`",
]  # fmt: skip


@dataclass
class Report:
    """What was tried. A pair counts when its texts differ after rendering and at least one of them is a query."""

    tried: int = 0
    pairs: int = 0
    errors: int = 0
    by_base: Counter[str] = field(default_factory=Counter)
    counterexample: tuple[str, str, str] | None = None


class DuckDB:
    """An in-memory DuckDB with the tables of the corpus."""

    dialect = "duckdb"
    _JSON = "select to_json(x) from (\n{}\n) x"

    def __init__(self):
        import duckdb

        self._error = duckdb.Error
        self._connection = duckdb.connect(config={"threads": 1})
        self._connection.execute(_TABLES)

    def run(self, sql):
        try:
            self._connection.execute(sql)
            names = [(column[0], str(column[1])) for column in self._connection.description or ()]
            return names, sorted(map(repr, self._connection.fetchall()))
        except self._error:
            return "no query"

    def close(self):
        self._connection.close()

    def json(self, sql):
        """Return the rows as JSON, or None where a semicolon keeps the text from being a part of another query."""
        return None if ";" in sql else self.run(self._JSON.format(sql))


class Postgres(DuckDB):
    """A session of a PostgreSQL server with the tables of the corpus."""

    dialect = "postgres"
    _JSON = "select row_to_json(x)::text from (\n{}\n) x"

    def __init__(self, server):
        import psycopg2

        self._error = psycopg2.Error
        self._session = server.connect()
        self._connection = self._session.cursor()
        self._connection.execute(
            "create schema fuzz; set search_path to fuzz; set statement_timeout to 5000;" + _TABLES
        )

    def close(self):
        self._connection.execute("drop schema fuzz cascade")
        self._session.close()


class Fuzz:
    """Makes pairs from one seed and compares their results on one database."""

    def __init__(self, database, seed, form: Callable[[str, str], str] = normal_form, titles: Collection[str] = ()):
        """`titles` are those of the bases, all where there are none."""
        self._database = database
        self._source = random.Random(seed)
        self._form = form
        self._corpus = [case for case in read_cases("corpus.sql") if case.dialect in {"both", database.dialect}]
        self._corpus = [case for case in self._corpus if not titles or case.title in titles]
        environment = jinja2.Environment(extensions=["jinja2.ext.do", "jinja2.ext.loopcontrols"])
        relations = {"ref": lambda name: f'"{name}"', "source": lambda _, name: f'"{name}"', "this": '"t"'}
        environment.globals.update(relations, config=lambda **_: "")
        self._environment = environment
        self._rendered: dict[str, list[str | None]] = {}

    def run(self, pairs: int) -> Report:
        """Compare until `pairs` pairs were equal, or one was not."""
        report = Report()
        while report.pairs < pairs and report.counterexample is None:
            case = self._source.choice(self._corpus)
            self._try_base(case, report)
        return report

    def _try_base(self, case, report):
        base = case.texts[0].rstrip("\n")
        for _ in range(self._source.choice([0, 0, 1, 1, 2, 3])):
            base = self._mutate(base, harmless=0.3)
        self._rendered.clear()
        form = self._form(base, self._database.dialect)
        results: dict[str, object] = {}
        seen = {base}
        for _ in range(40):
            mutant = base
            for _ in range(self._source.choice([1, 1, 2, 3])):
                mutant = self._mutate(mutant, harmless=0.85)
            report.tried += 1
            if mutant in seen or self._form(mutant, self._database.dialect) != form:
                continue
            seen.add(mutant)
            if not self._compare(base, mutant, results, report):
                return
            report.by_base[case.title] += 1

    def _compare(self, base, mutant, results, report):
        """Return whether the results are equal in each world, and count the pair."""
        outcomes = set()
        asks = (
            [self._database.run, self._database.json]
            if self._source.random() < _SHARE_AS_JSON
            else [self._database.run]
        )
        for one, other in _side_by_side(self._render(base), self._render(mutant)):
            # A mistake within `config(…)` ends dbt's parse, so such a text has no form to compare.
            if one == other or (None in {one, other} and "config" in mutant):
                continue
            for ask in asks:
                found = [self._result(ask, text, results) for text in (one, other)]
                if found[0] != found[1] and None not in found:
                    report.counterexample = (base, mutant, f"{one!r} gives {found[0]}, {other!r} gives {found[1]}")
                    return False
                outcomes.add(isinstance(found[0], tuple))
        report.pairs += True in outcomes
        report.errors += outcomes == {False}
        return True

    def _result(self, ask, text, results):
        if (ask, text) not in results:
            results[ask, text] = "no template" if text is None else ask(text)
        return results[ask, text]

    def _render(self, text) -> list[str | None]:
        """Return the text in each world, None where it is no template."""
        # dbt does not render a text without tags.
        if not re.search(r"{[{%#]|[#}%]}", text):
            return [text]
        if text not in self._rendered:
            try:
                template = self._environment.from_string(text)
                self._rendered[text] = [_rendered(template, world) for world in WORLDS]
            except jinja2.TemplateError:
                self._rendered[text] = [None]
        return self._rendered[text]

    def _mutate(self, text, harmless):
        pieces = _PLACES.findall(text)
        if not pieces:
            return text
        source = self._source
        at = source.randrange(len(pieces))
        if source.random() < harmless:
            self._reformat(pieces, at)
        else:
            self._damage(pieces, at)
        return "".join(pieces)

    def _reformat(self, pieces, at):
        source = self._source
        what = source.choice(["insert", "insert", "replace", "replace", "drop", "case", "end"])
        spaces = [n for n, piece in enumerate(pieces) if piece.isspace()]
        if what in {"replace", "drop"} and spaces:
            pieces[source.choice(spaces)] = (
                source.choice([" ", "\n", source.choice(_HARMLESS)]) if what == "replace" else ""
            )
        elif what == "case":
            word = pieces[at]
            pieces[at] = source.choice([word.upper(), word.lower(), word.capitalize()])
        elif what == "end":
            pieces.append(source.choice([";", " ; ", "\n", " -- c", ";;", "/* c */"]))
        else:
            pieces.insert(at, source.choice(_HARMLESS))

    def _damage(self, pieces, at):
        source = self._source
        what = source.choice(["insert", "insert", "wrap", "unwrap", "drop", "swap", "copy"])
        to = source.randrange(len(pieces))
        if what == "wrap":
            at, to = min(at, to), max(at, to)
            pieces[at:to] = ["(", *pieces[at:to], ")"]
        elif what == "unwrap" and (pairs := list(_parentheses(pieces))):
            opening, closing = source.choice(pairs)
            pieces[closing] = pieces[opening] = source.choice(["", " "])
        elif what == "drop":
            del pieces[at]
        elif what == "swap":
            pieces[at], pieces[to] = pieces[to], pieces[at]
        elif what == "copy":
            pieces.insert(to, pieces[at])
        else:
            pieces.insert(at, source.choice(_HARMFUL))


def _side_by_side(ones, others):
    """Pair the texts of each world; a text without tags is the same in all."""
    return zip(*(texts * len(WORLDS) if len(texts) == 1 else texts for texts in (ones, others)), strict=True)


def _rendered(template, world):
    try:
        return template.render(world)
    except (jinja2.TemplateError, TypeError, ValueError, OverflowError):
        return None


def _parentheses(pieces) -> Iterator[tuple[int, int]]:
    stack = []
    for index, piece in enumerate(pieces):
        if piece == "(":
            stack.append(index)
        elif piece == ")" and stack:
            yield stack.pop(), index
